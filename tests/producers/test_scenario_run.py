"""The rows of a scenario run: exact in number, in the planned shares, the same for any number of workers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.clients import Connection
from producers.run import generate, produce, write_jsonl
from producers.scenario.filling import fill
from producers.scenario.narrow import LEVELS, SCORES, TARGET, TYPE
from producers.scenario.run import ScenarioRun, rows_by_cell
from schema.errors import UsageError
from schema.family import identify, partition_of
from schema.record import RAW, decode
from schema.scenario import FAMILY
from schema.scenario.bands import AUTHENTICITY_TARGETS, CAPACITY_LEVELS, COMPLEXITY_TYPES
from schema.scenario.columns import COLUMNS
from tests.topic_records import all_records

# The count and seed of the acceptance test.
RUN = ScenarioRun(2000, 3)
# More than one block.
LONG = ScenarioRun(17_000, 5)
CELLS = list(FAMILY.cells())


@pytest.fixture(scope="module")
def long() -> pl.DataFrame:
    return pl.concat(generate(LONG))


def shares(rows: pl.DataFrame, axis: str) -> dict[str, float]:
    return {name: count / rows.height for name, count in rows[axis].value_counts().rows()}


def judged(rows: pl.DataFrame) -> dict[Any, int]:
    """Return the number of rows that break each rule of the family."""
    _, failures = FAMILY.rules.filter(FAMILY.derive(rows.with_columns(record=pl.lit(0, dtype=pl.UInt32))))
    return failures.counts()


def test_2000_scenarios_cover_every_cell_in_the_declared_shares() -> None:
    rows = pl.concat(generate(RUN))
    assert rows.select(FAMILY.cell_axes).n_unique() == len(CELLS) == 128
    for axis, bands in (("capacity_level", CAPACITY_LEVELS), ("authenticity_target", AUTHENTICITY_TARGETS)):
        assert shares(rows, axis) == pytest.approx({band.name: band.share for band in bands}, abs=0.005)
    assert shares(rows, "complexity_type") == pytest.approx(dict.fromkeys(COMPLEXITY_TYPES, 1 / 8), abs=0.005)
    for quota in FAMILY.quotas:
        declared = FAMILY.axis(quota.axis)
        codes = rows.select(declared.code.alias("code"))["code"]
        counts = {name: int((codes == place).sum()) for place, name in enumerate(declared.bins)}
        assert quota.verdict(counts)[1], quota.name


def test_rows_have_the_wire_columns_of_the_family(long: pl.DataFrame) -> None:
    assert dict(long.schema) == FAMILY.wire
    assert identify(long.select(*COLUMNS), FAMILY).select(*FAMILY.wire).equals(long)
    assert long["chunk"].is_sorted() and long["chunk"].unique().to_list() == [0, 1, 2]
    assert long["batch_id"].unique(maintain_order=True).to_list() == [
        f"scenario-composer-5/{block}" for block in range(3)
    ]
    assert long["scenario_id"].to_list() == [f"5-{number}" for number in range(LONG.count)]


@pytest.mark.parametrize("count", [0, 1, 128, 8192, 8193])
def test_a_run_has_exactly_count_rows_and_longer_runs_begin_with_them(count: int, long: pl.DataFrame) -> None:
    frames = list(generate(replace(LONG, count=count)))
    assert sum(frame.height for frame in frames) == count
    assert all(frame.height for frame in frames)
    if frames:
        assert pl.concat(frames).equals(long.head(count))


@pytest.mark.slow
def test_files_are_the_same_for_one_worker_and_for_two(tmp_path: Path, long: pl.DataFrame) -> None:
    done: list[int] = []
    for workers in (1, 2):
        report = write_jsonl(replace(LONG, workers=workers), tmp_path / f"{workers}.jsonl", done.append)
        assert (report.rows, report.records, report.seed, report.run) == (LONG.count, 0, 5, "scenario-composer-5")
    assert done == [8192, 16_384, 17_000] * 2
    assert (tmp_path / "1.jsonl").read_bytes() == (tmp_path / "2.jsonl").read_bytes()
    first = json.loads((tmp_path / "1.jsonl").read_text().partition("\n")[0])
    assert first["character"]["name"] == long["character_name"][0]
    flat = FAMILY.flatten(first)
    assert {name: flat[name] for name in COLUMNS} == {name: long.row(0, named=True)[name] for name in COLUMNS}


def test_a_topic_holds_the_rows_that_a_file_would(connection: Connection) -> None:
    report = produce(connection, RUN)
    frames = []
    for record in all_records(connection, FAMILY, RAW):
        rows = decode(record.value, FAMILY.wire, 100_000)
        frames.append(rows)
        placed = rows.select(partition_of(FAMILY, connection.settings.partitions)).to_series()
        assert placed.unique().to_list() == [record.partition]
    assert (report.rows, report.records) == (RUN.count, len(frames))
    order = ["scenario_id"]
    assert pl.concat(frames).sort(order).equals(pl.concat(generate(RUN)).sort(order))


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**63 - 1), st.sampled_from(["composer", "narrow"]), st.integers(0, 900))
def test_rows_by_cell_counts_the_rows_that_the_run_makes(seed: int, backend: str, count: int) -> None:
    run = ScenarioRun(count, seed, backend)
    expected = np.zeros(len(CELLS), dtype=np.int64)
    for frame in generate(run):
        for *bins, rows in frame.group_by(FAMILY.cell_axes).len().rows():
            expected[CELLS.index(dict(zip(FAMILY.cell_axes, bins, strict=True)))] += rows
    assert rows_by_cell(run).tolist() == expected.tolist()


def test_gaps_among_existing_rows_are_filled_first() -> None:
    existing = np.full(len(CELLS), 20)
    existing[[5, 77]] = 0
    rows = pl.concat(generate(replace(RUN, count=2, existing=existing)))
    assert sorted(CELLS.index(cell) for cell in rows.select(FAMILY.cell_axes).rows(named=True)) == [5, 77]


@settings(max_examples=15, deadline=None)
@given(st.lists(st.sampled_from(CELLS), min_size=1, max_size=60), st.integers(0, 2**63 - 1), st.integers(0, 2**40))
def test_filled_rows_are_valid_one_for_each_cell_in_order(cells: list[dict[str, str]], seed: int, first: int) -> None:
    rows = fill(cells, seed, first)
    assert dict(rows.schema) == FAMILY.wire
    assert rows.select(FAMILY.cell_axes).rows(named=True) == cells
    assert rows["example_id"].n_unique() == rows["scenario_id"].n_unique() == len(cells)
    assert judged(rows) == {}
    assert (
        fill(cells[-1:], seed, first + len(cells) - 1)
        .drop("chunk", "batch_id")
        .equals(rows.tail(1).drop("chunk", "batch_id"))
    )


def test_filled_rows_differ_from_those_of_a_run_and_of_other_fills() -> None:
    rows = pl.concat(generate(RUN))
    cells = rows.select(FAMILY.cell_axes).rows(named=True)
    frames = [rows, fill(cells, RUN.seed, 0), fill(cells, RUN.seed, RUN.count), fill(cells, RUN.seed + 1, 0)]
    for column in ("example_id", "scenario_id"):
        assert pl.concat([frame[column] for frame in frames]).n_unique() == 4 * RUN.count


def test_an_invalid_cell_is_refused() -> None:
    with pytest.raises(UsageError, match="is not a cell: give one bin"):
        fill([CELLS[0], {**CELLS[1], "complexity_type": "simple"}], 1, 0)


def test_the_narrow_baseline_is_valid_and_narrow() -> None:
    rows = pl.concat(generate(replace(RUN, backend="narrow", run="")))
    assert judged(rows) == {}
    assert rows["generator"].unique().to_list() == ["narrow"]
    assert set(rows["capacity_level"]) == set(LEVELS)
    assert set(rows["authenticity_target"]) == {TARGET}
    assert set(rows["complexity_type"]) == {TYPE}
    assert (rows["authenticity_score"].min(), rows["authenticity_score"].max()) == tuple(one / 100 for one in SCORES)
    assert rows["example_id"].n_unique() < RUN.count


@pytest.mark.parametrize(
    "values", [{"count": -1}, {"seed": -1}, {"seed": 2**63}, {"workers": 0}, {"backend": "markov"}]
)
def test_values_out_of_range_are_refused_with_the_allowed_range(values: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="give"):
        replace(RUN, **values)
