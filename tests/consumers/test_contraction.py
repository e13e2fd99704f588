"""A step at any span of a term's text, compared with the plain reducer and with the producer's traces."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.reduction.contraction import CONTRACTED, NOT_A_REDEX, SIZE_CAPPED, UNRENDERABLE, contract
from producers.reduction.run import ReductionRun
from producers.run import generate
from schema.reduction.text import facts
from tests import plain_reducer as plain
from tests.schema.test_reduction_text import TERMS

CAP = 600


def contracted(text: str, span: tuple[int, int], cap: int = CAP) -> tuple[int, str | None]:
    """Return the verdict on one step, and the term after it."""
    result = contract(pl.Series([text], dtype=pl.String), np.array([span]), cap)
    return int(result.verdicts[0]), result.terms[0]


def redexes(term: plain.Term, place: str = "body", at: int = 0) -> dict[tuple[int, int], plain.Term]:
    """Return {span of a redex: the term after a step there} for every redex of a term."""
    if term[0] == "var":
        return {}
    opened = at + ((term[0] == "abs" and place != "body") or (term[0] == "app" and place == "argument"))
    if term[0] == "abs":
        return {span: ("abs", body) for span, body in redexes(term[1], "body", opened + 2).items()}
    argument_at = opened + len(plain.show(term[1], "function"))
    results = {span: ("app", new, term[2]) for span, new in redexes(term[1], "function", opened).items()}
    results |= {span: ("app", term[1], new) for span, new in redexes(term[2], "argument", argument_at).items()}
    if term[1][0] == "abs":
        after = plain.step(term)
        assert after is not None
        results[opened, opened + len(plain.show(term))] = after
    return results


def expected(after: plain.Term, cap: int) -> tuple[int, str | None]:
    if plain.size(after) > cap:
        return SIZE_CAPPED, None
    if plain.largest_index(after) > 61:
        return UNRENDERABLE, None
    return CONTRACTED, plain.show(after)


@pytest.mark.slow
@given(TERMS, st.integers(1, 60))
def test_a_step_at_any_redex_is_that_of_the_plain_reducer(term: plain.Term, cap: int) -> None:
    text = plain.show(term)
    results = redexes(term)
    spans = np.array(list(results), dtype=np.int64).reshape(-1, 2)
    result = contract(pl.Series([text] * len(results), dtype=pl.String), spans, cap)
    assert list(zip(result.verdicts.tolist(), result.terms.to_list(), strict=True)) == [
        expected(after, cap) for after in results.values()
    ]


@given(TERMS)
def test_only_spans_of_redexes_are_contracted(term: plain.Term) -> None:
    text = plain.show(term)[:60]
    if not plain.is_canonical(text):
        text = "0(\\.00)"
    spans = [(start, end) for start in range(-1, len(text) + 2) for end in range(-1, len(text) + 2)]
    verdicts = contract(pl.Series([text] * len(spans)), np.array(spans), CAP).verdicts
    allowed = {span for span, verdict in zip(spans, verdicts.tolist(), strict=True) if verdict != NOT_A_REDEX}
    assert allowed == set(redexes(plain.read(text)))


@given(st.text("()\\.01Z", max_size=14), st.integers(-3, 16), st.integers(-3, 16))
def test_malformed_text_gives_a_verdict_and_no_exception(text: str, start: int, end: int) -> None:
    verdict, after = contracted(text, (start, end))
    assert (after is None) == (verdict != CONTRACTED)


@pytest.mark.parametrize(
    ("text", "span", "after"),
    [
        (r"(\.00)(\.00)", (0, 12), r"(\.00)(\.00)"),
        (r"\.\.(\.\.1)(\.3)", (4, 16), r"\.\.\.\.4"),
        (r"(\.\.1)01", (0, 8), r"(\.1)1"),
        (r"0((\.0)1)", (2, 8), r"01"),
        (r"0((\.0)(11))", (2, 11), r"0(11)"),
        (r"0((\.0)12)", (2, 8), r"0(12)"),
        (r"(\.0)(12)3", (0, 9), r"123"),
        (r"(\.02)(\.0)", (0, 11), r"(\.0)1"),
        (r"(\.10)(12)", (0, 10), r"0(12)"),
        (r"\." * 300 + r"(\.0)(\.0)", (600, 610), r"\." * 300 + r"\.0"),
        (r"(" + r"\." * 300 + r"0)(\.0)", (0, 608), r"\." * 299 + "0"),
    ],
)
def test_parentheses_are_added_and_removed_as_the_result_needs(text: str, span: tuple[int, int], after: str) -> None:
    assert contracted(text, span) == (CONTRACTED, after)


@pytest.mark.parametrize(
    ("text", "span"),
    [
        (r"(\.0)12", (0, 7)),
        (r"(\.0)12", (0, 5)),
        (r"0((\.0)1)", (1, 9)),
        (r"0(\.0)", (1, 6)),
        (r"0(\.0)1", (1, 7)),
        (r"\.0", (0, 0)),
        (r"(\.0)(\.0)1", (5, 11)),
    ],
)
def test_a_span_that_is_not_a_redex_is_refused(text: str, span: tuple[int, int]) -> None:
    assert contracted(text, span) == (NOT_A_REDEX, None)


def test_index_61_can_be_written_and_62_cannot() -> None:
    assert contracted(r"(\.\.1)Y", (0, 8)) == (CONTRACTED, r"\.Z")
    assert contracted(r"(\.\.1)Z", (0, 8)) == (UNRENDERABLE, None)
    assert contracted(r"(\.\.0)Z", (0, 8)) == (CONTRACTED, r"\.0")


def test_the_size_cap_is_the_largest_allowed_size() -> None:
    term, span = r"(\.000)(\.0)", (0, 12)
    after = r"(\.0)(\.0)(\.0)"
    assert contracted(term, span, 8) == (CONTRACTED, after)
    assert facts(pl.Series([after]))["found_size"].item() == 8
    assert contracted(term, span, 7) == (SIZE_CAPPED, None)


def test_a_null_term_and_an_empty_series_are_accepted() -> None:
    assert contract(pl.Series([None], dtype=pl.String), np.zeros((1, 2), dtype=np.int64), CAP).terms.to_list() == [None]
    assert contract(pl.Series([], dtype=pl.String), np.zeros((0, 2), dtype=np.int64), CAP).terms.len() == 0
    with pytest.raises(ValueError, match="need spans of shape"):
        contract(pl.Series(["0"]), np.zeros((2, 2), dtype=np.int64), CAP)


def test_each_step_of_generated_traces_gives_the_next_term() -> None:
    rows = pl.concat(generate(ReductionRun(count=30_000, seed=97, all_steps=True, fuel=60)))
    after = pl.col("term").shift(-1)
    follows = (pl.col("trace_id") == pl.col("trace_id").shift(-1)) & (
        pl.col("step_k") + 1 == pl.col("step_k").shift(-1)
    )
    pairs = rows.with_columns(after=after, follows=follows).filter("follows")
    assert pairs.height > 20_000
    result = contract(pairs["term"], pairs["span_start", "span_end"].to_numpy().astype(np.int64), CAP)
    assert (result.verdicts == CONTRACTED).all()
    assert result.terms.equals(pairs["after"])


def test_traces_end_at_the_size_cap_as_in_the_producer() -> None:
    rows = pl.concat(generate(ReductionRun(count=60_000, seed=98, all_steps=True)))
    last = rows.filter(outcome="size_capped").filter(pl.col("step_k") == pl.col("steps_total") - 1)
    assert last.height > 0
    spans = last["span_start", "span_end"].to_numpy().astype(np.int64)
    assert set(contract(last["term"], spans, CAP).verdicts.tolist()) == {SIZE_CAPPED}
