"""The journal of a run on the raw topic, and the run's state as a fold of its entries.

Every call is one record of zero or more rows. Its header `feedmill-call` holds the ids asked for, the verdict on each,
and the tokens. The first record of a run is its plan. The state is the same fold whether entries were just sent or are
read back, so a killed run resumes in the same state.
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

# Roles of entries that are not calls: the plan, and rows that are sent without validation.
PLAN, RELEASE = "plan", "release"
# Verdicts that are not faults: the row is in this record, or waits in `answers` for validation.
ACCEPTED, WRITTEN = "accepted", "written"
# The verdict on the ids of a truncated prompt; they are asked for again.
CONTEXT_TRUNCATED = "context_truncated"

_POLL_MS = 500


@dataclass(frozen=True)
class Entry:
    """One record of the journal.

    Attributes:
        call: the call's number, from 1; the plan is 0.
        role, model: the role and the model asked; `model` is None if the entry is not a call.
        asked: the ids asked for.
        verdicts: {id: ACCEPTED, WRITTEN, or its fault}.
        rejected: ids given up, because they may not be asked for again.
        answered: whether the endpoint answered; an unanswered call is not metered.
        counts: whether the call counts toward the most times that an id may be asked for.
        tries: how often the question was sent.
        attempt: how often these ids were asked for, including this time.
        texts: example ids of accepted and written rows.
        answers: rows that wait for validation.
        unvalidated: number of rows of this record that should have a validation score but have none.
        plan: only in the plan's entry: count, seed, and the cell index of each id.
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
        """Return the Kafka header of this entry, as UTF-8 JSON."""
        return CALL_HEADER, json.dumps(asdict(self), ensure_ascii=False, separators=(",", ":")).encode()


def read(connection: Connection, run: str) -> list[Entry]:
    """Return the journal of `run` from the raw topic, by call number; empty for a new run.

    Raises:
        UsageError: an entry cannot be read.
        BrokerError: the broker cannot be reached.
    """
    topic = topic_name(connection.settings, FAMILY.name, RAW)
    filled = {p: extent for p, extent in extents(connection, topic).items() if extent.end > extent.begin}
    ends = {TopicPartition(topic, partition): extent.end for partition, extent in filled.items()}
    if not ends:
        return []
    entries: dict[int, Entry] = {}
    consumer = connection.consumer()
    try:
        consumer.assign(list(ends))
        for partition, extent in filled.items():
            consumer.seek(TopicPartition(topic, partition), extent.begin)
        while any(consumer.position(partition) < end for partition, end in ends.items()):
            for batch in consumer.poll(timeout_ms=_POLL_MS).values():
                for record in batch:
                    headers = dict(record.headers)
                    if CALL_HEADER in headers and headers.get("feedmill-run") == run.encode():
                        entry = _entry(headers[CALL_HEADER], f"{topic}/{record.partition} offset {record.offset}", run)
                        entries[entry.call] = entry
    finally:
        consumer.close()
    return [entries[call] for call in sorted(entries)]


def _entry(value: bytes, where: str, run: str) -> Entry:
    try:
        return Entry(**json.loads(value))
    except (ValueError, TypeError):
        raise UsageError(f"the journal entry of run {run} at {where} cannot be read: give another --run") from None


class Standing:
    """The state of a run: its open, waiting, accepted and rejected ids, and its calls and costs.

    Attributes:
        cells: {id: {axis: bin}}, in the order of the plan.
        asks: {id: how often it was asked for}.
        waiting: {id: its written row, which waits for validation}.
        accepted: ids whose row is on the topic.
        rejected: {id given up: the reason}.
        faults: {id: the fault of its last answer}, for ids whose last answer was refused.
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
        """The ids that have no row and are not given up, in the order of the plan."""
        return [name for name in self.cells if not self.is_settled(name)]

    def is_settled(self, name: str) -> bool:
        """Whether id `name` is accepted, given up, or waits for validation."""
        return name in self.accepted or name in self.rejected or name in self.waiting
