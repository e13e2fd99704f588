"""Keep Kafka clients open between questions, for code that asks the same broker again and again.

Every new client makes about five connections. A loop that asks five times a second should make them only once. Use
`with kept_clients(connection) as connection:`, or a function under `@keeping_clients`. Inside, all users of the
connection (`broker.topics`, a feed's reader) share a few open clients, which are closed at the end.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Concatenate, ParamSpec, TypeVar

from kafka import KafkaAdminClient, KafkaConsumer
from kafka.errors import KafkaError

from broker.clients import Connection

Asked = ParamSpec("Asked")
Answer = TypeVar("Answer")


class _Idle:
    """Open clients that are not in use, by a key of their options; safe for several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._clients: dict[Any, list[Any]] = {}
        self._closed = False

    def take(self, key: Any) -> Any | None:
        """Remove and return a client that is still connected; None if there is no such client."""
        while True:
            with self._lock:
                waiting = self._clients.get(key)
                client = waiting.pop() if waiting else None
            if client is None or _is_connected(client):
                return client
            # A client that lost its broker can take half a minute to try again; a new client tries at once.
            client.close()

    def give_back(self, key: Any, client: Any) -> None:
        with self._lock:
            if not self._closed:
                self._clients.setdefault(key, []).append(client)
                return
        client.close()

    def close(self) -> None:
        with self._lock:
            self._closed = True
            clients = [client for waiting in self._clients.values() for client in waiting]
            self._clients.clear()
        for client in clients:
            client.close()


@dataclass(frozen=True)
class _KeptConnection(Connection):
    """A connection whose lent clients stay open until `kept_clients` ends."""

    idle: _Idle = field(default_factory=_Idle, compare=False, repr=False)

    def __reduce__(self) -> tuple[type[Connection], tuple[Any, ...]]:
        # Open clients cannot go to another process, so it gets a plain connection.
        return Connection, (self.settings, self.servers)

    @contextmanager
    def lend_admin(self) -> Iterator[KafkaAdminClient]:
        with self._lent("admin", self.admin) as admin:
            yield admin

    @contextmanager
    def lend_consumer(self, **overrides: Any) -> Iterator[KafkaConsumer]:
        key = tuple(sorted(overrides.items()))
        with self._lent(key, functools.partial(self.consumer, **overrides)) as consumer:
            yield consumer
            consumer.unsubscribe()
            # Records that were fetched and not returned would block these partitions for the next user: the client
            # neither returns them, because the position differs, nor fetches again. `_fetcher` is private, so the
            # client's version is pinned.
            consumer._fetcher.close()

    @contextmanager
    def _lent(self, key: Any, make: Callable[[], Any]) -> Iterator[Any]:
        client = self.idle.take(key) or make()
        try:
            yield client
        except KafkaError:
            # The client's state is unknown.
            client.close()
            raise
        except BaseException:
            if isinstance(client, KafkaConsumer):
                client.close()
            else:
                self.idle.give_back(key, client)
            raise
        self.idle.give_back(key, client)


@contextmanager
def kept_clients(connection: Connection) -> Iterator[Connection]:
    """Yield a connection like `connection` whose lent clients stay open until the block ends.

    Example:
        >>> with kept_clients(connection) as kept:  # doctest: +SKIP
        ...     while not extents(kept, topic)[0].end:
        ...         time.sleep(0.2)
    """
    if isinstance(connection, _KeptConnection):
        yield connection
        return
    kept = _KeptConnection(connection.settings, connection.servers)
    try:
        yield kept
    finally:
        kept.idle.close()


def keeping_clients(
    function: Callable[Concatenate[Connection, Asked], Answer],
) -> Callable[Concatenate[Connection, Asked], Answer]:
    """Return `function` with `kept_clients` around each call; its first argument is the connection."""

    @functools.wraps(function)
    def keeping(connection: Connection, /, *args: Asked.args, **options: Asked.kwargs) -> Answer:
        with kept_clients(connection) as kept:
            return function(kept, *args, **options)

    return keeping


def _is_connected(client: Any) -> bool:
    """Return whether a kafka-python client has an open connection; reads private parts of the pinned version."""
    return any(connection.connected for connection in list(client._client._manager._conns.values()))
