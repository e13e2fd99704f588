from __future__ import annotations

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from consumers.sequence.mixing import last_quotas, quotas, shares

weights = st.lists(st.floats(0.001, 1000), min_size=1, max_size=5)


@given(weights, st.integers(1, 100_000))
def test_quotas_fill_the_window_with_every_share_to_within_one_row(weights: list[float], rows: int) -> None:
    counts = quotas(weights, rows)
    assert sum(counts) == rows
    assert all(abs(count - share * rows) < 1 for count, share in zip(counts, shares(weights), strict=True))


def test_shares_are_the_fractions_that_were_meant() -> None:
    assert shares([0.8, 0.2]) == [Fraction(4, 5), Fraction(1, 5)]
    assert shares([0.1, 0.3]) == [Fraction(1, 4), Fraction(3, 4)]
    assert quotas([0.8, 0.2], 1000) == [800, 200]


@given(st.data(), weights, st.integers(1, 10_000))
def test_the_last_window_keeps_the_shares_and_takes_all_of_the_scarcest(
    data: st.DataObject, weights: list[float], rows: int
) -> None:
    full = quotas(weights, rows)
    have = [data.draw(st.integers(0, count)) for count in full]
    lasting = data.draw(st.lists(st.booleans(), min_size=len(weights), max_size=len(weights)).filter(any))
    kept = last_quotas(weights, have, lasting)
    assert all(0 <= taken <= had for taken, had in zip(kept, have, strict=True))
    assert any(kept[index] == have[index] for index in range(len(weights)) if lasting[index])


def test_one_source_loses_no_row() -> None:
    assert last_quotas([0.3], [17], [True]) == [17]


def test_the_other_sources_give_in_proportion_to_the_one_that_runs_out() -> None:
    assert last_quotas([0.8, 0.2], [40, 100], [True, False]) == [40, 10]
    assert last_quotas([0.5, 0.5], [40, 10], [True, True]) == [10, 10]
