"""Whole traces against models that err in known ways, and against the producer's and the plain reducer's traces."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.reduction.diagnosis import FAILURES, diagnosis, judge, trace_summary, worst
from consumers.reduction.predictions import Predict, Predictions, remembered
from consumers.reduction.whole_trace import TraceLimits, normal_order, whole_traces
from producers.reduction.run import ReductionRun, generate
from schema.reduction.text import facts
from tests import plain_reducer as plain
from tests.schema.test_reduction_contraction import redexes
from tests.schema.test_reduction_text import TERMS

Span = tuple[int, int]

LIMITS = TraceLimits(fuel=250, size_cap=600)
OMEGA = r"(\.00)(\.00)"
GROWING = r"(\.000)(\.000)"


def choosing(choose: Callable[[str, list[Span]], Span]) -> Predict:
    """A model that answers `choose(term, its redexes from left to right, outermost first)`."""

    def predict(terms: pl.Series) -> Predictions:
        spans = [choose(term, sorted(redexes(plain.read(term)), key=lambda s: (s[0], -s[1]))) for term in terms]
        array = np.array(spans, dtype=np.int64).reshape(-1, 2)
        return Predictions(array, np.where(array[:, 1] == 0, 0.75, 0.25))

    return predict


innermost = choosing(lambda term, found: found[-1] if found else (0, 0))


def judged(terms: list[str], predict: Predict, limits: TraceLimits = LIMITS) -> pl.DataFrame:
    return judge(whole_traces(pl.Series(terms, dtype=pl.String), predict, limits))


def generated(count: int = 3_000, seed: int = 41, **changes: int) -> pl.DataFrame:
    return pl.concat(generate(ReductionRun(count=count, seed=seed, **changes)))


def test_normal_order_itself_is_right_on_every_trace_and_ends_as_the_producer_does() -> None:
    rows = generated()
    starts = rows.filter(step_k=0)
    found = judged(starts["term"].to_list(), normal_order)
    assert found["correct"].all()
    assert found["detours"].sum() == 0
    assert found["fate"].equals(starts["outcome"].alias("fate"))
    assert set(found["fate"]) >= {"normal_form", "size_capped", "fuel_exhausted"}
    assert found["size"].equals(starts["size"])
    assert found["depth"].equals(starts["depth"])
    last = rows.filter(pl.col("step_k") == pl.col("steps_total"))
    reached = starts["trace_id", "outcome"].hstack(found).filter(outcome="normal_form").join(last, on="trace_id")
    # The last trace may be cut before its end.
    assert reached.height > 100
    assert reached["true_last"].equals(reached["term"].alias("true_last"))
    assert reached["steps"].equals(reached["steps_total"].alias("steps"))


def test_the_last_step_that_fuel_allows_may_reach_the_normal_form() -> None:
    term = r"(\.0)((\.0)((\.0)1))"
    assert judged([term], normal_order, TraceLimits(3, 600))["fate", "ended", "correct"].row(0) == (
        "normal_form",
        "normal_form",
        True,
    )
    assert judged([term], normal_order, TraceLimits(2, 600))["fate", "ended", "correct"].row(0) == (
        "fuel_exhausted",
        "fuel_exhausted",
        True,
    )


@pytest.mark.parametrize("term", [r"(\.0)((\.0)1)", OMEGA])
def test_one_who_stops_early_is_found_out_with_how_sure_it_was(term: str) -> None:
    found = judged([term], choosing(lambda term, found: (0, 0)))
    assert (found["correct"].item(), found["failure"].item(), found["steps"].item()) == (False, "stopped_early", 0)
    fault = found["fault"].item()
    assert (fault["term"], fault["true_start"], fault["true_end"]) == (term, 0, len(term))
    assert (fault["said_start"], fault["said_end"], fault["nf_probability"]) == (0, 0, 0.75)


def test_one_who_never_stops_misses_the_normal_form() -> None:
    found = judged([r"\.(\.0)0", OMEGA], choosing(lambda term, found: found[0] if found else (2, 3)))
    assert found["failure"].to_list() == ["missed_normal_form", None]
    assert found["fault"][0]["term"] == r"\.0"


def test_pointing_at_what_is_no_redex_ends_a_trace() -> None:
    found = judged([r"(\.0)(\.0)1", OMEGA], choosing(lambda term, found: (found[0][0], found[0][1] - 1)))
    assert found["failure"].to_list() == ["not_a_redex"] * 2
    assert found["steps"].to_list() == [0, 0]


def test_a_detour_that_reaches_the_normal_form_is_right_and_counted() -> None:
    found = judged([r"(\.0)((\.0)1)"], innermost)
    assert (found["correct"].item(), found["detours"].item(), found["steps"].item()) == (True, 1, 2)
    assert found["fault"].item() is None
    assert found["first_detour"].item()["said_start"] == 6


@pytest.mark.parametrize(
    ("term", "failure"),
    [(rf"(\.1)({OMEGA})", "fuel"), (rf"(\.1)({GROWING})", "wrong_redex"), (rf"{OMEGA}((\.0)1)", "wrong_redex")],
)
def test_a_detour_that_leads_nowhere_is_shown_where_it_was_taken(term: str, failure: str) -> None:
    found = judged([r"(\.0)1", term], innermost)
    assert found["failure"].to_list() == [None, failure]
    fault = found["fault"][1]
    assert (fault["step"], fault["term"], fault["true_start"]) == (0, term, 0)
    assert (fault["said_start"], fault["said_end"]) != (fault["true_start"], fault["true_end"])


def test_a_reduction_without_end_is_right_when_it_is_followed_to_the_limits() -> None:
    found = judged([OMEGA, GROWING], choosing(lambda term, found: found[0]))
    assert found["fate"].to_list() == found["ended"].to_list() == ["fuel_exhausted", "size_capped"]
    assert found["correct"].all()


@given(st.lists(TERMS, min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_whoever_takes_any_redexes_to_a_normal_form_has_the_true_one(terms: list[plain.Term], random: object) -> None:
    texts = [plain.show(term) for term in terms]
    predict = choosing(lambda term, found: random.choice(found) if found else (0, 0))  # type: ignore[attr-defined]
    found = judged(texts, predict, TraceLimits(fuel=12, size_cap=80))
    terminating = found.filter(fate="normal_form")
    announced = terminating.filter(ended="normal_form")
    assert announced["correct"].all()
    assert (announced["last"].struct.field("term") == announced["true_last"]).all()
    assert not terminating.filter(pl.col("ended") != "normal_form")["correct"].any()
    others = found.filter(pl.col("fate") != "normal_form")
    assert (others["correct"] == (others["detours"] == 0)).all()
    followed = found.filter(detours=0)
    assert (followed["steps"] == followed["true_steps"]).all()
    assert (followed["last"].struct.field("term") == followed["true_last"]).all()


@given(TERMS)
def test_the_true_normal_form_is_that_of_the_plain_reducer(term: plain.Term) -> None:
    limits = TraceLimits(fuel=20, size_cap=200)
    found = judged([plain.show(term)], normal_order, limits).row(0, named=True)
    steps = 0
    while (after := plain.step(term)) is not None and steps < limits.fuel:
        if plain.size(after) > limits.size_cap or plain.largest_index(after) > 61:
            break
        term, steps = after, steps + 1
    assert (found["true_last"], found["true_steps"]) == (plain.show(term), steps)
    assert (found["fate"] == "normal_form") == (plain.step(term) is None)


def test_a_term_is_asked_about_once_however_often_it_comes_back() -> None:
    asked: list[str] = []

    def predict(terms: pl.Series) -> Predictions:
        asked.extend(terms)
        return normal_order(terms)

    found = judged([OMEGA, OMEGA, rf"(\.0)({OMEGA})"], predict)
    assert asked == [OMEGA, rf"(\.0)({OMEGA})"]
    assert found["steps"].to_list() == [250, 250, 250]


def test_remembered_answers_are_those_given() -> None:
    terms = generated(500)["term"]
    recall = remembered(normal_order)
    for part in (terms[:300], terms, terms[:0]):
        said, told = normal_order(part), recall(part)
        assert np.array_equal(said.spans, told.spans)
        assert np.array_equal(said.nf_probability, told.nf_probability)


@pytest.mark.parametrize(("term", "fuel"), [(r"(\.0)((\.0)1)", 250), (OMEGA, 2)])
def test_progress_tells_how_many_terms_go_on(term: str, fuel: int) -> None:
    told: list[tuple[int, int]] = []
    limits = TraceLimits(fuel, 600)
    whole_traces(pl.Series([term, "0"]), normal_order, limits, lambda step, active: told.append((step, active)))
    assert told == [(0, 1), (1, 1), (2, 0)]


def test_no_terms_at_all_give_a_summary_of_nothing() -> None:
    summary = trace_summary(judged([], normal_order))
    assert summary["overall"] == {"traces": 0, "correct": None, "detours": 0, "failures": dict.fromkeys(FAILURES, 0)}


@pytest.fixture(scope="module")
def erring() -> pl.DataFrame:
    """Generated traces by a model that errs at random in all ways."""
    rng = np.random.default_rng(3)

    def predict(terms: pl.Series) -> Predictions:
        said = normal_order(terms)
        draw = rng.random((len(terms), 1))
        reducible = said.spans[:, 1:] > 0
        spans = np.where(draw < 0.01, 0, said.spans)
        spans = np.where((draw > 0.99) & reducible, spans - [[0, 1]], spans)
        spans = np.where((draw > 0.95) & ~reducible, [[1, 3]], spans)
        return Predictions(spans, np.where(spans[:, 1] == 0, 0.5 + rng.random(len(terms)) / 2, 0.0))

    return judged(generated(9_000).filter(step_k=0)["term"].to_list(), predict)


def test_every_wrong_trace_has_one_failure_and_bands_add_up(erring: pl.DataFrame) -> None:
    summary = trace_summary(erring)
    whole = summary["overall"]
    assert json.loads(json.dumps(summary)) == summary
    assert whole["traces"] == erring.height > 500
    assert sum(whole["failures"].values()) == (~erring["correct"]).sum() > 50
    assert whole["correct"] == pytest.approx(erring["correct"].mean())
    for name in ("stopped_early", "missed_normal_form", "not_a_redex"):
        assert whole["failures"][name] > 0
    for parts in (summary["by_size"], summary["by_depth"], [summary["terminating"], summary["non_terminating"]]):
        for key in ("traces", "detours"):
            assert sum(part[key] for part in parts) == whole[key]
        for name in FAILURES:
            assert sum(part["failures"][name] for part in parts) == whole["failures"][name]
    assert summary["deeper_than_7"]["traces"] == erring.filter(pl.col("depth") > 7).height
    band = next(entry for entry in summary["by_size"] if entry["band"] == "50-79")
    assert band["traces"] == erring.filter(pl.col("size").is_between(50, 79)).height


def test_the_diagnosis_shows_the_surest_stops_and_the_shortest_of_other_failures(erring: pl.DataFrame) -> None:
    told = diagnosis(erring, 5)
    assert json.loads(json.dumps(told)) == told
    assert {name: entry["traces"] for name, entry in told.items()} == trace_summary(erring)["overall"]["failures"]
    stops = [stop["nf_probability"] for stop in worst(erring, "stopped_early", 1_000)]
    assert stops == sorted(stops, reverse=True)
    assert told["stopped_early"]["examples"] == worst(erring, "stopped_early", 5)
    assert told["stopped_early"]["nf_probability"] == pytest.approx(sum(stops) / len(stops))
    lengths = [len(example["term"]) for example in worst(erring, "not_a_redex", 1_000)]
    assert lengths == sorted(lengths)
    assert told["fuel"]["median_step"] is None


def test_an_example_tells_the_moment_of_the_fault(erring: pl.DataFrame) -> None:
    for example in worst(erring, "not_a_redex", 20):
        found = facts(pl.Series([example["term"]]))
        assert example["true_span"] == [found["found_start"].item(), found["found_end"].item()]
        assert example["predicted_span"] == [example["true_span"][0], example["true_span"][1] - 1]
        assert 0 <= example["step"] <= example["true_steps"]
