"""Choose models: a role for each complexity type, and a model for each role."""

from __future__ import annotations

from schema.errors import ConfigError
from schema.scenario.bands import COMPLEXITY_TYPES
from schema.settings import Settings

SIMPLE, COMPLEX, VALIDATION = ROLES = ("simple", "complex", "validation")
WRITING_ROLES = (SIMPLE, COMPLEX)

# In these types characters say what they mean. The other types have a hidden meaning, which small models seldom write
# well.
_SIMPLE_TYPES = frozenset({"baseline", "misjudgment_over", "misjudgment_under", "emergency_override"})


def role_of(complexity_type: str) -> str:
    """Return the role that writes a complexity type.

    Raises:
        KeyError: the type does not exist.
    """
    if complexity_type not in COMPLEXITY_TYPES:
        raise KeyError(complexity_type)
    return SIMPLE if complexity_type in _SIMPLE_TYPES else COMPLEX


def models(settings: Settings) -> dict[str, str]:
    """Return the model of each role; the validation role is absent if no model is set for it.

    Raises:
        ConfigError: a budget in USD is set, but a model has no price.
    """
    chosen = {SIMPLE: settings.llm_model_simple, COMPLEX: settings.llm_model_complex}
    if settings.llm_model_validation is not None:
        chosen[VALIDATION] = settings.llm_model_validation
    unpriced = sorted(set(chosen.values()) - set(settings.llm_prices))
    if settings.llm_budget_usd is not None and unpriced:
        raise ConfigError(
            f"a budget in USD needs the price of {', '.join(unpriced)}: set FEEDMILL_LLM_PRICES, or a budget in "
            "tokens with FEEDMILL_LLM_BUDGET_TOKENS instead"
        )
    return chosen
