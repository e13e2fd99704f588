from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.training.budget import Budget
from schema.errors import UsageError


@given(st.integers(1, 2000), st.integers(0, 200))
def test_the_rate_rises_to_its_highest_and_falls_towards_0(steps: int, warmup: int) -> None:
    rates = [Budget(steps=steps).rate(step, 0.0, warmup) for step in range(steps)]
    assert max(rates) == pytest.approx(1)
    top = rates.index(max(rates))
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert all(0 < rate <= 1 for rate in rates)
    assert top <= steps // 4


@given(st.integers(1, 1000), st.floats(0, 1e6))
def test_a_budget_of_steps_does_not_depend_on_time(steps: int, elapsed_s: float) -> None:
    budget = Budget(steps=steps)
    assert budget.rate(steps // 2, elapsed_s, 10) == budget.rate(steps // 2, 0.0, 10)
    assert not budget.is_over(steps - 1, elapsed_s)
    assert budget.is_over(steps, elapsed_s)


def test_the_limit_reached_first_ends_the_run_and_lowers_the_rate() -> None:
    budget = Budget(steps=100, seconds=10.0)
    assert budget.is_over(3, 10.0)
    assert budget.is_over(100, 1.0)
    assert not budget.is_over(99, 9.9)
    assert budget.rate(40, 9.99, 10) < 1e-4
    assert budget.rate(99, 0.0, 10) < 1e-3
    assert Budget(seconds=10.0).rate(40, 5.0, 10) == pytest.approx(0.5)


@pytest.mark.parametrize("nothing", [{}, {"steps": 0}, {"seconds": 0.0}])
def test_a_budget_without_a_limit_or_with_a_limit_of_0_is_refused(nothing: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="training needs"):
        Budget(**nothing)  # type: ignore[arg-type]
