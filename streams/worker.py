"""The refine worker: a Faust app with one agent per family.

Faust provides the group membership, the assignment and the stream. `WorkerPartitions` decides where reading starts and
refines each group of events. The worker does not hang. It ends with an error when a partition dies, when Faust crashes,
and when its watchdog finds a fault.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import faust
from faust.types import TP, EventT

from broker.clients import Connection
from broker.kept_clients import keeping_clients
from broker.topics import ensure_topics, topic_name
from schema.errors import ConfigError, RefineError
from schema.family import Family
from schema.record import RAW
from schema.settings import Settings
from streams.augmentation import check_augment
from streams.faust_credentials import faust_credentials
from streams.faust_transport import PositionedTransport, broker_url
from streams.positions import worker_group
from streams.refine.decode import RawRecord
from streams.refine.group_judge import GroupProgress
from streams.refine.partition import PartitionRefiner
from streams.refine.worker_partitions import WorkerPartitions
from streams.watchdog import Watchdog

log = logging.getLogger(__name__)

_STOP_WITHIN_S = 20.0
# Fetched records that may wait in memory, per agent: a few groups.
_BUFFERED_RECORDS = 128
# How long Faust waits until partitions are open. It is long because a position that Kafka has forgotten is read from
# the ledger. After a timeout here, Faust delivers no more records.
_OPEN_WITHIN_S = 600.0


@dataclass
class WorkerTotals:
    """Records and rows that this worker has committed since it started."""

    records: int = 0
    rows_in: int = 0
    rows_clean: int = 0
    rows_rejected: int = 0
    rows_rerouted: int = 0

    def add(self, progress: GroupProgress) -> None:
        """Add a committed group."""
        self.records += progress.records
        self.rows_in += progress.rows_in
        self.rows_clean += progress.rows_clean
        self.rows_rejected += progress.rows_rejected
        self.rows_rerouted += progress.rows_rerouted


@keeping_clients
def run_worker(connection: Connection, families: Iterable[Family], on_progress: Callable[[WorkerTotals], None]) -> None:
    """Refine `families` until SIGINT or SIGTERM. It needs a process of its own.

    Faust's threads and tasks may keep running after a failure: report the error, then end the process by `os._exit`.

    Raises:
        ConfigError: `augment` names a family that has no augmentation, or the data folder cannot be written.
        RefineError: a partition died, Faust crashed, or no position moved while records were waiting.
    """
    check_augment(connection.settings)
    # Not asyncio.run: after an error it would wait for Faust's tasks, which do not end.
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    # A fenced producer leaves failed futures that nobody awaits. Its partition reports the failure.
    loop.set_exception_handler(
        lambda _, context: log.info("%s", context.get("message"), exc_info=context.get("exception"))
    )
    loop.run_until_complete(_run(connection, families, on_progress))


async def _run(connection: Connection, families: Iterable[Family], on_progress: Callable[[WorkerTotals], None]) -> None:
    await RefineWorker(connection, families, on_progress).run()


class RefineWorker:
    """A refine worker for some families; `run` returns after a stop signal and raises if refining fails."""

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
        self._openings: set[asyncio.Task[Mapping[TP, int]]] = set()
        self._owned = {
            topic_name(self._settings, family.name, RAW): WorkerPartitions(
                connection, family, self._progressed, self._died
            )
            for family in families
        }

    def _progressed(self, progress: GroupProgress) -> None:
        self.totals.add(progress)
        self._on_progress(self.totals)

    async def run(self) -> None:
        """Refine until SIGINT or SIGTERM.

        Raises:
            RefineError: a partition died, also while stopping; Faust crashed; or no position moved while records were
                waiting.
        """
        families = [owned.family.name for owned in self._owned.values()]
        await asyncio.to_thread(ensure_topics, self._connection, families)
        loop = asyncio.get_running_loop()
        for name in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(name, self._stop.set)
        app = self._app()
        watchdog = asyncio.create_task(Watchdog(app, self._connection, self._owned, lambda: self._is_member).watch())
        watchdog.add_done_callback(self._watchdog_ended)
        starting = asyncio.create_task(app.start())
        stopping = asyncio.create_task(self._stop.wait())
        done, _ = await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if starting in done and (error := starting.exception()) is not None:
            self._fail(error)
        await stopping
        watchdog.cancel()
        if self._failure is None:
            await self._close(app)
        # Faust is not stopped after a failure, because a failed agent must not acknowledge its events. The next owner
        # aborts open transactions by fencing. A commit that fails while stopping is a failure, too.
        if self._failure is not None:
            raise RefineError(
                f"refining stopped ({_line_of(self._failure)}); nothing uncommitted was acknowledged: check the broker "
                "(`feedmill doctor`) and start the worker again"
            ) from self._failure

    def _watchdog_ended(self, watchdog: asyncio.Task[BaseException]) -> None:
        if not watchdog.cancelled():
            # An exception in the watchdog also ends the worker: nothing would watch it any more.
            self._fail(watchdog.exception() or watchdog.result())

    async def _close(self, app: faust.App) -> None:
        """Finish the groups under way, stop the producers and leave the consumer group, each within a time limit."""
        closing = {asyncio.create_task(owned.close()) for owned in self._owned.values()}
        done, pending = await asyncio.wait(closing, timeout=_STOP_WITHIN_S)
        for error in (task.exception() for task in done):
            if error is not None:
                self._fail(error)
        if pending:
            self._fail(RefineError(f"commits under way did not end within {_STOP_WITHIN_S:.0f} s"))
        # Faust ignores cancellation while it stops, so `app.stop` is not cancelled after the limit.
        await asyncio.wait({asyncio.create_task(app.stop())}, timeout=_STOP_WITHIN_S)

    def _app(self) -> faust.App:
        folder = self._settings.data_dir / "faust"
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"the folder {folder} cannot be made ({error.strerror}): set FEEDMILL_DATA_DIR to a folder that can be "
                "written"
            ) from error
        app = faust.App(
            worker_group(self._settings),
            broker=broker_url(self._connection.servers),
            broker_credentials=faust_credentials(self._settings),
            broker_client_id=self._settings.client_id,
            store="memory://",
            datadir=folder,
            web_enabled=False,
            topic_allow_declare=False,
            topic_disable_leader=True,
            stream_buffer_maxsize=_BUFFERED_RECORDS,
            broker_request_timeout=_OPEN_WITHIN_S,
            broker_session_timeout=self._settings.session_timeout_s,
            broker_heartbeat_interval=self._settings.session_timeout_s / 3,
        )
        app.transport = PositionedTransport(app, self._connection, self._assigned, self._reopen)
        app.on_partitions_revoked.connect(self._revoked, weak=False)
        app.on_partitions_assigned.connect(self._joined, weak=False)
        for topic, owned in self._owned.items():
            self._add_agent(app, topic, owned)
        app.finalize()
        return app

    def _add_agent(self, app: faust.App, topic: str, owned: WorkerPartitions) -> None:
        settings = self._settings

        async def refine(stream: faust.Stream[bytes]) -> None:
            groups = stream.take_events(settings.refine_group_records, within=settings.refine_group_wait_s)
            async for events in groups:
                try:
                    out_of_turn = await owned.refine(_raw_records(events))
                    for partition, offset in out_of_turn.items():
                        await app.consumer.seek(TP(topic, partition), offset)
                except Exception as error:
                    # If an exception leaves an agent, Faust acknowledges the event. So the worker ends instead.
                    self._fail(error)
                    await asyncio.Event().wait()

        source = app.topic(topic, key_serializer="raw", value_serializer="raw", acks=True)
        app.agent(source, name=f"refine-{owned.family.name}", concurrency=1)(refine)

    async def _assigned(self, assigned: frozenset[TP], generation: int) -> Mapping[TP, int]:
        # Faust cancels this call after a timeout, and when the consumer group changes again. A partition that is
        # cancelled while it opens is dead, so the task is shielded. The next assignment waits at the locks of
        # `WorkerPartitions`.
        opening = asyncio.create_task(self._opened(assigned, generation))
        self._openings.add(opening)
        opening.add_done_callback(self._openings.discard)
        return await asyncio.shield(opening)

    async def _opened(self, assigned: frozenset[TP], generation: int) -> Mapping[TP, int]:
        positions: dict[TP, int] = {}
        for topic, owned in self._owned.items():
            if self._stop.is_set():
                # A partition opened while the worker stops would fence its next owner.
                break
            mine = frozenset(partition.partition for partition in assigned if partition.topic == topic)
            try:
                offsets = await owned.assign(mine, generation)
            except Exception as error:
                self._fail(error)
                raise
            positions.update({TP(topic, partition): offset for partition, offset in offsets.items()})
        return positions

    async def _reopen(self, tp: TP) -> int | None:
        try:
            return await self._owned[tp.topic].reopen(tp.partition)
        except Exception as error:
            self._fail(error)
            return None

    async def _joined(self, app: faust.App, assigned: set[TP], **kwargs: object) -> None:
        self._is_member = True

    async def _revoked(self, app: faust.App, revoked: set[TP], **kwargs: object) -> None:
        for owned in self._owned.values():
            await owned.settle()

    def _died(self, refiner: PartitionRefiner) -> None:
        if refiner.is_fenced:
            # Usually another worker owns the partition, or a rebalance follows. Otherwise the watchdog finds the
            # partition assigned but dead.
            log.warning("%s: fenced by its next owner", refiner.name)
        elif refiner.error is not None:
            log.error("%s died: %s", refiner.name, _line_of(refiner.error))
            self._fail(refiner.error)

    def _fail(self, error: BaseException) -> None:
        if self._failure is None:
            self._failure = error
        self._stop.set()


def _line_of(error: BaseException) -> str:
    if isinstance(error, MemoryError):
        return "out of memory: give the worker more, or set FEEDMILL_REFINE_GROUP_RECORDS lower"
    return str(error) if isinstance(error, RefineError) else f"{type(error).__name__}: {error}"


def _raw_records(events: Sequence[EventT]) -> list[RawRecord]:
    return [
        RawRecord(
            topic=event.message.topic,
            partition=event.message.partition,
            offset=event.message.offset,
            time_ms=event.message.time_ms,
            value=event.message.value,
            headers=list(event.message.headers or ()),
            key=event.message.key,
            follows=event.message.follows,
        )
        for event in events
    ]
