"""Kafka clients, made in one place: security, isolation, idempotence and size limits are set here and nowhere else.

Takes settings; gives a `Connection`, whose factories make `kafka-python` clients and the options for `aiokafka` ones.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka.errors import KafkaError, SaslAuthenticationFailedError

from broker import embedded
from broker.artifacts import Progress
from schema.errors import BrokerUnavailableError
from schema.settings import Settings

# Room for a record's headers and for the framing of its batch, beside its value.
HEADER_ROOM_BYTES = 64 * 1024
# Records wait this long for others of their partition: throughput for latency that nobody notices.
LINGER_MS = 5
BATCH_BYTES = 128 * 1024

Client = TypeVar("Client")


def raw_limit_bytes(settings: Settings) -> int:
    """Return the largest record batch that `raw` takes: a foreign record and its headers."""
    return settings.raw_record_max_bytes + HEADER_ROOM_BYTES


def rejected_limit_bytes(settings: Settings) -> int:
    """Return the largest record batch that `rejected` takes: anything from raw, with dead-letter headers added."""
    return raw_limit_bytes(settings) + HEADER_ROOM_BYTES


@dataclass(frozen=True)
class Connection:
    """A reachable Kafka and how to talk to it; holds no socket of its own.

    Attributes:
        settings: those it was made from.
        servers: `host:port,...`.
    """

    settings: Settings
    servers: str

    @property
    def max_request_bytes(self) -> int:
        """The largest produce request a client may send; a client's own default is 1 MiB."""
        return rejected_limit_bytes(self.settings) + HEADER_ROOM_BYTES

    def producer(self, **overrides: Any) -> KafkaProducer:
        """Return an idempotent producer; its own compression is off, for micro-batches come compressed.

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
        """Return a consumer of committed records for explicit `assign()`: of no group, committing nothing.

        Raises:
            BrokerUnavailableError: nothing answers at the servers within `settings.broker_timeout_s`.
        """
        return self._client(
            KafkaConsumer,
            {
                "group_id": None,
                "enable_auto_commit": False,
                "isolation_level": "read_committed",
                # A position outside the log is an error to be told, never a silent jump.
                "auto_offset_reset": "none",
                "max_partition_fetch_bytes": rejected_limit_bytes(self.settings),
                "allow_auto_create_topics": False,
                **overrides,
            },
        )

    def admin(self, **overrides: Any) -> KafkaAdminClient:
        """Return an admin client; `broker.topics` is its one user.

        Raises:
            BrokerUnavailableError: nothing answers at the servers within `settings.broker_timeout_s`.
        """
        return self._client(KafkaAdminClient, overrides)

    def aiokafka_options(self) -> dict[str, Any]:
        """Return the options that every aiokafka client takes: servers, client id, security."""
        settings = self.settings
        options: dict[str, Any] = {
            "bootstrap_servers": self.servers,
            "client_id": settings.client_id,
            "security_protocol": settings.security_protocol,
        }
        if settings.security_protocol.startswith("SASL"):
            options.update(_sasl(settings))
        if settings.security_protocol.endswith("SSL"):
            options["ssl_context"] = _ssl_context(settings)
        return options

    def _client(self, factory: Callable[..., Client], own: dict[str, Any]) -> Client:
        settings = self.settings
        options: dict[str, Any] = {
            "bootstrap_servers": self.servers.split(","),
            "client_id": settings.client_id,
            "bootstrap_timeout_ms": int(settings.broker_timeout_s * 1000),
            "security_protocol": settings.security_protocol,
            **own,
        }
        if settings.security_protocol.startswith("SASL"):
            options.update(_sasl(settings))
        if settings.security_protocol.endswith("SSL"):
            options["ssl_context"] = _ssl_context(settings)
        try:
            return factory(**options)
        except SaslAuthenticationFailedError as error:
            raise BrokerUnavailableError(
                f"Kafka at {self.servers} refused the credentials: check FEEDMILL_SASL_USERNAME and _PASSWORD"
            ) from error
        except (KafkaError, OSError) as error:
            raise BrokerUnavailableError(
                f"no Kafka answers at {self.servers} ({type(error).__name__}): start it, correct "
                "FEEDMILL_BOOTSTRAP_SERVERS, or unset that to use the embedded broker"
            ) from error


def connect(settings: Settings, *, start: bool = True, on_progress: Progress | None = None) -> Connection:
    """Return a connection to the configured servers, or else to the embedded broker, started if `start`.

    Raises:
        BrokerUnavailableError: nothing answers within `settings.broker_timeout_s`.
        BrokerArtifactError, BrokerStartError: the embedded broker cannot be started.
    """
    if settings.bootstrap_servers is not None:
        connection = Connection(settings, settings.bootstrap_servers)
        connection.admin().close()
        return connection
    status = embedded.start(settings, on_progress=on_progress) if start else embedded.status(settings)
    if status.servers is None:
        raise BrokerUnavailableError("the embedded broker is not running: start it with `feedmill broker start`")
    return Connection(settings, status.servers)


def _sasl(settings: Settings) -> dict[str, Any]:
    assert settings.sasl_password is not None  # noqa: S101  settings are validated whole
    return {
        "sasl_mechanism": settings.sasl_mechanism,
        "sasl_plain_username": settings.sasl_username,
        "sasl_plain_password": settings.sasl_password.get_secret_value(),
    }


def _ssl_context(settings: Settings) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=settings.ssl_cafile)
    if settings.ssl_certfile is not None:
        context.load_cert_chain(settings.ssl_certfile, settings.ssl_keyfile)
    return context
