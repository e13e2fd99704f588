"""The journal of a run: what stands on the raw topic of its calls, and where the run stands by it.

Every call is one record, of no row or more, whose header `feedmill-call` says what was asked, what became of each id
and what it took. The first record of a run is its plan. Where a run stands is a fold of these entries, whether they
were just sent or are read back: so a run that was killed goes on as if it had not been.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from kafka import TopicPartition

from broker.clients import Connection
from broker.topics import extents, topic_name
from producers.scenario.llm.meter import Meter, Usage
from producers.scenario.llm.routing import WRITING_ROLES
from producers.scenario.llm.rows import Row
from schema.errors import UsageError
from schema.record import RAW
from schema.scenario import FAMILY

CALL_HEADER = "feedmill-call"

# Roles of entries that are no call: the plan, and rows that are sent on without having been validated.
PLAN, RELEASE = "plan", "release"
# Verdicts that are no fault: the row stands in this record, or waits in `answers` to be validated.
ACCEPTED, WRITTEN = "accepted", "written"
# Why the ids of a call whose prompt was cut off have no answer; it is never the last word on them.
CONTEXT_TRUNCATED = "context_truncated"

_POLL_MS = 500


@dataclass(frozen=True)
class Entry:
    """One record of the journal.

    Attributes:
        call: its number, 1 and up; the plan is 0.
        role, model: who was asked; None where nobody was.
        asked: the ids it was about.
        verdicts: what became of each: ACCEPTED, WRITTEN, or the fault.
        rejected: those whose fault is the last one they may have.
        answered: whether the endpoint answered; what it did not is not metered.
        counts: whether it counts as one of the times that an id may be asked for.
        tries: how often the question was sent.
        attempt: how often these ids were asked for, this time included.
        texts: example ids of the rows that were accepted or written.
        answers: rows that wait to be validated.
        unvalidated: rows of this record that should have a validation score and have none.
        plan: of the plan alone: count, seed, and the cell index of each id.
    """

    call: int
    role: str
    model: str | None = None
    asked: Sequence[str] = ()
    verdicts: Mapping[str, str] = field(default_factory=dict)
    rejected: Sequence[str] = ()
    answered: bool = True
    counts: bool = True
    tries: int = 0
    attempt: int = 0
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cost_usd: float | None = None
    texts: Sequence[int] = ()
    answers: Mapping[str, Row] = field(default_factory=dict)
    unvalidated: int = 0
    plan: Mapping[str, Any] | None = None

    def header(self) -> tuple[str, bytes]:
        """Return the Kafka header that holds this, UTF-8 JSON."""
        return CALL_HEADER, json.dumps(asdict(self), ensure_ascii=False, separators=(",", ":")).encode()


def read(connection: Connection, run: str) -> list[Entry]:
    """Return the journal of `run` as it stands on the raw topic, by call number; empty where there is none.

    Raises:
        UsageError: an entry cannot be read.
        BrokerError: the broker cannot be reached.
    """
    topic = topic_name(connection.settings, FAMILY.name, RAW)
    held = {p: extent for p, extent in extents(connection, topic).items() if extent.end > extent.begin}
    ends = {TopicPartition(topic, partition): extent.end for partition, extent in held.items()}
    if not ends:
        return []
    found: dict[int, Entry] = {}
    consumer = connection.consumer()
    try:
        consumer.assign(list(ends))
        for partition, extent in held.items():
            consumer.seek(TopicPartition(topic, partition), extent.begin)
        while any(consumer.position(partition) < end for partition, end in ends.items()):
            for batch in consumer.poll(timeout_ms=_POLL_MS).values():
                for record in batch:
                    headers = dict(record.headers)
                    if CALL_HEADER in headers and headers.get("feedmill-run") == run.encode():
                        entry = _entry(headers[CALL_HEADER], f"{topic}/{record.partition} offset {record.offset}", run)
                        found[entry.call] = entry
    finally:
        consumer.close()
    return [found[call] for call in sorted(found)]


def _entry(value: bytes, where: str, run: str) -> Entry:
    try:
        return Entry(**json.loads(value))
    except (ValueError, TypeError):
        raise UsageError(f"run {run}: the entry at {where} cannot be read: name another --run") from None


class Standing:
    """Where a run stands: which of its ids are open, waiting, accepted or rejected, and what was spent.

    Attributes:
        cells: {axis: bin} of every id, in the order of the plan.
        asks: how often each id was asked for.
        waiting: rows that were written and wait to be validated.
        accepted: ids whose row is on the topic; `rejected` has the reason of each id given up.
        faults: what was wrong with the last answer of each id that had one which was not taken.
        texts: example ids of accepted and waiting rows.
    """

    def __init__(self, cells: Mapping[str, Mapping[str, str]]) -> None:
        self.cells = dict(cells)
        self.asks: Counter[str] = Counter()
        self.waiting: dict[str, Row] = {}
        self.accepted: set[str] = set()
        self.rejected: dict[str, str] = {}
        self.faults: dict[str, str] = {}
        self.texts: set[int] = set()
        self.meter = Meter()
        self.next_call = 1
        self.retries = 0
        self.asked_again = 0
        self.unanswered = 0
        self.unvalidated = 0

    def apply(self, entry: Entry) -> None:
        """Count one entry of the journal."""
        self.next_call = max(self.next_call, entry.call + 1)
        self.retries += max(0, entry.tries - 1)
        self.unvalidated += entry.unvalidated
        if entry.role in WRITING_ROLES:
            self.asked_again += entry.attempt > 1
            if entry.counts:
                self.asks.update(entry.asked)
        self.texts.update(entry.texts)
        for name, verdict in entry.verdicts.items():
            if verdict == ACCEPTED:
                self.accepted.add(name)
                self.waiting.pop(name, None)
            elif verdict == WRITTEN:
                self.waiting[name] = entry.answers[name]
            else:
                if entry.answered and verdict != CONTEXT_TRUNCATED:
                    self.faults[name] = verdict
                if name in entry.rejected:
                    self.rejected[name] = verdict
        if entry.model is None:
            return
        if entry.answered:
            usage = Usage(entry.prompt_tokens, entry.completion_tokens)
            self.meter.add(entry.role, entry.model, usage, entry.cost_usd)
        else:
            self.unanswered += 1

    @property
    def open(self) -> list[str]:
        """The ids still to be asked for, in the order of the plan."""
        return [name for name in self.cells if not self.is_settled(name)]

    def is_settled(self, name: str) -> bool:
        """Whether id `name` needs no further asking."""
        return name in self.accepted or name in self.rejected or name in self.waiting
