"""Small valid scenarios for tests, made without a generator."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from schema.family import identify
from schema.scenario import FAMILY
from schema.scenario.bands import AUTHENTICITY_TARGETS, CAPACITY_LEVELS, SUPPORT_HEADROOM, support_bounds
from schema.scenario.columns import AGE_BANDS

CELLS = list(FAMILY.cells())

# Relations that fit every age band.
_PEOPLE = [
    ("Mara", "older sister"),
    ("Tomas", "neighbour"),
    ("Ines", "manager"),
    ("Joel", "roommate"),
    ("Priya", "colleague"),
    ("Anton", "cousin"),
]
_SETTINGS = ["the kitchen", "the hospital corridor", "the car park", "the laundry room", "the staff room", "the porch"]
_FACTORS = ["poor sleep", "a kind word", "deadline at work", "a long walk", "back pain", "quiet morning", "an old debt"]
_NOUNS = [
    "boxes",
    "letters",
    "lamps",
    "keys",
    "tickets",
    "blankets",
    "ladders",
    "plates",
    "bottles",
    "maps",
    "jackets",
    "cables",
    "candles",
    "drawers",
]
_VERBS = ["carry", "sort", "mend", "count", "pack", "label", "clean", "borrow", "return", "move", "fold", "fetch"]
_TIMES = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
_MOODS = ["rain", "snow", "fog", "traffic", "music", "silence", "dust", "sunlight", "smoke", "laughter"]


def row(number: int, **changes: Any) -> dict[str, Any]:
    """Return a valid scenario of cell `number` mod 128, with texts of its own for every `number`."""
    cell = CELLS[number % len(CELLS)]
    draw = np.random.default_rng(number)
    level = next(band for band in CAPACITY_LEVELS if band.name == cell["capacity_level"])
    target = next(band for band in AUTHENTICITY_TARGETS if band.name == cell["authenticity_target"])
    effective = draw.integers(round(level.low * 10), round(level.high * 10) + 1) / 10
    base, effects = _base_and_effects(effective, draw)
    low, high = support_bounds(target.name, effective)
    score = draw.integers(round(target.low * 100), round(target.high * 100)) / 100
    name, relation = _PEOPLE[draw.integers(len(_PEOPLE))]
    setting = _SETTINGS[draw.integers(len(_SETTINGS))]
    noun, verb, time, mood = (words[draw.integers(len(words))] for words in (_NOUNS, _VERBS, _TIMES, _MOODS))
    other, later, sound = (words[draw.integers(len(words))] for words in (_NOUNS, _TIMES, _MOODS))
    asker = f"Asker{_letters(number)}"
    return {
        "scenario_id": f"hand-{number}",
        "character_name": name,
        "character_age_band": AGE_BANDS[number % len(AGE_BANDS)],
        "character_relation": relation,
        "setting": setting,
        "context": f"{name} stands in {setting} while the {mood} goes on; {asker} comes in with {noun} and {other}. "
        f"To {asker}, {name} is the {relation} who never forgets a {time}.",
        "capacity_factors": [
            {"name": _FACTORS[(number + place) % len(_FACTORS)], "effect": effect}
            for place, effect in enumerate(effects)
        ],
        "base_capacity": base,
        "effective_capacity": effective,
        "capacity_level": level.name,
        "support_needed": round((low + high) / 2, 1),
        "support_possible": round(effective + SUPPORT_HEADROOM, 1),
        "request": f"{name}, {verb} all these {noun} with {asker} before {time}, and the {other} by {later} as well?",
        "response": f"After the {sound} I can {verb} some of it, {asker}, "
        f"but {later} is already spoken for and I will not promise more.",
        "authenticity_score": score,
        "authenticity_target": target.name,
        "complexity_type": cell["complexity_type"],
        "calculation_steps": steps(base, effects),
        "qualitative_anchor": level.anchors[number % len(level.anchors)],
        "generator": "by-hand",
        "seed": 7,
        "chunk": 0,
        **changes,
    }


def steps(base: float, effects: list[float]) -> list[str]:
    """Return the lines that calculate a capacity and the support possible."""
    lines, capacity = [], base
    for effect in effects:
        after = round(capacity + effect, 1)
        lines.append(f"{capacity:.1f} {'-' if effect < 0 else '+'} {abs(effect):.1f} = {after:.1f}")
        capacity = after
    return [*lines, f"support possible: {capacity:.1f} + {SUPPORT_HEADROOM:.1f} = {capacity + SUPPORT_HEADROOM:.1f}"]


def frame(rows: list[dict[str, Any]]) -> pl.DataFrame:
    """Return rows as an identified frame of `FAMILY.wire`."""
    own = {name: [r.get(name) for r in rows] for name in FAMILY.columns}
    return identify(pl.DataFrame(own, schema=FAMILY.columns), FAMILY).select(list(FAMILY.wire))


def valid_rows(count: int, first: int = 0) -> pl.DataFrame:
    """Return `count` valid rows with distinct texts; every 128 consecutive rows have each cell once."""
    return frame([row(number) for number in range(first, first + count)])


def _base_and_effects(effective: float, draw: np.random.Generator) -> tuple[float, list[float]]:
    """Return a base capacity of 0 to 10 and one to three effects, whose sum is `effective`."""
    while True:
        signs = draw.choice([-1, 1], size=draw.integers(1, 4))
        effects = [float(effect) for effect in signs * draw.integers(1, 30, size=signs.size) / 10]
        base = round(effective - sum(effects), 1)
        if 0 <= base <= 10:
            return base, effects


def _letters(number: int) -> str:
    """Return a word of letters only for a number."""
    return "".join(chr(ord("a") + int(digit)) for digit in str(number))
