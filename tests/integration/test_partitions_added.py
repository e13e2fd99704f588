"""Partitions that are added to the topics while a worker runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from broker.clients import Connection
from broker.topics import ensure_topics, topic_name
from producers.reduction.run import ReductionRun
from producers.run import produce
from schema.errors import DrainTimeoutError
from schema.record import CLEAN, LEDGER, RAW, REJECTED
from schema.reduction import FAMILY
from streams.audit.run import audit
from streams.drain import drain
from tests.integration.workers import worker

pytestmark = pytest.mark.slow


def test_added_partitions_are_refined_after_a_restart_and_drain_says_so(connection: Connection, tmp_path: Path) -> None:
    ensure_topics(connection, ["reduction"])
    with worker(connection.settings, tmp_path / "log"):
        produce(connection, ReductionRun(count=300, seed=1))
        drain(connection, "reduction", 60)
        with connection.lend_admin() as admin:
            topics = [topic_name(connection.settings, "reduction", each) for each in (RAW, CLEAN, REJECTED, LEDGER)]
            admin.create_partitions(dict.fromkeys(topics, 8))
        produce(connection, ReductionRun(count=3000, seed=2))
        with pytest.raises(DrainTimeoutError, match=r"no worker reads partition 4, 5, 6, 7: .* so restart them"):
            drain(connection, "reduction", 3)
    with worker(connection.settings, tmp_path / "log"):
        drain(connection, "reduction", 60)
    assert audit(connection, FAMILY).ok
