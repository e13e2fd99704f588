"""The rows of a reduction run: correct by the plain reducer, exact in number, the same for any number of workers."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from producers.reduction.chunks import make_chunks
from producers.reduction.recipe import CYCLES, DEFAULT_SIZE_CAP, SHAPES, TRACES_PER_CHUNK
from producers.reduction.run import ReductionRun
from producers.run import generate, write_jsonl
from producers.seeds import fresh_seed
from schema.errors import UsageError
from schema.family import identify
from schema.reduction import FAMILY
from schema.reduction.columns import COLUMNS
from tests import plain_reducer as plain

# The count and seed of the acceptance test.
RUN = ReductionRun(20_000, 7)


@pytest.fixture(scope="module")
def rows() -> pl.DataFrame:
    return pl.concat(generate(RUN))


def reduced(term: plain.Term, steps: int) -> plain.Term:
    for _ in range(steps):
        after = plain.step(term)
        assert after is not None
        term = after
    return term


def check_trace(trace: list[dict[str, object]], run: ReductionRun, cut: bool) -> None:
    """Check text, span, marker and outcome of each example of a trace against the plain reducer."""
    first = trace[0]
    steps_total, outcome = first["steps_total"], first["outcome"]
    assert isinstance(steps_total, int)
    term, at = plain.read(str(first["term"])), 0
    for row in trace:
        step = row["step_k"]
        assert isinstance(step, int)
        term, at = reduced(term, step - at), step
        assert row["term"] == plain.show(term)
        span = plain.redex_span(term)
        assert (row["span_start"], row["span_end"]) == (span or (0, 0))
        assert (span is None) == (step == steps_total)
        assert (row["size"], row["depth"]) == (plain.size(term), plain.depth(term))
        assert row["redex_depth"] == plain.redex_depth(term)
    if cut:
        return
    if outcome == "normal_form":
        assert at == steps_total
        return
    assert at == steps_total - 1
    after = reduced(term, 1)
    assert (outcome == "size_capped") == (plain.size(after) > run.size_cap)
    assert (outcome == "unrenderable") == (plain.size(after) <= run.size_cap and plain.largest_index(after) > 61)
    if outcome == "fuel_exhausted":
        assert steps_total == run.fuel
        assert plain.step(after) is not None


@pytest.mark.slow
def test_the_plain_reducer_agrees_on_every_one_of_20000_examples(rows: pl.DataFrame) -> None:
    assert rows.height == RUN.count
    traces = rows.partition_by("trace_id", maintain_order=True)
    for number, trace in enumerate(traces):
        check_trace(trace.rows(named=True), RUN, cut=number == len(traces) - 1)


def test_the_plain_reducer_agrees_on_consecutive_steps() -> None:
    run = replace(RUN, count=2_000, all_steps=True, fuel=60)
    traces = pl.concat(generate(run)).partition_by("trace_id", maintain_order=True)
    for trace in traces[:-1]:
        check_trace(trace.rows(named=True), run, cut=False)
        reached = trace["steps_total"][0] + (trace["outcome"][0] == "normal_form")
        assert trace["step_k"].to_list() == list(range(reached))


def test_a_trace_that_needs_an_index_past_the_last_is_unrenderable() -> None:
    import numpy as np

    from producers.reduction.reducing import UNRENDERABLE, reduce_terms
    from tests.producers.test_reduction_sampling import tokens_of

    # (\.\.1)61 under 62 abstractions: substitution under one more abstraction raises the index 61 to 62.
    term: plain.Term = ("app", ("abs", ("abs", ("var", 1))), ("var", 61))
    for _ in range(62):
        term = ("abs", term)
    tokens = np.frombuffer(tokens_of(term), dtype=np.uint8).copy()
    _, offsets, table = reduce_terms(tokens, np.array([0, len(tokens)]), 250, 600, 32)
    assert table.tolist() == [[0, 0, 1, UNRENDERABLE, 62]]
    assert np.diff(offsets).tolist() == [len(tokens)]


def test_every_row_obeys_the_rules_of_the_family(rows: pl.DataFrame) -> None:
    _, failures = FAMILY.rules.filter(FAMILY.derive(rows.with_columns(record=pl.lit(0, dtype=pl.UInt32))))
    assert failures.counts() == {}


def test_rows_have_all_wire_columns_without_missing_values(rows: pl.DataFrame) -> None:
    assert dict(rows.schema) == FAMILY.wire
    assert rows.drop("redex_depth", "augmented_from").null_count().sum_horizontal().item() == 0
    assert rows["redex_depth"].is_null().equals(rows["span_end"] == 0)
    assert rows["seed"].unique().to_list() == [7]
    assert rows["growth"].equals((rows["size"] / rows["initial_size"]).cast(pl.Float32).alias("growth"))
    assert identify(rows.select(*COLUMNS), FAMILY).select(*FAMILY.wire).equals(rows)


def test_only_the_last_step_of_a_trace_has_the_marker(rows: pl.DataFrame) -> None:
    marked = (rows["span_start"] == 0) & (rows["span_end"] == 0)
    assert marked.equals((rows["step_k"] == rows["steps_total"]).alias("span_start"))
    assert set(rows.filter(marked)["outcome"]) == {"normal_form"}
    assert rows["size"].max() <= DEFAULT_SIZE_CAP


def test_a_long_trace_gives_32_examples_its_first_its_last_and_evenly_between(rows: pl.DataFrame) -> None:
    whole = rows.filter(pl.col("chunk") < rows["chunk"].max())
    for trace in whole.partition_by("trace_id", maintain_order=True):
        reached = trace["steps_total"][0] + (trace["outcome"][0] == "normal_form")
        steps = trace["step_k"].to_list()
        assert len(steps) == min(reached, 32)
        assert (steps[0], steps[-1]) == (0, reached - 1)
        gaps = {after - before for before, after in itertools.pairwise(steps)}
        assert not gaps or max(gaps) - min(gaps) <= 1
    assert whole["steps_total"].max() > 32


def test_initial_terms_follow_the_cycles_exactly(rows: pl.DataFrame) -> None:
    assert (rows["cycle"] == rows["chunk"] % CYCLES).all()
    for cycle, terms in rows.filter(pl.col("step_k") == 0).group_by("cycle"):
        depth, smallest, largest = SHAPES[cycle[0]]
        assert set(terms["depth"]) == set(terms["initial_depth"]) == {depth}
        assert terms["size"].equals(terms["initial_size"].alias("size"))
        assert terms["size"].min() >= smallest and terms["size"].max() <= largest


def test_shares_of_depth_and_size_are_exact_over_whole_cycles() -> None:
    first = make_chunks(RUN, 0, 30).filter(pl.col("step_k") == 0)
    assert first.height == 30 * TRACES_PER_CHUNK
    assert first["initial_depth"].is_between(12, 15).mean() == 0.4
    assert first["initial_size"].is_between(160, 200).mean() == 0.3


def test_a_run_of_20000_examples_goes_through_dozens_of_chunks(rows: pl.DataFrame) -> None:
    assert rows["chunk"].n_unique() > 100
    assert rows["chunk"].is_sorted()


def test_a_chunk_depends_only_on_seed_and_number() -> None:
    together = make_chunks(RUN, 40, 10)
    for chunk in range(40, 50):
        assert make_chunks(replace(RUN, count=1, workers=2), chunk, 1).equals(together.filter(pl.col("chunk") == chunk))
    assert not make_chunks(replace(RUN, seed=8), 40, 1)["term"].equals(make_chunks(RUN, 40, 1)["term"])


def test_trace_ids_name_one_trace_of_one_chunk(rows: pl.DataFrame) -> None:
    traces = rows.group_by("trace_id").agg(pl.col("chunk").n_unique(), starts=(pl.col("step_k") == 0).sum())
    assert traces.select("chunk", "starts").unique().rows() == [(1, 1)]
    assert rows["trace_id"][0] == "7-0-0"


@pytest.mark.parametrize("count", [0, 1, 31, 1000, 20_000, 25_001])
def test_a_run_has_exactly_count_rows_and_longer_runs_begin_with_them(count: int, rows: pl.DataFrame) -> None:
    frames = list(generate(replace(RUN, count=count)))
    assert sum(frame.height for frame in frames) == count
    assert all(frame.height for frame in frames)
    if frames:
        shared = min(count, rows.height)
        assert pl.concat(frames).head(shared).equals(rows.head(shared))


@pytest.mark.slow
def test_files_are_the_same_for_one_worker_and_for_two(tmp_path: Path, rows: pl.DataFrame) -> None:
    reports = []
    done: list[int] = []
    for workers in (1, 2):
        path = tmp_path / f"{workers}.jsonl"
        reports.append(write_jsonl(replace(RUN, workers=workers), path, done.append))
        assert path.stat().st_size == reports[-1].bytes
    assert [report.rows for report in reports] == [RUN.count, RUN.count]
    assert done[-1] == RUN.count
    assert (tmp_path / "1.jsonl").read_bytes() == (tmp_path / "2.jsonl").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1.jsonl", "2.jsonl"]


def test_a_file_holds_the_rows_in_the_json_form(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    write_jsonl(replace(RUN, count=300), path)
    documents = [json.loads(line) for line in path.read_text().splitlines()]
    rows = pl.concat(generate(replace(RUN, count=300)))
    for document, row in zip(documents, rows.rows(named=True), strict=True):
        assert document["target_span"] == [row["span_start"], row["span_end"]]
        assert document["example_id"] == f"{row['example_id']:016x}"
        assert document["augmented_from"] is None
        flat = FAMILY.flatten(document)
        assert flat["growth"] == pytest.approx(row["growth"], rel=1e-6)
        same = set(COLUMNS) - {"growth"}
        assert {name: flat[name] for name in same} == {name: row[name] for name in same}
        assert list(document) == [
            *("term", "step_k", "steps_total", "trace_id", "target_span", "outcome", "meta"),
            *("example_id", "split", "augmented_from"),
        ]


def test_a_file_that_cannot_be_written_is_reported_and_left_as_it_was(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="name a file"):
        write_jsonl(replace(RUN, count=1), tmp_path / "absent" / "a.jsonl")
    with pytest.raises(UsageError, match="is not an ordinary file"):
        write_jsonl(replace(RUN, count=1), tmp_path)
    path = tmp_path / "a.jsonl"
    path.write_text("before")

    def interrupt(rows: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_jsonl(replace(RUN, count=1), path, interrupt)
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "values",
    [
        *({"count": -1}, {"seed": -1}, {"seed": 2**63}, {"workers": 0}, {"fuel": 0}, {"size_cap": 199}),
        *({"fuel": 10**7}, {"fuel": 200_000, "all_steps": True}),
    ],
)
def test_values_out_of_range_are_refused_with_the_allowed_range(values: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="give"):
        replace(RUN, **values)


def test_a_fresh_seed_is_drawn_each_time_and_fits_53_bits() -> None:
    seeds = {fresh_seed() for _ in range(50)}
    assert len(seeds) == 50
    assert all(0 <= seed < 2**53 for seed in seeds)
