"""The closed loop on real services: missing rows are requested, produced, counted, and then no longer requested."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from broker.clients import Connection, connect
from broker.topics import ensure_topics, extents, topic_name
from feedmill.services import running
from producers.sink import send_frames
from schema.record import RAW
from schema.registry import FAMILIES
from schema.settings import Settings
from streams.coverage.client import open_coverage
from streams.drain import drain
from tests.integration.workers import kill
from tests.scenarios import CELLS, valid_rows

MINIMUM = 6
LIMIT_S = 200.0


@pytest.fixture
def serving(settings: Settings, connection: Connection) -> Iterator[Connection]:
    """A worker and a coverage service that wants MINIMUM scenarios in every cell, and one reduction."""
    wanted = settings.model_copy(
        update={"cell_minimum": {"scenario": MINIMUM}, "coverage_port": 0, "rows_per_record": 120}
    )
    ensure_topics(connection, FAMILIES)
    assert wanted.bootstrap_servers is not None
    with running(wanted, wanted.bootstrap_servers):
        yield connect(wanted)


def following(connection: Connection, family: str, seed: int, log: Path) -> subprocess.Popen[bytes]:
    """`feedmill produce FAMILY --follow`, ended with this process at the latest."""
    with log.open("ab") as out:
        return subprocess.Popen(
            [sys.executable, "-m", "feedmill.child_process", "produce", family, "--follow", "--seed", str(seed)],
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=out,
            env=connection.settings.environment(connection.servers),
        )


def finish(process: subprocess.Popen[bytes], log: Path, connection: Connection) -> None:
    """Wait for the orderly end of a producer; if it fails, show all logs."""
    try:
        status = process.wait(LIMIT_S)
    except subprocess.TimeoutExpired:
        status = None
    logs = [log, *(connection.settings.data_dir / "logs").glob("*.log")]
    assert status == 0, "\n".join(f"{path.name}: {path.read_text()}" for path in logs)


def sent(connection: Connection, family: str) -> int:
    """Records of raw."""
    topic = topic_name(connection.settings, family, RAW)
    return sum(extent.end for extent in extents(connection, topic).values())


def report(connection: Connection, family: str) -> dict[str, Any]:
    drain(connection, family, LIMIT_S)
    with open_coverage(connection) as coverage:
        return coverage.report(family)


def test_gaps_are_filled_exactly_although_one_producer_is_killed(serving: Connection, tmp_path: Path) -> None:
    # Two rows in every cell of the lower half, and one cell with more than is asked of it.
    half = len(CELLS) // 2
    rows = valid_rows(half, 0).vstack(valid_rows(half, len(CELLS)))
    many = valid_rows(1, 2 * len(CELLS))
    for turn in range(3, 3 + MINIMUM):
        many = many.vstack(valid_rows(1, turn * len(CELLS)))
    send_frames(serving, FAMILIES["scenario"], "holes", [rows, many])
    before = report(serving, "scenario")
    assert before["cells_covered"] == half
    assert before["rows_clean"] == rows.height + many.height
    assert len(before["gaps_to_fill"]) == len(CELLS) - 1

    logs = [tmp_path / "first.log", tmp_path / "second.log"]
    started = sent(serving, "scenario")
    first, second = (following(serving, "scenario", seed, log) for seed, log in enumerate(logs))
    try:
        deadline = time.monotonic() + LIMIT_S
        while sent(serving, "scenario") == started:
            assert time.monotonic() < deadline
            assert first.poll() is None, logs[0].read_text()
        # Its first rows are on their way; the rows that it was about to send never arrive.
        kill(first)
        first = following(serving, "scenario", 2, logs[0])
        for process, log in ((first, logs[0]), (second, logs[1])):
            finish(process, log, serving)
    finally:
        kill(first)
        kill(second)

    after = report(serving, "scenario")
    assert after["gaps_to_fill"] == []
    assert after["cells_covered"] == len(CELLS)
    # Every cell has exactly the minimum, except the one that had more.
    label = "|".join(CELLS[0].values())
    assert after["cells"][label] == 2 + MINIMUM + 1
    assert {rows for cell, rows in after["cells"].items() if cell != label} == {MINIMUM}
    assert after["balanced"]


def test_every_possible_reduction_cell_is_filled_and_the_producer_ends(serving: Connection, tmp_path: Path) -> None:
    log = tmp_path / "reductions.log"
    process = following(serving, "reduction", 7, log)
    try:
        finish(process, log, serving)
    finally:
        kill(process)
    answer = report(serving, "reduction")
    assert answer["gaps_to_fill"] == []
    assert answer["cells_covered"] == answer["cells_possible"]
    assert answer["rows_rejected"] == 0
    # Filled cells request nothing, so a producer that starts now has nothing to do.
    before = sent(serving, "reduction")
    again = following(serving, "reduction", 8, log)
    finish(again, log, serving)
    kill(again)
    assert sent(serving, "reduction") == before


def test_a_producer_without_a_coverage_service_names_the_command_to_start(
    connection: Connection, tmp_path: Path
) -> None:
    patient = connect(connection.settings.model_copy(update={"follow_patience_s": 1.0}))
    log = tmp_path / "alone.log"
    process = following(patient, "reduction", 1, log)
    assert process.wait(LIMIT_S) == 1
    kill(process)
    assert "feedmill coverage serve" in log.read_text()
