"""Whole traces of models that err in known ways, compared with the producer's and the plain reducer's traces."""

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
from producers.reduction.run import ReductionRun
from producers.run import generate
from schema.reduction.text import facts
from tests import plain_reducer as plain
from tests.consumers.test_contraction import redexes
from tests.schema.test_reduction_text import TERMS

Span = tuple[int, int]

LIMITS = TraceLimits(fuel=250, size_cap=600)
OMEGA = r"(\.00)(\.00)"
GROWING = r"(\.000)(\.000)"


def choosing(choose: Callable[[str, list[Span]], Span]) -> Predict:
    """A model that predicts `choose(term, its redexes from left to right, outermost first)`."""

    def predict(terms: pl.Series) -> Predictions:
        spans = [choose(term, sorted(redexes(plain.read(term)), key=lambda s: (s[0], -s[1]))) for term in terms]
        array = np.array(spans, dtype=np.int64).reshape(-1, 2)
        return Predictions(array, np.where(array[:, 1] == 0, 0.75, 0.25))

    return predict


innermost = choosing(lambda term, redexes: redexes[-1] if redexes else (0, 0))


def judged(terms: list[str], predict: Predict, limits: TraceLimits = LIMITS) -> pl.DataFrame:
    return judge(whole_traces(pl.Series(terms, dtype=pl.String), predict, limits))


def generated(count: int = 3_000, seed: int = 41, **changes: int) -> pl.DataFrame:
    return pl.concat(generate(ReductionRun(count=count, seed=seed, **changes)))


def test_normal_order_itself_is_right_on_every_trace_and_ends_as_the_producer_does() -> None:
    rows = generated()
    starts = rows.filter(step_k=0)
    traces = judged(starts["term"].to_list(), normal_order)
    assert traces["correct"].all()
    assert traces["detours"].sum() == 0
    assert traces["fate"].equals(starts["outcome"].alias("fate"))
    assert set(traces["fate"]) >= {"normal_form", "size_capped", "fuel_exhausted"}
    assert traces["size"].equals(starts["size"])
    assert traces["depth"].equals(starts["depth"])
    last = rows.filter(pl.col("step_k") == pl.col("steps_total"))
    reached = starts["trace_id", "outcome"].hstack(traces).filter(outcome="normal_form").join(last, on="trace_id")
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
def test_an_early_stop_is_a_failure_with_its_probability(term: str) -> None:
    traces = judged([term], choosing(lambda term, redexes: (0, 0)))
    assert (traces["correct"].item(), traces["failure"].item(), traces["steps"].item()) == (False, "stopped_early", 0)
    fault = traces["fault"].item()
    assert (fault["term"], fault["true_start"], fault["true_end"]) == (term, 0, len(term))
    assert (fault["said_start"], fault["said_end"], fault["nf_probability"]) == (0, 0, 0.75)


def test_a_model_that_never_stops_misses_the_normal_form() -> None:
    traces = judged([r"\.(\.0)0", OMEGA], choosing(lambda term, redexes: redexes[0] if redexes else (2, 3)))
    assert traces["failure"].to_list() == ["missed_normal_form", None]
    assert traces["fault"][0]["term"] == r"\.0"


def test_pointing_at_a_span_that_is_not_a_redex_ends_a_trace() -> None:
    traces = judged([r"(\.0)(\.0)1", OMEGA], choosing(lambda term, redexes: (redexes[0][0], redexes[0][1] - 1)))
    assert traces["failure"].to_list() == ["not_a_redex"] * 2
    assert traces["steps"].to_list() == [0, 0]


def test_a_detour_that_reaches_the_normal_form_is_right_and_counted() -> None:
    traces = judged([r"(\.0)((\.0)1)"], innermost)
    assert (traces["correct"].item(), traces["detours"].item(), traces["steps"].item()) == (True, 1, 2)
    assert traces["fault"].item() is None
    assert traces["first_detour"].item()["said_start"] == 6


@pytest.mark.parametrize(
    ("term", "failure"),
    [(rf"(\.1)({OMEGA})", "fuel"), (rf"(\.1)({GROWING})", "wrong_redex"), (rf"{OMEGA}((\.0)1)", "wrong_redex")],
)
def test_a_detour_that_leads_nowhere_is_shown_where_it_was_taken(term: str, failure: str) -> None:
    traces = judged([r"(\.0)1", term], innermost)
    assert traces["failure"].to_list() == [None, failure]
    fault = traces["fault"][1]
    assert (fault["step"], fault["term"], fault["true_start"]) == (0, term, 0)
    assert (fault["said_start"], fault["said_end"]) != (fault["true_start"], fault["true_end"])


def test_a_reduction_without_end_is_right_when_it_is_followed_to_the_limits() -> None:
    traces = judged([OMEGA, GROWING], choosing(lambda term, redexes: redexes[0]))
    assert traces["fate"].to_list() == traces["ended"].to_list() == ["fuel_exhausted", "size_capped"]
    assert traces["correct"].all()


@given(st.lists(TERMS, min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_any_order_of_redexes_to_a_normal_form_gives_the_true_one(terms: list[plain.Term], random: object) -> None:
    texts = [plain.show(term) for term in terms]
    predict = choosing(lambda term, redexes: random.choice(redexes) if redexes else (0, 0))  # type: ignore[attr-defined]
    traces = judged(texts, predict, TraceLimits(fuel=12, size_cap=80))
    terminating = traces.filter(fate="normal_form")
    announced = terminating.filter(ended="normal_form")
    assert announced["correct"].all()
    assert (announced["last"].struct.field("term") == announced["true_last"]).all()
    assert not terminating.filter(pl.col("ended") != "normal_form")["correct"].any()
    others = traces.filter(pl.col("fate") != "normal_form")
    assert (others["correct"] == (others["detours"] == 0)).all()
    followed = traces.filter(detours=0)
    assert (followed["steps"] == followed["true_steps"]).all()
    assert (followed["last"].struct.field("term") == followed["true_last"]).all()


@given(TERMS)
def test_the_true_normal_form_equals_that_of_the_plain_reducer(term: plain.Term) -> None:
    limits = TraceLimits(fuel=20, size_cap=200)
    trace = judged([plain.show(term)], normal_order, limits).row(0, named=True)
    steps = 0
    while (after := plain.step(term)) is not None and steps < limits.fuel:
        if plain.size(after) > limits.size_cap or plain.largest_index(after) > 61:
            break
        term, steps = after, steps + 1
    assert (trace["true_last"], trace["true_steps"]) == (plain.show(term), steps)
    assert (trace["fate"] == "normal_form") == (plain.step(term) is None)


def test_a_term_that_comes_back_is_predicted_once() -> None:
    asked: list[str] = []

    def predict(terms: pl.Series) -> Predictions:
        asked.extend(terms)
        return normal_order(terms)

    traces = judged([OMEGA, OMEGA, rf"(\.0)({OMEGA})"], predict)
    assert asked == [OMEGA, rf"(\.0)({OMEGA})"]
    assert traces["steps"].to_list() == [250, 250, 250]


def test_remembered_predictions_equal_the_first_ones() -> None:
    terms = generated(500)["term"]
    recall = remembered(normal_order)
    for part in (terms[:300], terms, terms[:0]):
        first, again = normal_order(part), recall(part)
        assert np.array_equal(first.spans, again.spans)
        assert np.array_equal(first.nf_probability, again.nf_probability)


@pytest.mark.parametrize(("term", "fuel"), [(r"(\.0)((\.0)1)", 250), (OMEGA, 2)])
def test_progress_reports_how_many_terms_continue(term: str, fuel: int) -> None:
    reported: list[tuple[int, int]] = []
    limits = TraceLimits(fuel, 600)
    whole_traces(pl.Series([term, "0"]), normal_order, limits, lambda step, active: reported.append((step, active)))
    assert reported == [(0, 1), (1, 1), (2, 0)]


def test_a_summary_of_no_terms_is_empty() -> None:
    summary = trace_summary(judged([], normal_order))
    assert summary["overall"] == {"traces": 0, "correct": None, "detours": 0, "failures": dict.fromkeys(FAILURES, 0)}


@pytest.fixture(scope="module")
def erring() -> pl.DataFrame:
    """Generated traces by a model that errs at random in all ways."""
    rng = np.random.default_rng(3)

    def predict(terms: pl.Series) -> Predictions:
        answers = normal_order(terms)
        draw = rng.random((len(terms), 1))
        reducible = answers.spans[:, 1:] > 0
        spans = np.where(draw < 0.01, 0, answers.spans)
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


def test_the_diagnosis_shows_the_most_probable_stops_and_the_shortest_other_failures(erring: pl.DataFrame) -> None:
    classes = diagnosis(erring, 5)
    assert json.loads(json.dumps(classes)) == classes
    assert {name: entry["traces"] for name, entry in classes.items()} == trace_summary(erring)["overall"]["failures"]
    stops = [stop["nf_probability"] for stop in worst(erring, "stopped_early", 1_000)]
    assert stops == sorted(stops, reverse=True)
    assert classes["stopped_early"]["examples"] == worst(erring, "stopped_early", 5)
    assert classes["stopped_early"]["nf_probability"] == pytest.approx(sum(stops) / len(stops))
    lengths = [len(example["term"]) for example in worst(erring, "not_a_redex", 1_000)]
    assert lengths == sorted(lengths)
    assert classes["fuel"]["median_step"] is None


def test_an_example_has_the_moment_of_the_fault(erring: pl.DataFrame) -> None:
    for example in worst(erring, "not_a_redex", 20):
        true_facts = facts(pl.Series([example["term"]]))
        assert example["true_span"] == [true_facts["found_start"].item(), true_facts["found_end"].item()]
        assert example["predicted_span"] == [example["true_span"][0], example["true_span"][1] - 1]
        assert 0 <= example["step"] <= example["true_steps"]
