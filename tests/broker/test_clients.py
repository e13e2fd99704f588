"""Clients: the addresses they refuse, how soon they give up, and the limits of their options."""

from __future__ import annotations

import asyncio
import re
import socket
import socketserver
import threading
import time
from contextlib import closing, suppress
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer
from kafka import TopicPartition
from kafka.errors import KafkaTimeoutError, MessageSizeTooLargeError, OffsetOutOfRangeError

from broker import ports
from broker.clients import Connection, connect
from broker.kraft import HOST
from broker.topics import ensure_topics, list_topics, topic_name
from schema.errors import BrokerUnavailableError, ConfigError
from schema.settings import Settings, load_settings

MIB = 1024 * 1024
PASSWORD = "grist"  # noqa: S105


def give_up(settings: Settings) -> tuple[str, float]:
    """Connect without success; return the error's line and the seconds it took."""
    started = time.monotonic()
    with pytest.raises(BrokerUnavailableError) as caught:
        connect(settings)
    return str(caught.value), time.monotonic() - started


@pytest.mark.slow
def test_missing_broker_is_one_clear_line_within_ten_seconds(tmp_path: Path) -> None:
    line, took_s = give_up(load_settings(bootstrap_servers=f"{HOST}:{ports.free_port(HOST)}", data_dir=tmp_path))
    assert "FEEDMILL_BOOTSTRAP_SERVERS" in line
    assert "\n" not in line
    assert took_s < 10
    assert list(tmp_path.iterdir()) == []  # no embedded broker is started instead


@pytest.mark.slow
def test_address_that_accepts_and_never_answers_is_given_up_within_ten_seconds() -> None:
    with socket.socket() as mute:
        mute.bind((HOST, 0))
        mute.listen()
        _, took_s = give_up(load_settings(bootstrap_servers=f"{HOST}:{mute.getsockname()[1]}"))
    assert took_s < 10


def test_unknown_host_name_is_given_up_within_ten_seconds() -> None:
    line, took_s = give_up(load_settings(bootstrap_servers="no-such-host.invalid:9092", broker_timeout_s=1))
    assert "no-such-host.invalid" in line
    assert took_s < 10


def test_a_busy_broker_that_has_answered_gets_more_time_than_one_that_is_silent(broker: str) -> None:
    host, port = broker.split(":")
    accepted: list[float] = []

    class SlowRelay(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            accepted.append(time.monotonic())
            if len(accepted) > 1:
                time.sleep(1.5)
            with socket.create_connection((host, int(port))) as real:
                forth = threading.Thread(target=relay, args=(self.request, real))
                forth.start()
                relay(real, self.request)
                forth.join()

    def relay(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65_536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    with socketserver.ThreadingTCPServer((HOST, 0), SlowRelay) as server:
        threading.Thread(target=server.serve_forever).start()
        relayed = f"{HOST}:{server.server_address[1]}"
        try:
            with closing(Connection(load_settings(broker_timeout_s=0.5), relayed).admin()):
                assert len(accepted) > 1
        finally:
            server.shutdown()


def test_second_server_is_used_if_the_first_is_down(broker: str) -> None:
    connection = connect(load_settings(bootstrap_servers=f"{HOST}:{ports.free_port(HOST)}, {broker}"))
    with closing(connection.admin()) as admin:
        assert admin.describe_cluster()


@pytest.mark.slow
def test_failed_connection_leaves_no_thread() -> None:
    before = threading.active_count()
    with socket.socket() as mute:
        mute.bind((HOST, 0))
        mute.listen()
        settings = load_settings(
            bootstrap_servers=f"{HOST}:{mute.getsockname()[1]}",
            broker_timeout_s=0.5,
            # With SASL only the listener is checked first, so it is the client that fails.
            security_protocol="SASL_PLAINTEXT",
            sasl_mechanism="PLAIN",
            sasl_username="miller",
            sasl_password=PASSWORD,
        )
        give_up(settings)
    assert threading.active_count() == before


@pytest.mark.slow
def test_missing_certificate_file_is_a_configuration_error(tmp_path: Path) -> None:
    with socket.socket() as listening:
        listening.bind((HOST, 0))
        listening.listen()
        servers = f"{HOST}:{listening.getsockname()[1]}"
        with pytest.raises(ConfigError, match="FEEDMILL_SSL_CAFILE"):
            connect(load_settings(bootstrap_servers=servers, security_protocol="SSL", ssl_cafile=tmp_path / "no.pem"))


def test_server_without_a_port_is_a_configuration_error() -> None:
    with pytest.raises(ConfigError, match="host:port"):
        connect(load_settings(bootstrap_servers="localhost"))


@pytest.mark.parametrize(
    ("server", "right"),
    [
        ("::1:9093", "[::1]:9093"),
        ("::1", "[::1]:9092"),
        ("[::1]", "[::1]:9092"),
        ("2001:db8::1:9093", "[2001:db8::1]:9093"),
    ],
)
def test_the_error_about_an_ipv6_address_without_brackets_shows_the_right_form(server: str, right: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(right)):
        connect(load_settings(bootstrap_servers=server))


def test_an_ipv6_address_in_brackets_works(broker: str) -> None:
    # Kafka listens on IPv4 only, so a relay copies from the IPv6 loopback to Kafka.
    target = int(broker.rpartition(":")[2])

    class Pass(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with socket.create_connection(("127.0.0.1", target)) as there:
                threading.Thread(target=self._copy, args=(there, self.request), daemon=True).start()
                self._copy(self.request, there)

        @staticmethod
        def _copy(source: socket.socket, target: socket.socket) -> None:
            with suppress(OSError):
                while data := source.recv(65536):
                    target.sendall(data)
                target.shutdown(socket.SHUT_WR)

    class Server(socketserver.ThreadingTCPServer):
        address_family = socket.AF_INET6
        daemon_threads = True
        block_on_close = False

    with Server(("::1", 0), Pass) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        connection = connect(load_settings(bootstrap_servers=f"[::1]:{server.server_address[1]}"))
        assert isinstance(list_topics(connection), list)
        server.shutdown()


def test_connection_to_the_configured_broker_starts_no_embedded_one(connection: Connection, settings: Settings) -> None:
    assert connection.servers == settings.bootstrap_servers
    assert not (settings.data_dir / "broker").exists()


def test_consumer_outside_the_log_is_an_error_not_a_jump(connection: Connection) -> None:
    ensure_topics(connection, ["reduction"])
    partition = TopicPartition(topic_name(connection.settings, "reduction", "clean"), 0)
    with closing(connection.consumer()) as consumer:
        consumer.assign([partition])
        consumer.seek(partition, 100)
        with pytest.raises(OffsetOutOfRangeError):
            while True:
                consumer.poll(timeout_ms=1000)


def test_misspelt_topic_is_an_error_not_a_new_topic(connection: Connection) -> None:
    with closing(connection.producer(max_block_ms=500)) as producer, pytest.raises(KafkaTimeoutError):
        producer.send(f"{connection.settings.namespace}.reductoin.raw", b"x")


def test_raw_accepts_and_returns_a_record_of_eight_mebibytes(connection: Connection) -> None:
    ensure_topics(connection, ["reduction"])
    partition = TopicPartition(topic_name(connection.settings, "reduction", "raw"), 0)
    value = b"x" * (8 * MIB)
    with closing(connection.producer()) as producer:
        producer.send(partition.topic, value, partition=0, headers=[("k", b"v" * 1000)]).get(30)
    with closing(connection.consumer()) as consumer:
        consumer.assign([partition])
        consumer.seek(partition, 0)
        assert next(iter(consumer)).value == value


def test_rejected_accepts_the_largest_raw_record_with_dead_letter_headers(connection: Connection) -> None:
    ensure_topics(connection, ["reduction"])
    with closing(connection.producer()) as producer:
        producer.send(
            topic_name(connection.settings, "reduction", "rejected"),
            b"x" * (8 * MIB),
            headers=[("foreign", b"v" * 60_000), ("__connect.errors.exception.message", b"m" * 10_000)],
        ).get(30)


def test_clean_refuses_a_record_larger_than_a_micro_batch(connection: Connection) -> None:
    ensure_topics(connection, ["reduction"])
    with closing(connection.producer()) as producer, pytest.raises(MessageSizeTooLargeError):
        producer.send(topic_name(connection.settings, "reduction", "clean"), b"x" * (2 * MIB)).get(30)


def test_aiokafka_clients_connect_with_the_options(connection: Connection) -> None:
    ensure_topics(connection, ["reduction"])
    topic = topic_name(connection.settings, "reduction", "raw")

    async def send() -> int:
        producer = AIOKafkaProducer(**connection.aiokafka_options(), max_request_size=connection.max_request_bytes)
        await producer.start()
        try:
            return int((await producer.send_and_wait(topic, b"x" * (8 * MIB), partition=1)).offset)
        finally:
            await producer.stop()

    assert asyncio.run(send()) == 0


def test_password_reaches_clients_but_no_repr() -> None:
    settings = load_settings(
        bootstrap_servers="kafka.invalid:9093",
        security_protocol="SASL_SSL",
        sasl_mechanism="SCRAM-SHA-512",
        sasl_username="miller",
        sasl_password=PASSWORD,
    )
    connection = Connection(settings, "kafka.invalid:9093")
    options = connection.aiokafka_options()
    assert options["sasl_plain_password"] == PASSWORD
    assert options["sasl_mechanism"] == "SCRAM-SHA-512"
    assert options["ssl_context"].check_hostname
    assert PASSWORD not in repr(connection)


@pytest.mark.parametrize("servers", ["http://127.0.0.1:9092", "kafka://host:9092/", "host:9092/topic"])
def test_a_url_in_place_of_a_server_is_named_as_such(servers: str) -> None:
    with pytest.raises(ConfigError, match="is a URL, not host:port"):
        connect(load_settings(bootstrap_servers=servers))
