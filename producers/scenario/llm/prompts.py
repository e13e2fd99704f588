"""Prompts: which model writes which type, the shared rules, a line per scenario, and the JSON schema of the answer.

By `estimated_tokens`, which errs on the high side, the rules take under 300 tokens, the form with its example under
170, and a line about 60. The rules state the form for servers that ignore the schema. Scenarios have ids by position,
so rules and schema are the same in every call of a size, and servers can cache them.

Some servers silently cut off a prompt that exceeds their context; `ContextWatch` detects that.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from producers.scenario.llm.answers import Cell, Row, positions
from schema.errors import ConfigError
from schema.scenario.bands import (
    AUTHENTICITY_TARGETS,
    CAPACITY_LEVELS,
    COMPLEXITY_TYPES,
    SUPPORT_HEADROOM,
    support_bounds,
)
from schema.scenario.columns import AGE_BANDS
from schema.scenario.decimals import SCORE_HUNDREDTHS
from schema.settings import LLM_ROLES, Settings

Message = dict[str, str]

SIMPLE, COMPLEX, VALIDATION = LLM_ROLES
WRITING_ROLES = (SIMPLE, COMPLEX)

# In these types characters say what they mean. The other types have a hidden meaning, which small models seldom write
# well.
_SIMPLE_TYPES = frozenset({"baseline", "misjudgment_over", "misjudgment_under", "emergency_override"})

RULES = (
    "Write short scenes in which a character is asked for support: one for each line of the list, under its id. "
    f"Capacities are points, 0 to 10. A character at X/10 can provide up to (X+{SUPPORT_HEADROOM:g})/10.\n"
    "capacity_factors: 1 to 4, each a name and a signed effect with one decimal, never 0. base_capacity plus all "
    "effects is the effective capacity C, inside the line's range.\n"
    "support_needed: one decimal, inside the line's range.\n"
    "authenticity_score: two decimals, inside the line's range; the response must read like it.\n"
    'calculation_steps: from the base, one line for each effect, then the stretch: "6.0 - 1.5 = 4.5", '
    f'"4.5 + {SUPPORT_HEADROOM:.1f} = {4.5 + SUPPORT_HEADROOM:.1f}".\n'
    'setting: a place, such as "the hospital corridor". context: 2 or 3 sentences with the character\'s name, the '
    "setting word for word, and the factors. request: what the character is asked, in the asker's words. response: "
    "what the character answers, 2 or 3 sentences, in the manner of the line's type. relation: what the character is "
    "to the asker. Vary people, places and words."
)

_EXAMPLE = {
    "id": "s1",
    "name": "Ana",
    "age_band": "26-35",
    "relation": "sister",
    "setting": "the kitchen",
    "context": "Ana sits in the kitchen. ...",
    "capacity_factors": [{"name": "poor sleep", "effect": -1.5}],
    "base_capacity": 6.0,
    "calculation_steps": ["6.0 - 1.5 = 4.5", "4.5 + 2.0 = 6.5"],
    "anchor": "steady but tired",
    "support_needed": 5.0,
    "complexity_type": "baseline",
    "request": "...",
    "response": "...",
    "authenticity_score": 0.72,
}
FORM = (
    f"Answer with JSON only, in this form: {json.dumps({'scenarios': [_EXAMPLE]})}. "
    f"age_band is one of {', '.join(AGE_BANDS)}."
)

_MANNERS = {
    "baseline": "a plain answer",
    "people_pleasing": "agrees so as to be liked",
    "misjudgment_over": "thinks they can give more than they can",
    "misjudgment_under": "thinks they can give less than they can",
    "defensive_lashing": "feels attacked and snaps",
    "emergency_override": "an emergency comes before their limits",
    "cultural_indirect": "says it indirectly, as custom asks",
    "mixed_emotions": "torn between two feelings",
}
_READINGS = {
    "failed": "hollow",
    "struggling": "strained",
    "authentic": "honest about limits",
    "excellent": "true and generous",
}

_VALIDATION_RULES = (
    "For each scene, score from 0 to 1 how well its text fits its numbers. Capacity and support are points: "
    f"a character with capacity X can provide support up to X+{SUPPORT_HEADROOM:g}. authenticity is 0 to 1: how true "
    "the response is to what the character can give. Answer with a score for every id, with JSON only, in this form: "
    '{"scores": [{"id": "s1", "score": 0.8}]}'
)

# {column of a row: its name in the prompt of a validation model}.
_SHOWN = {
    "context": "context",
    "request": "request",
    "response": "response",
    "effective_capacity": "capacity",
    "support_needed": "support_needed",
    "authenticity_score": "authenticity",
    "complexity_type": "type",
}

# A capacity at which no bound of the support needed is clipped, so a bound minus this value is the bound's offset.
_MIDDLE = 5.0

# Prose has 3 to 5 characters per token in any common vocabulary, so above this ratio a part is missing.
_MOST_CHARACTERS_PER_TOKEN = 8.0
# Similar prompts have at most this many times the characters per token of the densest one.
_MOST_TIMES_DENSEST = 1.5
# English prose has about 4.2 characters per token; ids, numbers and names have fewer.
_CHARACTERS_PER_TOKEN = 3.5


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


def request_parameters(settings: Settings, role: str) -> dict[str, Any]:
    """Return the parameters of `llm_request` for the requests of a role: the shared ones, then the role's own.

    Example::

        settings = load_settings(llm_request={"temperature": 0.7, "validation": {"temperature": 0}})
        request_parameters(settings, "validation")  # {"temperature": 0}
    """
    shared = {name: value for name, value in settings.llm_request.items() if name not in LLM_ROLES}
    return {**shared, **settings.llm_request.get(role, {})}


def estimated_tokens(text: str) -> int:
    """Estimate the tokens of an English text, on the high side: one for every 3.5 characters."""
    return -(-len(text) * 2 // int(_CHARACTERS_PER_TOKEN * 2))


def writing(asked: Mapping[str, Cell], faults: Mapping[str, str]) -> list[Message]:
    """Return the messages that ask for scenarios, by the ids of `answers.positions`.

    `asked` is {id: {axis: bin}}. `faults` is {id: the fault of its last answer}, for ids with a refused answer.
    """
    lines = "\n".join(
        _line(position, asked[name]) + (f"; wrong last time: {faults[name]}" if name in faults else "")
        for position, name in zip(positions(len(asked)), asked, strict=True)
    )
    return [{"role": "system", "content": f"{RULES}\n{FORM}"}, {"role": "user", "content": lines}]


def _line(position: str, cell: Cell) -> str:
    level = next(band for band in CAPACITY_LEVELS if band.name == cell["capacity_level"])
    target = next(band for band in AUTHENTICITY_TARGETS if band.name == cell["authenticity_target"])
    lowest, highest = SCORE_HUNDREDTHS[AUTHENTICITY_TARGETS.index(target)] / 100
    least, most = (bound - _MIDDLE for bound in support_bounds(target.name, _MIDDLE))
    floor = ", at least 1.0" if target.name == "excellent" else ""
    kind = cell["complexity_type"]
    return (
        f"{position}: C {level.low}-{level.high}; support_needed C{least:+.1f} to C{most:+.1f}{floor}; "
        f"score {lowest:.2f}-{highest:.2f} ({_READINGS[target.name]}); type {kind} ({_MANNERS[kind]}); "
        f"anchor: {' or '.join(level.anchors)}"
    )


@cache
def writing_schema(count: int) -> Mapping[str, Any]:
    """Return the JSON schema of the answer to `writing` for `count` scenarios, the same object for each count.

    All properties are required, and no others are allowed.
    """
    anchors = [anchor for band in CAPACITY_LEVELS for anchor in band.anchors]
    text, number = {"type": "string"}, {"type": "number"}
    factor = _closed({"name": text, "effect": number})
    scenario = _closed(
        {
            "id": {"type": "string", "enum": positions(count)},
            "name": text,
            "age_band": {"type": "string", "enum": list(AGE_BANDS)},
            "relation": text,
            "setting": text,
            "context": text,
            "capacity_factors": {"type": "array", "items": factor},
            "base_capacity": number,
            "calculation_steps": {"type": "array", "items": text},
            "anchor": {"type": "string", "enum": anchors},
            "support_needed": number,
            "complexity_type": {"type": "string", "enum": list(COMPLEXITY_TYPES)},
            "request": text,
            "response": text,
            "authenticity_score": number,
        }
    )
    return _closed({"scenarios": {"type": "array", "items": scenario}})


def validating(rows: Mapping[str, Row]) -> list[Message]:
    """Return the messages that ask for the scores of written rows, {id: row}, by the ids of `answers.positions`."""
    scenes = [
        {"id": position, **{shown: row[column] for column, shown in _SHOWN.items()}}
        for position, row in zip(positions(len(rows)), rows.values(), strict=True)
    ]
    lines = "\n".join(json.dumps(scene, ensure_ascii=False) for scene in scenes)
    return [{"role": "system", "content": _VALIDATION_RULES}, {"role": "user", "content": lines}]


@cache
def validation_schema(count: int) -> Mapping[str, Any]:
    """Return the JSON schema of the answer to `validating` for `count` rows, the same object for each count."""
    score = _closed({"id": {"type": "string", "enum": positions(count)}, "score": {"type": "number"}})
    return _closed({"scores": {"type": "array", "items": score}})


def _closed(properties: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": dict(properties),
        "required": list(properties),
        "additionalProperties": False,
    }


class ContextWatch:
    """Detects truncated prompts: compares, by model, the prompt tokens that servers report with the characters sent.

    Some servers leave cached tokens out of their reports. A prompt that is no longer than a complete one to the same
    model is complete, too.
    """

    def __init__(self) -> None:
        self._densest: dict[str, float] = {}
        # {model: {characters of a prompt: the fewest characters per token reported for this length}}.
        self._seen: dict[str, dict[int, float]] = {}
        self._unwatched: set[str] = set()

    def leave_out(self, model: str) -> None:
        """Trust the prompts to `model` from now on, because it reports too few tokens for complete prompts."""
        self._unwatched.add(model)

    def is_truncated(
        self, model: str, messages: Sequence[Mapping[str, str]], prompt_tokens: int | None, *, alike: bool
    ) -> bool:
        """Whether the reported prompt tokens are too few; False if they are unknown.

        Prompts that are `alike`, all our own English, are also compared with each other; others may be in any language.
        """
        if not prompt_tokens or model in self._unwatched:
            return False
        length = sum(len(message["content"]) for message in messages)
        ratio = length / prompt_tokens
        if not alike:
            return ratio > _MOST_CHARACTERS_PER_TOKEN
        densest = self._densest[model] = min(ratio, self._densest.get(model, ratio))
        seen = self._seen.setdefault(model, {})
        seen[length] = min(ratio, seen.get(length, ratio))
        most = min(_MOST_CHARACTERS_PER_TOKEN, _MOST_TIMES_DENSEST * densest)
        return not any(other >= length and least <= most for other, least in seen.items())
