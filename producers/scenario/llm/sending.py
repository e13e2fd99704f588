"""Send a run's journal: one record for each call, acknowledged before the call is counted."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType

from broker.clients import Connection
from producers.scenario.llm.journal import Entry
from producers.scenario.llm.rows import Row, to_frame
from producers.sink import RecordSender, raw_layout
from schema.family import partition_of
from schema.record import RAW, Envelope, encode
from schema.scenario import FAMILY


class CallSender:
    """Sends the journal entries of a run to `scenario.raw`; a context, like `RecordSender`."""

    def __init__(self, connection: Connection, run: str) -> None:
        self._run = run
        self._partitions = raw_layout(connection, FAMILY).partitions
        self._sender = RecordSender(connection, FAMILY, run)

    def __enter__(self) -> CallSender:
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
