"""The refine worker: a Faust app with one agent per family.

Faust brings the group membership, the assignment and the stream; what happens to a group of events, and where reading
starts, is the refinery's. The worker ends with an error rather than hang: on a failed transaction, on a crash inside
Faust, and when there is lag but no progress.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import faust
from faust.types import TP, EventT

from broker.clients import Connection
from broker.topics import ensure_topics, has_records, topic_name
from schema.errors import RefineError
from schema.family import Family
from schema.record import RAW
from schema.settings import Settings
from streams.augmentation import check_augment
from streams.faust_credentials import faust_credentials
from streams.faust_transport import PositionedTransport, broker_url
from streams.refine.intake import RawRecord
from streams.refine.partition import Progress
from streams.refine.refinery import Refinery

log = logging.getLogger(__name__)

_STOP_WITHIN_S = 20.0
# Fetched records waiting in memory for their turn, per agent: a few groups' worth.
_BUFFERED_RECORDS = 128


@dataclass
class WorkerTotals:
    """What this worker has committed since it started."""

    records: int = 0
    rows_in: int = 0
    rows_clean: int = 0
    rows_rejected: int = 0
    rows_rerouted: int = 0

    def add(self, progress: Progress) -> None:
        """Add a committed group."""
        self.records += progress.records
        self.rows_in += progress.rows_in
        self.rows_clean += progress.rows_clean
        self.rows_rejected += progress.rows_rejected
        self.rows_rerouted += progress.rows_rerouted


def run_worker(connection: Connection, families: Iterable[Family], on_progress: Callable[[WorkerTotals], None]) -> None:
    """Refine `families` until SIGINT or SIGTERM; call it last in a process of its own.

    Faust's threads and tasks may outlive a failure: the caller ends the process by `os._exit` once it has reported.

    Raises:
        ConfigError: augmentation is asked for of what has none.
        RefineError: a transaction failed, Faust crashed, or nothing moved while there was lag.
    """
    check_augment(connection.settings)
    # Not asyncio.run: on an error it would wait for tasks of Faust's that do not end.
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    loop.run_until_complete(_run(connection, families, on_progress))


async def _run(connection: Connection, families: Iterable[Family], on_progress: Callable[[WorkerTotals], None]) -> None:
    await RefineWorker(connection, families, on_progress).run()


class RefineWorker:
    """A refine worker over some families; `run` returns when told to stop and raises when it cannot go on."""

    def __init__(
        self, connection: Connection, families: Iterable[Family], on_progress: Callable[[WorkerTotals], None]
    ) -> None:
        self.totals = WorkerTotals()
        self._connection = connection
        self._settings: Settings = connection.settings
        self._on_progress = on_progress
        self._stop = asyncio.Event()
        self._failure: BaseException | None = None
        self._is_member = False
        self._refineries = {
            topic_name(self._settings, family.name, RAW): Refinery(connection, family, self._progressed, self._fail)
            for family in families
        }

    def _progressed(self, progress: Progress) -> None:
        self.totals.add(progress)
        self._on_progress(self.totals)

    async def run(self) -> None:
        """Refine until SIGINT or SIGTERM.

        Raises:
            RefineError: a transaction failed, Faust crashed, or nothing moved while there was lag.
        """
        families = [refinery.family.name for refinery in self._refineries.values()]
        await asyncio.to_thread(ensure_topics, self._connection, families)
        loop = asyncio.get_running_loop()
        for name in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(name, self._stop.set)
        app = self._app()
        watchdog = asyncio.create_task(self._watch(app))
        starting = asyncio.create_task(app.start())
        stopping = asyncio.create_task(self._stop.wait())
        done, _ = await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if starting in done and (error := starting.exception()) is not None:
            self._fail(error)
        await stopping
        watchdog.cancel()
        if self._failure is not None:
            # No orderly end: an agent that failed must not acknowledge, and what is uncommitted is aborted by fencing.
            raise RefineError(
                f"refining stopped ({type(self._failure).__name__}: {self._failure}); nothing uncommitted was "
                "acknowledged: check the broker (feedmill doctor) and start the worker again"
            ) from self._failure
        await self._close(app)

    async def _close(self, app: faust.App) -> None:
        """Finish the groups under way, stop their producers, leave the group; never longer than the limit."""
        closing = [asyncio.create_task(refinery.close()) for refinery in self._refineries.values()]
        await asyncio.wait(closing, timeout=_STOP_WITHIN_S)
        # Faust swallows cancellation while it stops, so it is waited for and not cancelled.
        await asyncio.wait({asyncio.create_task(app.stop())}, timeout=_STOP_WITHIN_S)

    def _app(self) -> faust.App:
        # Faust makes its folder, though it keeps nothing there, but not the folders above.
        self._settings.data_dir.mkdir(parents=True, exist_ok=True)
        app = faust.App(
            f"{self._settings.namespace}-refine",
            broker=broker_url(self._connection.servers),
            broker_credentials=faust_credentials(self._settings),
            broker_client_id=self._settings.client_id,
            store="memory://",
            datadir=self._settings.data_dir / "faust",
            web_enabled=False,
            topic_allow_declare=False,
            topic_disable_leader=True,
            stream_buffer_maxsize=_BUFFERED_RECORDS,
            broker_session_timeout=self._settings.session_timeout_s,
            broker_heartbeat_interval=self._settings.session_timeout_s / 3,
        )
        app.transport = PositionedTransport(app, self._connection, self._assigned)
        app.on_partitions_revoked.connect(self._revoked, weak=False)
        app.on_partitions_assigned.connect(self._joined, weak=False)
        for topic, refinery in self._refineries.items():
            self._add_agent(app, topic, refinery)
        app.finalize()
        return app

    def _add_agent(self, app: faust.App, topic: str, refinery: Refinery) -> None:
        settings = self._settings

        async def refine(stream: faust.Stream[bytes]) -> None:
            groups = stream.take_events(settings.refine_group_records, within=settings.refine_group_wait_s)
            async for events in groups:
                try:
                    await refinery.refine(_raw_records(events))
                except Exception as error:
                    # An exception that leaves an agent acknowledges its event: the worker ends instead.
                    self._fail(error)
                    await asyncio.Event().wait()

        source = app.topic(topic, key_serializer="raw", value_serializer="raw", acks=True)
        app.agent(source, name=f"refine-{refinery.family.name}", concurrency=1)(refine)

    async def _assigned(self, assigned: frozenset[TP]) -> Mapping[TP, int]:
        positions: dict[TP, int] = {}
        for topic, refinery in self._refineries.items():
            mine = frozenset(partition.partition for partition in assigned if partition.topic == topic)
            try:
                found = await refinery.assign(mine)
            except Exception as error:
                self._fail(error)
                raise
            positions.update({TP(topic, partition): offset for partition, offset in found.items()})
        return positions

    async def _joined(self, app: faust.App, assigned: set[TP], **kwargs: object) -> None:
        self._is_member = True

    async def _revoked(self, app: faust.App, revoked: set[TP], **kwargs: object) -> None:
        for refinery in self._refineries.values():
            await refinery.settle()

    def _fail(self, error: BaseException) -> None:
        if self._failure is None:
            self._failure = error
        self._stop.set()

    async def _watch(self, app: faust.App) -> None:
        """End the worker when Faust crashed or found no group, or a partition it owns has lag and nothing moves."""
        patience_s = self._settings.refine_stall_s
        began = time.monotonic()
        while True:
            await asyncio.sleep(min(1.0, patience_s / 4))
            if app.crash_reason is not None:
                self._fail(app.crash_reason)
                return
            if not self._is_member and time.monotonic() - began > patience_s:
                self._fail(RefineError(f"the workers' group could not be joined in {patience_s:.0f} s"))
                return
            for topic, refinery in self._refineries.items():
                if time.monotonic() - refinery.moved_at < patience_s or not refinery.positions:
                    continue
                due = await asyncio.to_thread(has_records, self._connection, topic, refinery.positions)
                if any(due.values()) and time.monotonic() - refinery.moved_at >= patience_s:
                    self._fail(RefineError(f"{topic}: no progress for {patience_s:.0f} s while records are waiting"))
                    return
                refinery.moved_at = time.monotonic()


def _raw_records(events: Sequence[EventT]) -> list[RawRecord]:
    return [
        RawRecord(
            topic=event.message.topic,
            partition=event.message.partition,
            offset=event.message.offset,
            time_ms=int(event.message.timestamp * 1000),
            value=event.message.value,
            headers=list(event.message.headers or ()),
            key=event.message.key,
        )
        for event in events
    ]
