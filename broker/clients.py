"""The factories of Kafka clients: security, isolation, idempotence and size limits are set here and nowhere else.

`connect` takes settings and returns a `Connection`. Its methods make `kafka-python` clients and the options of
`aiokafka` clients.
"""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka.errors import KafkaError
from kafka.net.compat import KafkaNetClient

from broker import embedded, probe, receiving
from broker.artifacts import OnProgress
from broker.codecs import bound_aiokafka, bound_kafka_python
from broker.diagnosis import why_refused
from broker.security import security_options
from schema.errors import BrokerUnavailableError, ConfigError
from schema.settings import Settings

# Bytes for a record's headers and the framing of its batch, in addition to its value.
HEADER_ROOM_BYTES = 64 * 1024
# Records wait this long for others of their partition: the latency is small and the throughput higher.
LINGER_MS = 5
BATCH_BYTES = 128 * 1024

PROBE_INTERVAL_S = 0.1
# A broker that has just answered is up. If it is busy, a client may take longer than `broker_timeout_s` to connect.
ANSWERED_TIMEOUT_S = 30.0
# The time for `check_security`. Together with `broker_timeout_s` it must stay under 10 s.
SECURITY_CHECK_S = 3.0

Client = TypeVar("Client")

bound_kafka_python()
receiving.install()


def raw_limit_bytes(settings: Settings) -> int:
    """Return the largest record batch that `raw` accepts: the largest raw record and its headers."""
    return settings.raw_record_max_bytes + HEADER_ROOM_BYTES


def rejected_limit_bytes(settings: Settings) -> int:
    """Return the largest record batch that `rejected` accepts: any record of raw, with dead-letter headers added."""
    return raw_limit_bytes(settings) + HEADER_ROOM_BYTES


@dataclass(frozen=True)
class Connection:
    """The address of a Kafka and the settings of its clients; a connection holds no socket of its own.

    Attributes:
        settings: the settings for the clients.
        servers: `host:port,...`.
    """

    settings: Settings
    servers: str

    @property
    def max_request_bytes(self) -> int:
        """The largest produce request that a client may send; the client library's default is 1 MiB."""
        return rejected_limit_bytes(self.settings) + HEADER_ROOM_BYTES

    def producer(self, **overrides: Any) -> KafkaProducer:
        """Return an idempotent producer; its own compression is off, because micro-batches are already compressed.

        Raises:
            BrokerUnavailableError: nothing answers at the servers within `settings.broker_timeout_s`.
        """
        return self._client(
            KafkaProducer,
            {
                "acks": "all",
                "enable_idempotence": True,
                "compression_type": None,
                "linger_ms": LINGER_MS,
                "batch_size": BATCH_BYTES,
                "max_request_size": self.max_request_bytes,
                "allow_auto_create_topics": False,
                **overrides,
            },
        )

    def consumer(self, **overrides: Any) -> KafkaConsumer:
        """Return a consumer of committed records for explicit `assign()`, without a group and without commits.

        Raises:
            BrokerUnavailableError: nothing answers at the servers within `settings.broker_timeout_s`.
        """
        return self._client(
            KafkaConsumer,
            {
                "group_id": None,
                "enable_auto_commit": False,
                "isolation_level": "read_committed",
                # A position outside the log must raise an error instead of a silent jump.
                "auto_offset_reset": "none",
                "max_partition_fetch_bytes": rejected_limit_bytes(self.settings),
                "allow_auto_create_topics": False,
                **overrides,
            },
        )

    def admin(self, **overrides: Any) -> KafkaAdminClient:
        """Return an admin client; use the functions of `broker.topics` instead if they suffice.

        Raises:
            BrokerUnavailableError: nothing answers at the servers within `settings.broker_timeout_s`.
        """
        return self._client(KafkaAdminClient, overrides)

    @contextmanager
    def lend_admin(self) -> Iterator[KafkaAdminClient]:
        """Yield an admin client for one question; under `broker.kept_clients` it stays open for the next question."""
        with closing(self.admin()) as admin:
            yield admin

    @contextmanager
    def lend_consumer(self, **overrides: Any) -> Iterator[KafkaConsumer]:
        """Yield a consumer for one reading; under `broker.kept_clients` it stays open for the next reading."""
        with closing(self.consumer(**overrides)) as consumer:
            yield consumer

    def aiokafka_options(self) -> dict[str, Any]:
        """Return the options of every aiokafka client: servers, client id, security."""
        bound_aiokafka()
        return {
            "bootstrap_servers": self.servers,
            "client_id": self.settings.client_id,
            **security_options(self.settings),
        }

    def _client(self, factory: Callable[..., Client], own: dict[str, Any]) -> Client:
        settings = self.settings
        # A client that cannot bootstrap leaves a thread and sockets behind. So give it one reachable server, which
        # names the others, and close its network clients on an error.
        server, left_s = self._reachable_server()
        options: dict[str, Any] = {
            "bootstrap_servers": [server],
            "bootstrap_timeout_ms": int(left_s * 1000),
            "client_id": settings.client_id,
            **security_options(settings),
            **own,
        }
        network_clients: list[KafkaNetClient] = []

        def remember(**network_options: Any) -> KafkaNetClient:
            network_clients.append(KafkaNetClient(**network_options))
            return network_clients[-1]

        try:
            return factory(kafka_client=remember, **options)
        except BaseException as error:
            for client in network_clients:
                client.close()
            if isinstance(error, KafkaError | OSError):
                raise self._unavailable(error) from error
            raise

    def _reachable_server(self) -> tuple[str, float]:
        """Return the first reachable server, and the seconds that a client may take to connect to it."""
        servers = {server: _address(server) for server in self.servers.split(",")}
        # With TLS or SASL only a real client can ask Kafka, so here it is enough that a server listens.
        is_plain = self.settings.security_protocol == "PLAINTEXT"
        reachable, least_s = (probe.answers, ANSWERED_TIMEOUT_S) if is_plain else (probe.listens, 1.0)
        deadline = time.monotonic() + self.settings.broker_timeout_s
        while True:
            for server, (host, port) in servers.items():
                left_s = max(deadline - time.monotonic(), PROBE_INTERVAL_S)
                if reachable(host, port, min(left_s, probe.ANSWER_TIMEOUT_S)):
                    return server, max(deadline - time.monotonic(), least_s)
            if time.monotonic() + PROBE_INTERVAL_S > deadline:
                raise self._unavailable(None)
            time.sleep(PROBE_INTERVAL_S)

    def check_security(self) -> None:
        """Ask the first server that listens whether it accepts a client with these settings.

        This comes before the first client, because a client whose TLS handshake fails tries again until its timeout
        and leaves sockets behind.

        Raises:
            BrokerUnavailableError: the server refuses such a client; the message names the setting to change.
            ConfigError: this client's certificate, or its key, cannot be loaded.
        """
        deadline = time.monotonic() + SECURITY_CHECK_S
        for server in self.servers.split(","):
            host, port = _address(server)
            if time.monotonic() < deadline and probe.listens(host, port, SECURITY_CHECK_S / 3):
                reason = why_refused(self.settings, host, port)
                if reason is not None:
                    raise BrokerUnavailableError(f"{server}: {reason}")
                return

    def _unavailable(self, error: BaseException | None) -> BrokerUnavailableError:
        cause = f" ({type(error).__name__})" if error else ""
        if error is not None and self.settings.security_protocol.startswith("SASL"):
            # A broker that refuses credentials only closes the connection, as if it had ended.
            return BrokerUnavailableError(
                f"{self.servers} listens but accepts no client{cause}: check the credentials, FEEDMILL_SASL_USERNAME "
                "and FEEDMILL_SASL_PASSWORD"
            )
        return BrokerUnavailableError(
            f"no Kafka answers at {self.servers}{cause}: start it, correct FEEDMILL_BOOTSTRAP_SERVERS, "
            "or unset that to use the embedded broker"
        )


def connect(settings: Settings, *, start: bool = True, on_progress: OnProgress | None = None) -> Connection:
    """Return a connection to `settings.bootstrap_servers`, or else to the embedded broker, which `start` starts.

    Raises:
        BrokerUnavailableError: no Kafka answers within `settings.broker_timeout_s`, or it refuses the credentials.
        ConfigError: the servers are not `host:port,...`.
        BrokerArtifactError, BrokerStartError: the embedded broker cannot be started.

    Example::

        connection = connect(load_settings())
        connection.settings.partitions  # 4
    """
    if settings.bootstrap_servers is not None:
        connection = Connection(settings, ",".join(part.strip() for part in settings.bootstrap_servers.split(",")))
        connection.check_security()
        connection.admin().close()
        return connection
    status = embedded.start(settings, on_progress=on_progress) if start else embedded.status(settings)
    if status.servers is None:
        raise BrokerUnavailableError("the embedded broker is not running: start it with `feedmill broker start`")
    return Connection(settings, status.servers)


def _is_ipv6(host: str) -> bool:
    try:
        ipaddress.IPv6Address(host)
    except ValueError:
        return False
    return True


def _address(server: str) -> tuple[str, int]:
    host, _, port = server.rpartition(":")
    if "/" in server:
        raise ConfigError(
            f"bootstrap server {server!r} is a URL, not host:port: leave out the parts before and after host:port in "
            "FEEDMILL_BOOTSTRAP_SERVERS"
        )
    if ":" in host and not (host.startswith("[") and host.endswith("]")):
        right = f"[{host}]:{port}" if _is_ipv6(host) else f"[{server.strip('[]')}]:9092"
        raise ConfigError(
            f"bootstrap server {server!r} has no port: set FEEDMILL_BOOTSTRAP_SERVERS with the IPv6 address in "
            f"brackets, such as {right}"
        )
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ConfigError(f"bootstrap server {server!r} is not host:port: correct FEEDMILL_BOOTSTRAP_SERVERS")
    return host.strip("[]"), int(port)
