"""The journal of a run, on the raw topic or in a file: writes one entry for each call, and reads the entries back.

On the topic, an entry is a record that holds the call's rows, if any. Its header `feedmill-call` holds the ids asked
for, the verdict on each, and the tokens. In a file, an entry is a line with both. The first entry of a run is its plan.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from filelock import FileLock, Timeout

from broker.clients import Connection
from broker.committed import committed_records
from broker.topics import topic_name
from producers.scenario.llm.answers import Row, to_frame
from producers.sink import RecordSender, raw_layout, whole_file
from schema.errors import UsageError
from schema.family import partition_of
from schema.json_form import json_lines
from schema.record import RAW, Envelope, encode
from schema.scenario import FAMILY

CALL_HEADER = "feedmill-call"
# Added to the name of a file of scenarios, for the journal beside it.
JOURNAL_ENDING = ".journal"

# Roles of entries that are not calls: the plan, and rows that are sent without validation.
PLAN, RELEASE = "plan", "release"
# Verdicts that are not faults: the row is in this record, or waits in `answers` for validation.
ACCEPTED, WRITTEN = "accepted", "written"
# The verdict on the ids of a truncated prompt; they are asked for again.
CONTEXT_TRUNCATED = "context_truncated"


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


class JournalWriter:
    """Sends the journal entries of a run to `scenario.raw`; a context, like `RecordSender`."""

    def __init__(self, connection: Connection, run: str) -> None:
        self._run = run
        self._partitions = raw_layout(connection, FAMILY).partitions
        self._sender = RecordSender(connection, FAMILY, run)

    def __enter__(self) -> JournalWriter:
        self._sender.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._sender.__exit__(kind, error, traceback)

    def send(self, entry: Entry, rows: Sequence[Row]) -> None:
        """Send an entry with its rows as one record, and wait until it is acknowledged.

        All rows go to the first row's partition, because a single record is written completely or not at all. The
        refine stage moves the other rows to their own partitions.

        Raises:
            DeliveryError: the broker did not accept the record.
        """
        frame = to_frame(rows)
        envelope = Envelope(FAMILY.name, RAW, FAMILY.version, self._run, entry.call, 0, frame.height)
        home = frame.select(partition_of(FAMILY, self._partitions).fill_null(0)).to_series()
        partition = int(home[0]) if frame.height else 0
        self._sender.send(encode(frame), [*envelope.headers(), entry.header()], partition, frame.height)
        self._sender.flush()


class JournalFile:
    """Keeps the journal of a run in a file beside a file of scenarios; a context, like `JournalWriter`.

    An entry and its rows are one line, written to disk before `send` returns. Leaving the context writes the accepted
    scenarios of the whole journal to `path` as JSON lines, also after an error.

    Attributes:
        entries: the entries of the file's earlier runs under this name, by call number.
    """

    def __init__(self, path: Path, run: str) -> None:
        self.entries: list[Entry] = []
        self._path = path
        self._journal = path.with_name(path.name + JOURNAL_ENDING)
        self._run = run
        self._rows: list[Row] = []
        self._stream: BinaryIO | None = None
        self._lock = FileLock(f"{self._journal}.lock", timeout=0)

    def __enter__(self) -> JournalFile:
        """Lock the journal and read its entries; a line that a killed process left incomplete is removed.

        Raises:
            UsageError: the journal is of another run, is used by another process, or cannot be read or written.
        """
        try:
            stream = self._journal.open("a+b")
        except OSError as error:
            raise UsageError(
                f"{self._journal} cannot be written ({error.strerror}): name an --out in a folder that can"
            ) from None
        try:
            self._read(stream)
        except BaseException:
            stream.close()
            self._lock.release()
            raise
        self._stream = stream
        return self

    def _read(self, stream: BinaryIO) -> None:
        try:
            self._lock.acquire()
        except Timeout:
            raise UsageError(f"{self._journal} is used by another process: wait until it ends") from None
        stream.seek(0)
        end = 0
        for number, line in enumerate(stream, 1):
            if not line.endswith(b"\n"):
                break
            end += len(line)
            try:
                document = json.loads(line)
                run, rows = document["run"], document["rows"]
                entry = Entry(**document["entry"])
            except (ValueError, TypeError, KeyError):
                raise UsageError(
                    f"{self._journal} line {number} is no entry of a journal: remove the file, or give another --out"
                ) from None
            if run != self._run:
                plan = entry.plan or {}
                raise UsageError(
                    f"{self._journal} is the journal of run {run}: resume it with --run {run} "
                    f"--seed {plan.get('seed')} --count {plan.get('count')}, or give another --out"
                )
            self.entries.append(entry)
            self._keep(entry, rows)
        stream.truncate(end)

    def _keep(self, entry: Entry, rows: Sequence[Row]) -> None:
        self._rows += [row for row in rows if entry.verdicts.get(row["scenario_id"]) == ACCEPTED]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._stream is not None:
            try:
                with self._stream, whole_file(self._path) as out:
                    out.write(json_lines(to_frame(self._rows), FAMILY))
            finally:
                self._lock.release()

    def send(self, entry: Entry, rows: Sequence[Row]) -> None:
        """Write an entry with its rows as one line, and wait until it is on disk.

        Raises:
            UsageError: the journal cannot be written.
        """
        document = {"run": self._run, "entry": asdict(entry), "rows": rows}
        line = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
        stream = self._stream
        if stream is None:
            raise UsageError(f"{self._journal} is not open: use it as a context")
        try:
            stream.write(line)
            stream.flush()
            os.fsync(stream.fileno())
        except OSError as error:
            raise UsageError(
                f"{self._journal} cannot be written ({error.strerror}): make room, then resume run {self._run}"
            ) from None
        self._keep(entry, rows)


def read(connection: Connection, run: str) -> list[Entry]:
    """Return the journal of `run` from the raw topic, by call number; empty for a new run.

    Raises:
        UsageError: an entry cannot be read.
        BrokerError: the broker cannot be reached.
    """
    topic = topic_name(connection.settings, FAMILY.name, RAW)
    entries: dict[int, Entry] = {}
    for record in committed_records(connection, topic):
        headers = dict(record.headers)
        if CALL_HEADER in headers and headers.get("feedmill-run") == run.encode():
            entry = _entry(headers[CALL_HEADER], f"{topic}/{record.partition} offset {record.offset}", run)
            entries[entry.call] = entry
    return [entries[call] for call in sorted(entries)]


def _entry(value: bytes, where: str, run: str) -> Entry:
    try:
        return Entry(**json.loads(value))
    except (ValueError, TypeError):
        raise UsageError(f"the journal entry of run {run} at {where} cannot be read: give another --run") from None
