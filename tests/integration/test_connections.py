"""Loops that look at topics again and again open few connections: counted for each of them, in this process."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator

import pytest

from broker.clients import Connection
from broker.topics import ensure_topics
from consumers.feed import Feed, FeedOptions
from feedmill.watch import watch
from producers.follow import follow
from schema.errors import DrainTimeoutError, ProducerError
from schema.reduction import FAMILY
from streams.coverage.fold import LedgerFold
from streams.coverage.requests import RequestPublisher
from streams.coverage.store import CoverageStore
from streams.drain import drain
from tests import reductions
from tests.broker.connections import counted
from tests.consumers.records import write

# Clients of a loop that begins; each makes some five connections.
AT_START = 40
# Connections that the clients of a running loop may open again after an error.
LATER = 2
WATCHED_S = 3.0


@pytest.fixture
def rows(connection: Connection) -> Iterator[None]:
    write(connection, reductions.valid(100))
    yield


def test_a_feed_that_waits_for_records_opens_no_connection(connection: Connection, rows: None) -> None:
    feed = Feed(connection, "reduction", split=None, batch_size=25, mode="follow", options=FeedOptions(linger_s=0.1))
    batches = iter(feed)
    list(itertools.islice(batches, 4))
    time.sleep(1)
    with counted() as idle:
        time.sleep(WATCHED_S)
    assert idle.count <= LATER
    # Nor does a topic that grows a little at a time make it open more.
    opened = 0
    for first in (100, 125, 150):
        write(connection, reductions.valid(25, first=first))
        with counted() as reading:
            next(batches)
        opened += reading.count
    batches.close()  # type: ignore[attr-defined]
    assert opened <= LATER


def test_drain_opens_no_connection_while_it_waits(connection: Connection) -> None:
    ensure_topics(connection, [FAMILY.name])
    producer = connection.producer()
    producer.send(f"{connection.settings.namespace}.{FAMILY.name}.raw", b"{}", partition=0).get(30)
    producer.close()
    with counted() as opened, pytest.raises(DrainTimeoutError):
        drain(connection, FAMILY.name, timeout_s=5)
    assert opened.count <= AT_START


def test_watch_opens_no_connection_after_its_first_look(
    connection: Connection, rows: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from broker.kept_clients import kept_clients

    looks = itertools.count()

    def three_looks(interval_s: float) -> None:
        if next(looks) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr("feedmill.watch.time.sleep", three_looks)
    with counted() as opened, pytest.raises(KeyboardInterrupt), kept_clients(connection) as kept:
        watch(kept, interval_s=1.0, once=False)
    assert opened.count <= AT_START / 2


def test_a_producer_that_follows_opens_no_connection_while_it_waits(connection: Connection) -> None:
    patient = connection.settings.model_copy(update={"follow_patience_s": 4.0})
    ensure_topics(connection, [FAMILY.name])
    asking = Connection(patient, connection.servers)
    with counted() as opened, pytest.raises(ProducerError, match="no coverage service publishes"):
        follow(asking, FAMILY, make=None, batch_rows=10)  # type: ignore[arg-type]
    assert opened.count <= AT_START


def test_the_coverage_service_opens_no_connection_while_it_waits(connection: Connection, rows: None) -> None:
    from broker.kept_clients import kept_clients

    families = {FAMILY.name: FAMILY}
    stop = threading.Event()
    store = CoverageStore(connection.settings.data_dir, families)
    with kept_clients(connection) as kept:
        fold = LedgerFold(kept, store, families)
        publisher = RequestPublisher(kept, store, families)
        folding = threading.Thread(target=fold.run, args=(stop, lambda folded: publisher.publish()))
        folding.start()
        time.sleep(2)
        # Long enough that it looks for new partitions.
        with counted() as opened:
            time.sleep(12)
        stop.set()
        folding.join()
        publisher.close()
        fold.close()
    store.close()
    assert opened.count <= LATER
