"""Prompts for a model: shared rules, one line for each scenario, and the JSON schema of the answer.

By `estimated_tokens`, which errs on the high side, the rules take under 300 tokens, and with five lines about 500.
Every answer must repeat the id of its line.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from schema.scenario.bands import AUTHENTICITY_TARGETS, CAPACITY_LEVELS, SUPPORT_HEADROOM, support_bounds
from schema.scenario.columns import AGE_BANDS

Message = dict[str, str]
Cell = Mapping[str, str]

# Scenarios per call, for the target of 20 calls per 100 examples.
SCENARIOS_PER_CALL = 5

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
    "For each scene, score from 0 to 1 how well its text fits its numbers. Capacity and support are points out of 10: "
    f"a character at X can provide up to X+{SUPPORT_HEADROOM:g}. authenticity is 0 to 1: how true the response is to "
    "what the character can give. Answer with a score for every id."
)

# A capacity at which no bound of the support needed is clipped, so a bound minus this value is the bound's offset.
_MIDDLE = 5.0

# English prose has about 4.2 characters per token; ids, numbers and names have fewer.
_CHARACTERS_PER_TOKEN = 3.5


def estimated_tokens(text: str) -> int:
    """Estimate the tokens of an English text, on the high side: one for every 3.5 characters."""
    return -(-len(text) * 2 // int(_CHARACTERS_PER_TOKEN * 2))


def writing(asked: Mapping[str, Cell], faults: Mapping[str, str]) -> list[Message]:
    """Return the messages that ask for scenarios.

    `asked` is {id: {axis: bin}}. `faults` is {id: the fault of its last answer}, for ids with a refused answer.
    """
    lines = "\n".join(
        _line(name, cell) + (f"; wrong last time: {faults[name]}" if name in faults else "")
        for name, cell in asked.items()
    )
    return [{"role": "system", "content": RULES}, {"role": "user", "content": lines}]


def _line(name: str, cell: Cell) -> str:
    level = next(band for band in CAPACITY_LEVELS if band.name == cell["capacity_level"])
    target = next(band for band in AUTHENTICITY_TARGETS if band.name == cell["authenticity_target"])
    # The upper bound belongs to the next target, except for the last target.
    high = target.high if target is AUTHENTICITY_TARGETS[-1] else target.high - 0.01
    least, most = (bound - _MIDDLE for bound in support_bounds(target.name, _MIDDLE))
    floor = ", at least 1.0" if target.name == "excellent" else ""
    kind = cell["complexity_type"]
    return (
        f"{name}: C {level.low}-{level.high}; support_needed C{least:+.1f} to C{most:+.1f}{floor}; "
        f"score {target.low:.2f}-{high:.2f} ({_READINGS[target.name]}); type {kind} ({_MANNERS[kind]})"
    )


def writing_schema(asked: Mapping[str, Cell]) -> dict[str, Any]:
    """Return the JSON schema of the answer to `writing`: all properties required, no others allowed."""
    levels = {cell["capacity_level"] for cell in asked.values()}
    anchors = [anchor for band in CAPACITY_LEVELS if band.name in levels for anchor in band.anchors]
    kinds = sorted({cell["complexity_type"] for cell in asked.values()})
    text, number = {"type": "string"}, {"type": "number"}
    factor = _closed({"name": text, "effect": number})
    scenario = _closed(
        {
            "id": {"type": "string", "enum": list(asked)},
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
            "complexity_type": {"type": "string", "enum": kinds},
            "request": text,
            "response": text,
            "authenticity_score": number,
        }
    )
    return _closed({"scenarios": {"type": "array", "items": scenario}})


def validating(scenes: Sequence[Mapping[str, Any]]) -> list[Message]:
    """Return the messages that ask for scores of scenes; each scene is a dict of JSON values with an `id`."""
    lines = "\n".join(json.dumps(scene, ensure_ascii=False) for scene in scenes)
    return [{"role": "system", "content": _VALIDATION_RULES}, {"role": "user", "content": lines}]


def validation_schema(ids: Sequence[str]) -> dict[str, Any]:
    """Return the JSON schema of the answer to `validating`."""
    score = _closed({"id": {"type": "string", "enum": list(ids)}, "score": {"type": "number"}})
    return _closed({"scores": {"type": "array", "items": score}})


def _closed(properties: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": dict(properties),
        "required": list(properties),
        "additionalProperties": False,
    }
