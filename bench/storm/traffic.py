"""A foreign producer in a thread: JSON rows in random partitions, and one poison record a second."""

from __future__ import annotations

import random
import threading
from collections import Counter
from typing import Any

from kafka import KafkaProducer

from bench.storm.poison import Poison, poisons
from broker.clients import Connection
from broker.topics import topic_name
from producers.reduction.run import ReductionRun
from producers.run import generate
from schema.record import JSON, RAW
from schema.reduction import FAMILY

_POISON_INTERVAL_S = 1.0
_LINES_INTERVAL_S = 0.25
_LINES = 4000
_MOST_LINES_A_RECORD = 20
# The thread waits at most this long for a broker that is down.
_SEND_LIMIT_S = 5.0
_CLOSE_LIMIT_S = 30.0


def good_lines(seed: int) -> list[bytes]:
    """Return generated reductions as lines of JSON; their own seed makes most of them new to clean."""
    frames = generate(ReductionRun(count=_LINES, seed=seed))
    return [line for frame in frames for line in FAMILY.nest(frame).write_ndjson().encode().splitlines()][:_LINES]


class ForeignTraffic:
    """Sends records until it is stopped; a record that the broker refuses is not sent again.

    Attributes:
        lines: rows sent as good JSON.
        poisoned: {kind: records} of poison that the broker took.
        refused: {kind: records} of poison that could not be sent.
    """

    def __init__(self, connection: Connection, partitions: int, seed: int) -> None:
        self._connection = connection
        self._topic = topic_name(connection.settings, FAMILY.name, RAW)
        self._partitions = partitions
        self._rng = random.Random(seed)  # noqa: S311  a plan that can be repeated is the point
        self._pool = good_lines(seed)
        self._producers: dict[str | None, KafkaProducer] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="storm-traffic", daemon=True)
        self.lines = 0
        self.poisoned: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()

    def start(self) -> None:
        """Start sending."""
        self._thread.start()

    def stop(self) -> None:
        """Stop sending."""
        self._stop.set()
        self._thread.join()
        self._close()

    def _run(self) -> None:
        waiting: list[Poison] = []
        until_poison_s = 0.0
        while not self._stop.wait(_LINES_INTERVAL_S):
            chosen = self._rng.choices(self._pool, k=self._rng.randint(1, _MOST_LINES_A_RECORD))
            if self._sent(Poison("json", b"\n".join(chosen), [("content-type", JSON.encode())])):
                self.lines += len(chosen)
            until_poison_s -= _LINES_INTERVAL_S
            if until_poison_s <= 0:
                waiting = waiting or poisons(self._rng, self._pool)
                poison = waiting.pop()
                (self.poisoned if self._sent(poison) else self.refused)[poison.kind] += 1
                until_poison_s = _POISON_INTERVAL_S

    def _sent(self, record: Poison) -> bool:
        try:
            producer = self._producer(record.codec)
            partition = self._rng.randrange(self._partitions)
            # A record without a value needs a key.
            future = producer.send(
                self._topic,
                record.value,
                key=b"storm" if record.value is None else None,
                headers=record.headers,
                partition=partition,
                timestamp_ms=record.timestamp_ms,
            )
            future.get(timeout=_SEND_LIMIT_S)
        except Exception:
            # The broker is down or refuses the record, or the client refuses to send it.
            return False
        return True

    def _producer(self, codec: str | None) -> Any:
        if codec not in self._producers:
            limit_ms = int(_SEND_LIMIT_S * 1000)
            # Not idempotent, like simple foreign producers: it survives any outage, and may send a record twice.
            self._producers[codec] = self._connection.producer(
                compression_type=codec,
                enable_idempotence=False,
                acks=1,
                max_block_ms=limit_ms,
                request_timeout_ms=limit_ms // 2,
                delivery_timeout_ms=limit_ms,
            )
        return self._producers[codec]

    def _close(self) -> None:
        for producer in self._producers.values():
            producer.close(timeout=_CLOSE_LIMIT_S)
        self._producers = {}
