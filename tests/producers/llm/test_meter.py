"""The meter keeps exact totals, counts unknown numbers as unknown, and reports a spent budget."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producers.scenario.llm.client import ModelClient, RetryPolicy, retry_after_s
from producers.scenario.llm.context import ContextWatch
from producers.scenario.llm.meter import Meter, Usage
from producers.scenario.llm.routing import models
from schema.errors import ConfigError
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


def test_a_budget_in_money_needs_every_price() -> None:
    prices = {"s": (1.0, 1.0), "c": (1.0, 1.0)}
    named = {"llm_model_simple": "s", "llm_model_complex": "c", "llm_budget_usd": 1.0, "llm_prices": prices}
    assert models(load_settings(**named)) == {"simple": "s", "complex": "c"}
    with pytest.raises(ConfigError, match="price of v: set FEEDMILL_LLM_PRICES"):
        models(load_settings(**named, llm_model_validation="v"))


NOW = datetime(2030, 1, 1, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("3", 3.0),
        ("0.5", 0.5),
        ("-4", 0.0),
        (format_datetime(NOW + timedelta(seconds=90), usegmt=True), 90.0),
        (format_datetime(NOW - timedelta(seconds=90), usegmt=True), 0.0),
        ("Tue, 01 Jan 2030 12:00:07 -0000", 7.0),
        ("soon", None),
        ("inf", None),
        ("nan", None),
        ("", None),
        (None, None),
    ],
)
def test_retry_after_is_read_in_both_its_forms(value: str | None, seconds: float | None) -> None:
    assert retry_after_s(value, NOW) == seconds


def test_a_prompt_with_too_few_reported_tokens_counts_as_truncated() -> None:
    watch = ContextWatch()
    prompt = [{"role": "system", "content": "x" * 800}, {"role": "user", "content": "y" * 800}]
    assert not watch.is_truncated("m", prompt, None, alike=True)
    assert watch.is_truncated("m", prompt, 199, alike=True)
    assert not watch.is_truncated("m", prompt, 200, alike=True)
    # A denser prompt of the same model lowers the limit for similar prompts, but not for other models or prompts.
    assert not watch.is_truncated("m", prompt, 400, alike=True)
    assert watch.is_truncated("m", prompt, 260, alike=True)
    assert not watch.is_truncated("another", prompt, 260, alike=True)
    assert not watch.is_truncated("m", prompt, 260, alike=False)
    assert not watch.is_truncated("m", prompt, 1600, alike=False)
    assert not watch.is_truncated("m", prompt, 300, alike=True)


@pytest.mark.parametrize(
    "settings",
    [
        {"llm_base_url": "::::"},
        {"llm_base_url": "http://[::1"},
        {"llm_base_url": "ftp://host/v1"},
        {"llm_base_url": "localhost:11434/v1"},
        {"llm_base_url": "http://127.0.0.1:99999/v1"},
        {"llm_base_url": ""},
        {"llm_api_key": "not ascii: \xe9\xe8"},
        {"llm_api_key": "two\nlines"},
    ],
)
def test_an_invalid_url_or_key_is_refused_at_once(settings: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="FEEDMILL_LLM_") as caught:
        ModelClient(load_settings(**settings), RetryPolicy(), 1)
    assert settings.get("llm_api_key", "-" * 9) not in str(caught.value)


def test_credentials_in_the_url_are_not_shown() -> None:
    settings = load_settings(llm_base_url="https://me:hidden@host:8443/v1?key=hidden")
    assert ModelClient(settings, RetryPolicy(), 1).url == "https://host:8443/v1"
