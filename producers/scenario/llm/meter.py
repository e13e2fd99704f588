"""The cost meter: counts tokens and USD by model and by role, and checks the budgets of a run.

A number that a server did not report is counted as unknown and never estimated.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from schema.settings import Settings

Prices = Mapping[str, tuple[float, float]]

_PER_TOKENS = 1_000_000


@dataclass(frozen=True)
class Usage:
    """The tokens of a call as the server reported them; None if it did not report a number."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None

    @property
    def known(self) -> bool:
        """Whether both numbers are known."""
        return self.prompt_tokens is not None and self.completion_tokens is not None

    def cost_usd(self, prices: Prices, model: str) -> float | None:
        """Return the cost of the tokens in USD; None if a number or the model's price is unknown."""
        if self.prompt_tokens is None or self.completion_tokens is None or model not in prices:
            return None
        prompt, completion = prices[model]
        return (self.prompt_tokens * prompt + self.completion_tokens * completion) / _PER_TOKENS

    def shares(self, count: int) -> list[Usage]:
        """Return `count` parts in whole tokens that add up to this usage."""
        prompt, completion = _split(self.prompt_tokens, count), _split(self.completion_tokens, count)
        return [Usage(*pair) for pair in zip(prompt, completion, strict=True)]


def _split(tokens: int | None, count: int) -> list[int | None]:
    if tokens is None:
        return [None] * count
    each, over = divmod(tokens, count)
    return [each + (index < over) for index in range(count)]


@dataclass
class Totals:
    """Sums over calls; the total cost is unknown if the cost of one call is."""

    calls: int = 0
    calls_without_usage: int = 0
    calls_without_cost: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    costs: list[float] = field(default_factory=list)

    def add(self, usage: Usage, cost_usd: float | None) -> None:
        """Count one call."""
        self.calls += 1
        self.calls_without_usage += not usage.known
        self.prompt_tokens += usage.prompt_tokens or 0
        self.completion_tokens += usage.completion_tokens or 0
        if cost_usd is None:
            self.calls_without_cost += 1
        else:
            self.costs.append(cost_usd)

    @property
    def tokens(self) -> int:
        """The sum of all known prompt and completion tokens."""
        return self.prompt_tokens + self.completion_tokens

    @property
    def cost_usd(self) -> float | None:
        """The cost in USD, or None if the cost of any call is unknown."""
        return None if self.calls_without_cost else math.fsum(self.costs)

    def as_dict(self) -> dict[str, Any]:
        """Return the totals as a dict of JSON values, for reports."""
        return {
            "calls": self.calls,
            "calls_without_usage": self.calls_without_usage,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "cost_usd": self.cost_usd,
        }


class Meter:
    """Counts answered calls: in total, by model, and by role."""

    def __init__(self) -> None:
        self.total = Totals()
        self.by_model: dict[str, Totals] = {}
        self.by_role: dict[str, Totals] = {}

    def add(self, role: str, model: str, usage: Usage, cost_usd: float | None) -> None:
        """Count one answered call."""
        for totals in (
            self.total,
            self.by_model.setdefault(model, Totals()),
            self.by_role.setdefault(role, Totals()),
        ):
            totals.add(usage, cost_usd)

    def calls(self, *roles: str) -> int:
        """Return the number of answered calls of the given roles."""
        return sum(self.by_role[role].calls for role in roles if role in self.by_role)

    def spent(self, settings: Settings) -> str | None:
        """Return an error line if a budget is spent, so that no further call may start; else None."""
        budget_tokens, budget_usd = settings.llm_budget_tokens, settings.llm_budget_usd
        if budget_tokens is None and budget_usd is None:
            return None
        total = self.total
        if total.calls_without_usage:
            return "a reply came without token counts, so no budget can be checked: use a server that reports usage"
        if budget_tokens is not None and total.tokens >= budget_tokens:
            return (
                f"the budget of {budget_tokens:,} tokens is spent ({total.tokens:,}): raise FEEDMILL_LLM_BUDGET_TOKENS"
            )
        if budget_usd is not None and (total.cost_usd is None or total.cost_usd >= budget_usd):
            spent = "unknown amount" if total.cost_usd is None else f"{total.cost_usd:.6f}"
            return f"the budget of {budget_usd:g} USD is spent ({spent}): raise FEEDMILL_LLM_BUDGET_USD"
        return None
