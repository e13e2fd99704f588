"""Verdicts: each rule rejects the rows that break it, and every row gets exactly one verdict."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schema.reduction import FAMILY
from schema.scenario import FAMILY as SCENARIO
from schema.settings import load_settings
from streams.refine.judge import Verdicts, judge
from streams.refine.state import State
from tests import reductions, scenarios


def remembering_nothing() -> State:
    return State.empty(FAMILY, load_settings())


def judged(rows: list[dict[str, Any]], partition: int = 0, partitions: int = 1) -> Verdicts:
    frame = reductions.frame(rows).with_columns(record=pl.lit(0, dtype=pl.UInt32))
    return judge(frame, FAMILY, partition, partitions, remembering_nothing())


def reasons(changed: dict[str, Any]) -> set[str]:
    verdicts = judged([changed])
    assert verdicts.clean.height + verdicts.rejected.height == 1
    return set(verdicts.rejected["reasons"].explode().to_list()) if verdicts.rejected.height else set()


def test_a_right_row_is_clean() -> None:
    assert reasons(reductions.row(3)) == set()


def test_a_normal_form_with_its_marker_is_clean() -> None:
    last = reductions.row(0, term="\\.0", step_k=1, steps_total=1, span_start=0, span_end=0)
    assert reasons(last) == set()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"span_start": 0, "span_end": 0}, "nf_marker_mid_trace"),
        ({"step_k": 1}, "nf_marker_missing"),
        ({"span_start": 0, "span_end": 0, "step_k": 1}, "nf_marker_on_reducible_term"),
        ({"span_start": 0, "span_end": 0, "step_k": 1, "outcome": "size_capped"}, "nf_marker_without_normal_form"),
        ({"span_start": 7}, "span_not_leftmost_outermost"),
        ({"span_end": 1000}, "span_outside_term"),
        ({"span_start": 9, "span_end": 8}, "span_disordered"),
        ({"span_start": -1}, "span_disordered"),
        ({"term": "((\\.0)0)"}, "term_malformed"),
        ({"term": None}, "term|nullability"),
        ({"trace_id": None}, "trace_id|nullability"),
        ({"step_k": 2}, "step_beyond_total"),
        ({"step_k": -1}, "step_k|min"),
        ({"outcome": "gave_up"}, "outcome_unknown"),
        ({"size": 99}, "size_mismatch"),
        ({"depth": 99}, "depth_mismatch"),
        ({"redex_depth": 9}, "redex_depth_mismatch"),
    ],
)
def test_each_broken_rule_is_named(changes: dict[str, Any], reason: str) -> None:
    assert reason in reasons(reductions.row(3, **changes))


def test_the_wrong_redex_of_two_is_rejected() -> None:
    term = "0((\\.0)1)((\\.0)2)"
    start = term.index("(\\.0)2")
    assert reasons(reductions.row(0, term=term, span_start=start, span_end=start + 6)) == {
        "span_not_leftmost_outermost"
    }
    start = term.index("(\\.0)1")
    assert reasons(reductions.row(0, term=term, span_start=start, span_end=start + 6)) == set()


def test_missing_facts_of_a_term_are_filled_in() -> None:
    unsaid = ("size", "depth", "redex_depth", "initial_size", "growth", "cycle", "recipe")
    bare = (
        reductions.valid(4)
        .tail(1)
        .with_columns([pl.lit(None).cast(FAMILY.columns[name]).alias(name) for name in unsaid])
    )
    verdicts = judge(bare.with_columns(record=pl.lit(0, dtype=pl.UInt32)), FAMILY, 0, 1, remembering_nothing())
    # Three abstractions over (\\.0)(\\.0): 3 + 5 nodes, 3 + 2 edges, and the redex below the three.
    assert verdicts.clean.select("size", "depth", "redex_depth").row(0) == (8, 5, 3)


def test_a_row_of_another_partition_is_rerouted_unjudged() -> None:
    rows = [reductions.row(number) for number in range(40)]
    rows[5]["span_end"] = 1000
    verdicts = judged(rows, partition=1, partitions=3)
    ids = reductions.frame(rows)["example_id"].to_numpy()
    belongs = ids % np.uint64(3)
    assert verdicts.rerouted["partition"].to_list() == [int(p) for p in belongs if p != 1]
    assert verdicts.clean.height + verdicts.rejected.height == int((belongs == 1).sum())


def test_a_repeated_term_is_a_duplicate_even_from_another_trace() -> None:
    again = reductions.row(3, trace_id="another")
    verdicts = judged([reductions.row(3), again, reductions.row(4)])
    assert verdicts.clean["trace_id"].to_list() == ["t3", "t4"]
    assert verdicts.rejected["reasons"].to_list() == [["duplicate"]]


def test_retracted_rows_and_the_rows_augmented_from_them_are_rejected_and_not_remembered() -> None:
    state = remembering_nothing()
    frame = reductions.valid(6).with_columns(record=pl.int_range(6, dtype=pl.UInt32))
    ids = frame["example_id"]
    origins = pl.Series([None, None, ids[0], ids[5], None, None], dtype=pl.UInt64)
    frame = frame.with_columns(augmented_from=origins)
    retracted = np.sort(np.array([ids[0], ids[1]], dtype=np.uint64))
    verdicts = judge(frame, FAMILY, 0, 1, state, retracted)
    assert verdicts.rejected["record"].to_list() == [0, 1, 2]
    assert verdicts.rejected["reasons"].to_list() == [["retracted"]] * 3
    assert verdicts.clean["record"].to_list() == [3, 4, 5]
    assert not state.ids.holds(ids[:3].to_numpy()).any()


def test_a_retracted_row_that_is_sent_again_is_rejected_as_retracted_and_others_as_duplicates() -> None:
    state = remembering_nothing()
    frame = reductions.valid(3).with_columns(record=pl.int_range(3, dtype=pl.UInt32))
    judge(frame, FAMILY, 0, 1, state)
    again = judge(frame, FAMILY, 0, 1, state, frame["example_id"][1:2].to_numpy())
    assert again.rejected["reasons"].to_list() == [["duplicate"], ["retracted"], ["duplicate"]]


def test_rows_that_filters_refuse_carry_all_their_reasons_and_are_not_remembered() -> None:
    state = remembering_nothing()
    frame = reductions.valid(6).with_columns(record=pl.int_range(6, dtype=pl.UInt32))
    filters = {"not_early": pl.col("record") < 4, "not_even": pl.col("record") % 2 == 0}
    verdicts = judge(frame, FAMILY, 0, 1, state, filters=filters)
    assert verdicts.clean["record"].to_list() == [0, 2]
    assert dict(verdicts.rejected.select("record", "reasons").iter_rows()) == {
        1: ["not_even"],
        3: ["not_even"],
        4: ["not_early"],
        5: ["not_early", "not_even"],
    }
    assert judge(frame, FAMILY, 0, 1, state).rejected["reasons"].to_list() == [["duplicate"], ["duplicate"]]


def test_a_row_that_breaks_a_rule_is_not_filtered_and_an_answer_of_null_refuses() -> None:
    rows = [reductions.row(0), reductions.row(1, span_end=9999)]
    frame = reductions.frame(rows).with_columns(record=pl.int_range(2, dtype=pl.UInt32))
    verdicts = judge(frame, FAMILY, 0, 1, remembering_nothing(), filters={"unknown": pl.lit(None, dtype=pl.Boolean)})
    reasons = verdicts.rejected["reasons"].to_list()
    assert reasons[0] == ["unknown"]
    assert "unknown" not in reasons[1]


def test_ids_and_split_of_a_producer_are_recomputed() -> None:
    honest = reductions.valid(5)
    lying = honest.with_columns(example_id=pl.lit(7, dtype=pl.UInt64), split=pl.lit("test"))
    verdicts = judge(lying.with_columns(record=pl.lit(0, dtype=pl.UInt32)), FAMILY, 0, 1, remembering_nothing())
    assert verdicts.clean.select("example_id", "split").equals(honest.select("example_id", "split"))


@given(
    st.lists(
        st.tuples(st.integers(0, 30), st.sampled_from(["right", "wrong span", "no term", "late marker"])), max_size=40
    ),
    st.integers(1, 4),
)
def test_every_row_gets_exactly_one_verdict(kinds: list[tuple[int, str]], partitions: int) -> None:
    changes: dict[str, dict[str, Any]] = {
        "right": {},
        "wrong span": {"span_end": 9999},
        "no term": {"term": None},
        "late marker": {"step_k": 1},
    }
    rows = [reductions.row(number, **changes[kind]) for number, kind in kinds]
    frame = reductions.frame(rows).with_columns(record=pl.Series(range(len(rows)), dtype=pl.UInt32))
    verdicts = judge(frame, FAMILY, 0, partitions, remembering_nothing())
    judged_rows = pl.concat([part.select("record") for part in (verdicts.clean, verdicts.rejected, verdicts.rerouted)])
    assert sorted(judged_rows["record"].to_list()) == list(range(len(rows)))
    assert verdicts.clean["example_id"].is_unique().all()
    assert all(verdicts.rejected["reasons"].list.len() > 0)


def test_a_faulty_answer_is_rejected_for_its_fault_alone() -> None:
    answer = {"scenario_id": "r-1", "generator": "llm", "model": "m", "answer_fault": "answer_refused"}
    bare = {"scenario_id": "r-2", "generator": "llm", "model": "m"}
    rows = scenarios.frame([answer, bare]).with_columns(record=pl.lit(0, dtype=pl.UInt32))
    verdicts = judge(rows, SCENARIO, 0, 1, State.empty(SCENARIO, load_settings()))
    reasons = dict(verdicts.rejected.select("scenario_id", "reasons").iter_rows())
    assert reasons["r-1"] == ["answer_refused"]
    assert "request|nullability" in reasons["r-2"]
