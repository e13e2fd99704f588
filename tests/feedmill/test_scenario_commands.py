"""`feedmill produce scenario`: its rows, its report, and the options that it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from broker.clients import Connection
from broker.topics import ensure_topics, extents, topic_name
from feedmill import scenario_commands
from feedmill.cli import run
from producers.run import generate
from producers.scenario.run import ScenarioRun
from schema import ledger
from schema.family import CELL_AXIS, cell_label
from schema.record import LEDGER, RAW, Envelope, encode
from schema.response_measures import response_measures
from schema.scenario import FAMILY
from tests.feedmill.conftest import Command
from tests.streams.ledgers import entry, frame


def test_a_file_holds_the_run_and_a_table_shows_its_totals(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    path = tmp_path / "a.jsonl"
    assert run(["produce", "scenario", "--count", "256", "--seed", "3", "--out", str(path)]) == 0
    rows = pl.concat(generate(ScenarioRun(256, 3)))
    written = [json.loads(line) for line in path.read_text().splitlines()]
    assert [document["example_id"] for document in written] == [f"{row:016x}" for row in rows["example_id"]]
    out, err = capfd.readouterr()
    assert "256 rows of backend composer, 128 of 128 cells covered" in out
    assert "of the first 256 texts: 0 copies" in out
    for name, count in rows["capacity_level"].value_counts().rows():
        assert any(line.split()[-4:-1] == [name, str(count), f"{count / 256:.2%}"] for line in out.splitlines())
    assert "seed 3" in err and str(path) in err


def test_json_is_one_object_with_the_counts_of_the_rows(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "n.jsonl"
    arguments = ["--count", "300", "--seed", "4", "--backend", "narrow", "--out", str(path), "--json"]
    assert run(["produce", "scenario", *arguments]) == 0
    figures = json.loads(capfd.readouterr().out)
    rows = pl.concat(generate(ScenarioRun(300, 4, "narrow")))
    assert (figures["rows"], figures["cells_covered"], figures["cells_total"]) == (300, 2, 128)
    assert figures["axes"]["capacity_level"] == {
        name: int((rows["capacity_level"] == name).sum()) for name in FAMILY.axis("capacity_level").bins
    }
    assert figures["copies"] == 300 - rows["example_id"].n_unique()
    assert figures["distinct_4grams"] < 0.1
    assert figures["responses"] == response_measures(rows["response"], rows["authenticity_target"])
    assert figures["responses"]["repeated_sentences"] == 1


def test_gaps_first_plans_with_the_counts_of_coverage(called: Command, connection: Connection) -> None:
    labels = [cell_label(cell) for cell in FAMILY.cells()]
    gaps = [labels[9], labels[100]]
    counted = [{"axis": CELL_AXIS, "bin": label, "rows": 10} for label in labels if label not in gaps]
    topic = topic_name(connection.settings, FAMILY.name, LEDGER)
    ensure_topics(connection, [FAMILY.name])
    producer = connection.producer()
    headers = Envelope(FAMILY.name, LEDGER, ledger.VERSION, "r", 0, 0, 1).headers()
    producer.send(topic, encode(frame([entry(coverage=counted)])), partition=0, headers=headers).get(timeout=30)
    producer.close()

    status, out, _ = called("produce", "scenario", "--count", "2", "--seed", "1", "--gaps-first", "--json")
    assert status == 0
    figures = json.loads(out)
    assert figures["to"] == topic_name(connection.settings, FAMILY.name, RAW)
    chosen = {axis: {name for name, rows in bins.items() if rows} for axis, bins in figures["axes"].items()}
    assert chosen == {axis: {label.split("|")[place] for label in gaps} for place, axis in enumerate(FAMILY.cell_axes)}
    assert sum(extent.end - extent.begin for extent in extents(connection, figures["to"]).values()) in (1, 2)


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        ([], "--count"),
        (["--count", "5", "--follow"], "--follow"),
        (["--count", "5", "--gaps-first", "--out", "a.jsonl"], "--gaps-first"),
        (["--count", "5", "--gaps-first", "--backend", "narrow"], "--gaps-first"),
        (["--follow", "--backend", "narrow"], "--backend narrow"),
        (["--count", "5", "--backend", "markov"], "markov"),
    ],
)
def test_contradicting_options_are_a_one_line_error(
    arguments: list[str], option: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(["produce", "scenario", *arguments]) in (1, 2)
    lines = capfd.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert option in lines[0]


def test_the_backends_are_those_of_the_producer_and_llm() -> None:
    from producers.scenario.run import BACKENDS

    assert [backend.value for backend in scenario_commands.Backend] == [*BACKENDS, "llm"]
