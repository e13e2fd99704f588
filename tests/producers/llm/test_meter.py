"""The meter keeps exact totals, counts unknown numbers as unknown, and reports a spent budget."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producers.scenario.llm.meter import Meter, Usage
from schema.settings import load_settings

PRICES = {"priced": (2.0, 10.0)}
TOKENS = st.integers(0, 10**9)


@given(TOKENS, TOKENS, st.integers(1, 50))
def test_shares_are_whole_and_add_up(prompt: int, completion: int, count: int) -> None:
    shares = Usage(prompt, completion).shares(count)
    assert len(shares) == count
    assert sum(share.prompt_tokens or 0 for share in shares) == prompt
    assert sum(share.completion_tokens or 0 for share in shares) == completion
    assert max(share.prompt_tokens or 0 for share in shares) - min(share.prompt_tokens or 0 for share in shares) <= 1


def test_unknown_tokens_have_unknown_shares_and_cost() -> None:
    assert Usage(None, 5).shares(2) == [Usage(None, 3), Usage(None, 2)]
    assert Usage(None, 5).cost_usd(PRICES, "priced") is None
    assert Usage(5, 5).cost_usd(PRICES, "another") is None
    assert Usage(1_000_000, 100_000).cost_usd(PRICES, "priced") == pytest.approx(3.0)


@given(st.lists(st.tuples(st.sampled_from(["priced", "free"]), st.sampled_from(["simple", "complex"]), TOKENS, TOKENS)))
def test_models_and_roles_both_add_up_to_the_total(calls: list[tuple[str, str, int, int]]) -> None:
    prices = {"priced": (2.0, 10.0), "free": (0.0, 0.0)}
    meter = Meter()
    for model, role, prompt, completion in calls:
        usage = Usage(prompt, completion)
        meter.add(role, model, usage, usage.cost_usd(prices, model))
    assert meter.total.tokens == sum(prompt + completion for _, _, prompt, completion in calls)
    for parts in (meter.by_model, meter.by_role):
        assert sum(totals.tokens for totals in parts.values()) == meter.total.tokens
        assert sum(totals.calls for totals in parts.values()) == len(calls)
        costs = [totals.cost_usd for totals in parts.values()]
        assert math.fsum(cost for cost in costs if cost is not None) == pytest.approx(meter.total.cost_usd)


def test_one_call_of_unknown_cost_makes_its_totals_cost_unknown() -> None:
    meter = Meter()
    meter.add("simple", "a", Usage(10, 10), 0.5)
    meter.add("simple", "b", Usage(), None)
    assert meter.by_model["a"].cost_usd == 0.5
    assert meter.by_model["b"].as_dict() == {
        "calls": 1,
        "calls_without_usage": 1,
        "prompt_tokens": 0,
        "completion_tokens": 0,
        "cost_usd": None,
    }
    assert meter.total.cost_usd is None


def test_a_budget_is_spent_once_its_sum_is_reached() -> None:
    settings = load_settings(llm_budget_tokens=100, llm_budget_usd=1.0)
    meter = Meter()
    assert meter.spent(load_settings()) is None
    meter.add("simple", "a", Usage(50, 49), 0.1)
    assert meter.spent(settings) is None
    meter.add("simple", "a", Usage(1, 0), 0.1)
    assert "FEEDMILL_LLM_BUDGET_TOKENS" in (meter.spent(settings) or "")
    assert meter.spent(load_settings(llm_budget_tokens=101)) is None
    assert "FEEDMILL_LLM_BUDGET_USD" in (meter.spent(load_settings(llm_budget_usd=0.2)) or "")
    meter.add("simple", "a", Usage(), None)
    assert "reports usage" in (meter.spent(load_settings(llm_budget_tokens=10**9)) or "")
