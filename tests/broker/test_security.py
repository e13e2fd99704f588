"""Security settings against a real Kafka that asks for credentials."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import closing

import pytest
from aiokafka import AIOKafkaProducer

from broker import embedded, ports
from broker.clients import connect
from broker.kraft import HOST, server_properties
from broker.topics import ensure_topics, list_topics, topic_name
from schema.errors import BrokerUnavailableError
from schema.settings import Settings, load_settings

PASSWORD = "grist"  # noqa: S105


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The servers of a Kafka with a second listener, for which a user name and a password are needed."""
    port = ports.free_port(HOST)

    def with_a_guarded_listener(*arguments: object) -> dict[str, str]:
        properties = server_properties(*arguments)  # type: ignore[arg-type]
        login = "org.apache.kafka.common.security.plain.PlainLoginModule required"
        return properties | {
            "listeners": f"{properties['listeners']},SASL_PLAINTEXT://{HOST}:{port}",
            "advertised.listeners": f"{properties['advertised.listeners']},SASL_PLAINTEXT://{HOST}:{port}",
            "listener.security.protocol.map": f"{properties['listener.security.protocol.map']},"
            "SASL_PLAINTEXT:SASL_PLAINTEXT",
            "sasl.enabled.mechanisms": "PLAIN",
            "listener.name.sasl_plaintext.plain.sasl.jaas.config": f'{login} user_miller="{PASSWORD}";',
        }

    own = load_settings(
        data_dir=tmp_path_factory.mktemp("guarded"), broker_port=ports.free_port(HOST), broker_heap_mb=256
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(embedded, "server_properties", with_a_guarded_listener)
        embedded.start(own)
    yield f"{HOST}:{port}"
    embedded.stop(own)


def settings_with(servers: str, password: str) -> Settings:
    return load_settings(
        bootstrap_servers=servers,
        security_protocol="SASL_PLAINTEXT",
        sasl_mechanism="PLAIN",
        sasl_username="miller",
        sasl_password=password,
    )


def test_all_clients_pass_with_the_right_password(guarded: str) -> None:
    connection = connect(settings_with(guarded, PASSWORD))
    ensure_topics(connection, ["reduction"])
    assert len(list_topics(connection)) == 5
    topic = topic_name(connection.settings, "reduction", "raw")
    with closing(connection.producer()) as producer:
        producer.send(topic, b"x", partition=0).get(30)

    async def send() -> int:
        producer = AIOKafkaProducer(**connection.aiokafka_options())
        await producer.start()
        try:
            return int((await producer.send_and_wait(topic, b"x", partition=0)).offset)
        finally:
            await producer.stop()

    assert asyncio.run(send()) == 1


def test_wrong_password_is_told_as_such_within_ten_seconds(guarded: str) -> None:
    started = time.monotonic()
    with pytest.raises(BrokerUnavailableError, match="credentials") as caught:
        connect(settings_with(guarded, "chaff"))
    assert time.monotonic() - started < 10
    assert "chaff" not in str(caught.value)
