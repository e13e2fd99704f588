"""A new family works in every stage, without an edit outside its own files except one line of registration."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from broker.clients import Connection
from broker.topics import ensure_topics
from consumers.feed import Feed
from consumers.replay.topic_range import replay
from feedmill.services import Service, start
from schema.json_form import json_lines
from schema.registry import FAMILIES
from schema.settings import Settings
from streams.audit.run import audit
from streams.coverage.client import open_coverage
from streams.drain import drain
from tests.family_template.declaration import FAMILY
from tests.family_template.producer import samples
from tests.family_template.tensors import AdditionBatch
from tests.integration.workers import clean, kill
from tests.schema import test_json_rows, test_registry

ROOT = Path(__file__).parents[2]
LIMIT_S = 200.0
MODULE = "tests.family_template"


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Register the family in this process, and let child processes find it."""
    monkeypatch.setitem(FAMILIES, FAMILY.name, FAMILY)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


@pytest.fixture
def services(settings: Settings, connection: Connection) -> Iterator[list[Service]]:
    """A refine worker and the coverage service, as real processes that know the family."""
    wanted = settings.model_copy(update={"coverage_port": 0})
    ensure_topics(connection, [FAMILY.name])
    commands = {"coverage": ["coverage", "serve"], "worker": ["worker", FAMILY.name]}
    started = [start(wanted, connection.servers, name, line, MODULE) for name, line in commands.items()]
    yield started
    for service in started:
        service.stop()


def feedmill(connection: Connection, log: Path, *arguments: str) -> None:
    """Run one command in a process that knows the family; show all logs if it fails."""
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", MODULE, *arguments],
            env=connection.settings.environment(connection.servers),
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=out,
        )
    try:
        status = process.wait(LIMIT_S)
    finally:
        kill(process)
    logs = [log, *(connection.settings.data_dir / "logs").glob("*.log")]
    assert status == 0, "\n".join(f"{path.name}: {path.read_text()}" for path in logs)


def report(connection: Connection) -> dict[str, Any]:
    drain(connection, FAMILY.name, LIMIT_S)
    with open_coverage(connection) as coverage:
        return coverage.report(FAMILY.name)


def test_the_template_passes_the_tests_of_every_family(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(test_json_rows.SAMPLES, FAMILY.name, samples(20))
    test_json_rows.test_written_lines_are_read_back_unchanged(FAMILY)
    test_json_rows.test_every_column_refuses_values_of_other_types(FAMILY)
    test_registry.test_every_declared_part_exists_and_is_of_its_kind(FAMILY, tmp_path)
    test_registry.test_sample_rows_are_valid_and_different(FAMILY)
    test_registry.test_filled_rows_are_valid_and_of_their_cells(FAMILY)
    test_registry.test_the_rules_cover_exactly_the_columns(FAMILY)
    test_registry.test_axes_cells_and_quotas_use_existing_names(FAMILY)


def test_a_registered_family_works_from_its_producer_to_a_training_loop(
    connection: Connection, services: list[Service], tmp_path: Path
) -> None:
    # 1. Produce, in two processes, and a foreign row that breaks a rule.
    log = tmp_path / "command.log"
    feedmill(connection, log, "produce", "addition", "--count", "120", "--seed", "3", "--workers", "2")
    wrong = json.loads(json_lines(samples(1), FAMILY)) | {"total": 1}
    (tmp_path / "wrong.jsonl").write_text(json.dumps(wrong))
    feedmill(connection, log, "ingest", "addition", str(tmp_path / "wrong.jsonl"))
    # 2. Refine and count.
    before = report(connection)
    # The foreign row may arrive in another partition than its own, and is then sent there.
    assert (before["rows_in"] - before["rows_rerouted"], before["rows_clean"]) == (121, 120)
    assert before["rejected_by_reason"] == {"total_wrong": 1}
    assert before["cells_total"] == 9
    # 3. Fill what coverage requests.
    services[0].check()
    feedmill(connection, log, "produce", "addition", "--follow", "--seed", "4")
    after = report(connection)
    assert after["gaps_to_fill"] == []
    assert min(after["cells"].values()) >= FAMILY.cell_minimum
    rows = clean(connection, FAMILY)
    assert rows.height == after["rows_clean"]
    # 4. Feed a training loop.
    batches = list(Feed(connection, FAMILY.name, split=None, batch_size=16, shuffle_seed=1))
    assert all(isinstance(batch, AdditionBatch) for batch in batches)
    fed = {
        bytes(text): total
        for batch in batches
        for text, total in zip(batch.tokens.tolist(), batch.total.tolist(), strict=True)
    }
    assert fed == {text.encode(): total for text, total in rows.select("text", "total").rows()}
    # 5. Replay to a file, and recompute the invariants.
    replayed = replay(connection, FAMILY.name, tmp_path / "rows.parquet")
    assert replayed.rows == rows.height
    assert set(pl.read_parquet(tmp_path / "rows.parquet")["text"]) == set(rows["text"])
    assert audit(connection, FAMILY).ok
