"""Kept clients: one set of connections for any number of questions, and new clients after lost connections."""

from __future__ import annotations

import pickle
import threading

import pytest

from broker.clients import Connection
from broker.committed import has_records
from broker.kept_clients import keeping_clients, kept_clients
from broker.topics import (
    committed_positions,
    delete_topics,
    ensure_topics,
    extents,
    topic_name,
    undecided,
)
from schema.errors import BrokerError
from schema.record import RAW
from tests.broker.connections import counted

FAMILY = "reduction"


def ask_everything(connection: Connection, topic: str) -> None:
    assert extents(connection, topic)[0].end == 1
    assert undecided(connection, topic) == {}
    assert committed_positions(connection, "nobody", topic) == {}
    assert has_records(connection, topic, {0: 0})[0]
    assert not has_records(connection, topic, {0: 1})[0]


@pytest.fixture
def topic(connection: Connection) -> str:
    ensure_topics(connection, [FAMILY])
    name = topic_name(connection.settings, FAMILY, RAW)
    producer = connection.producer()
    producer.send(name, b"{}", partition=0).get(30)
    producer.close()
    return name


def test_kept_clients_connect_once_for_any_number_of_questions(connection: Connection, topic: str) -> None:
    with kept_clients(connection) as kept:
        ask_everything(kept, topic)
        with counted() as later:
            for _ in range(5):
                ask_everything(kept, topic)
    assert later.count == 0
    with counted() as unkept:
        ask_everything(connection, topic)
    assert unkept.count > 10


def test_a_function_keeps_clients_for_its_call_and_closes_them_at_its_end(connection: Connection, topic: str) -> None:
    @keeping_clients
    def ask(connection: Connection, times: int) -> int:
        for _ in range(times):
            ask_everything(connection, topic)
        return threading.active_count()

    before = threading.active_count()
    assert ask(connection, times=2) > before
    assert threading.active_count() == before


def test_a_client_that_lost_its_connections_is_replaced(connection: Connection, topic: str) -> None:
    with kept_clients(connection) as kept:
        with kept.lend_admin() as admin:
            pass
        admin._client.close()
        assert extents(kept, topic)[0].end == 1


def test_a_kept_client_still_works_after_a_failed_question(connection: Connection, topic: str) -> None:
    with kept_clients(connection) as kept:
        extents(kept, topic)
        with counted() as opened:
            with pytest.raises(BrokerError, match="does not exist"):
                extents(kept, f"{topic}.none")
            extents(kept, topic)
    assert opened.count == 0


def test_threads_share_kept_clients(connection: Connection, topic: str) -> None:
    failures: list[BaseException] = []

    def ask(kept: Connection) -> None:
        try:
            for _ in range(5):
                ask_everything(kept, topic)
        except BaseException as error:
            failures.append(error)

    with kept_clients(connection) as kept:
        threads = [threading.Thread(target=ask, args=(kept,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not failures


def test_another_process_gets_a_connection_without_clients(connection: Connection, topic: str) -> None:
    with kept_clients(connection) as kept:
        extents(kept, topic)
        assert pickle.loads(pickle.dumps(kept)) == connection  # noqa: S301  # bytes of this test
    delete_topics(connection, [topic])
