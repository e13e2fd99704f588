"""Faust may give up waiting for partitions to be opened; they are opened all the same, and the worker lives."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer
from faust.types import TP

from broker.clients import Connection
from broker.topics import ensure_topics, topic_name
from schema.errors import ConfigError
from schema.record import RAW
from schema.reduction import FAMILY
from schema.settings import load_settings
from streams.refine.partition import Phase
from streams.worker import RefineWorker, WorkerTotals


def test_an_opening_that_faust_cancels_goes_on(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    ensure_topics(connection, [FAMILY.name])
    topic = topic_name(connection.settings, FAMILY.name, RAW)
    assigned = frozenset(TP(topic, partition) for partition in range(connection.settings.partitions))

    def ignore(_: WorkerTotals) -> None:
        pass

    fencing = asyncio.Event()
    start = AIOKafkaProducer.start

    async def started(self: AIOKafkaProducer) -> None:
        fencing.set()
        await start(self)

    monkeypatch.setattr(AIOKafkaProducer, "start", started)

    async def all_of_it() -> None:
        worker = RefineWorker(connection, [FAMILY], ignore)
        owned = worker._owned[topic]
        opening = asyncio.create_task(worker._assigned(assigned, 1))
        await asyncio.wait_for(fencing.wait(), 60)
        opening.cancel()
        # Another rebalance: the next opening waits for the present one.
        assert await worker._assigned(assigned, 2) == dict.fromkeys(assigned, 0)
        assert opening.cancelled()
        assert worker._failure is None
        assert {refiner.phase for refiner in owned.refiners.values()} == {Phase.REBUILDING}
        await owned.close()

    asyncio.run(all_of_it())


def test_a_data_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    connection = Connection(load_settings(data_dir=tmp_path / "file" / "data"), "127.0.0.1:1")
    with pytest.raises(ConfigError, match=r"data/faust cannot be made .* FEEDMILL_DATA_DIR"):
        RefineWorker(connection, [FAMILY], lambda totals: None)._app()
