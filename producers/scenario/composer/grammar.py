"""The composer's grammar: all slots of a scenario's texts, and the rules that choose each slot's pool."""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt

from producers.scenario.composer import complexity_phrases, factors, replies, reply_frames, requests, scenes, tasks
from producers.scenario.composer.engine import PhraseGrammar, PhraseSlot
from producers.scenario.draws import Draws
from producers.scenario.numbers import MAX_FACTORS_COMPOSED, Numbers
from schema.scenario import vocabulary
from schema.scenario.bands import CAPACITY_LEVELS, COMPLEXITY_TYPES

Array = npt.NDArray[np.int64]

CONTEXTS = (
    "{scene} {anchored} {detail} {factors} {cue}",
    "{scene} {factors} {anchored} {detail} {cue}",
    "{scene} {cue} {factors} {anchored} {detail}",
    "{scene} {anchored} {factors} {detail} {cue}",
    "{scene} {detail} {anchored} {cue} {factors}",
    "{scene} {cue} {anchored} {detail} {factors}",
    "{scene} {factors} {cue} {anchored} {detail}",
)
REQUESTS = (
    "{opening} {ask} {reason} {pressure}",
    "{opening} {ask} {pressure} {reason}",
    "{opening} {ask} {reason}",
    "{opening} {ask} {pressure}",
)
RESPONSES = (
    "{beginning} {move} {stand} {closing}",
    "{beginning} {stand} {move} {closing}",
    "{move} {stand} {closing}",
    "{beginning} {move} {closing} {stand}",
    "{beginning} {stand} {closing} {move}",
)
_EMERGENCY = COMPLEXITY_TYPES.index("emergency_override")
# The pools of a factor, and the index of the first pool with positive effects.
_FACTORS = (factors.DRAINS_MINOR, factors.DRAINS_MAJOR, factors.GIVES_MINOR, factors.GIVES_MAJOR)
_GIVES = 2
# Tasks from this size on are wanted over a period, not at a moment.
_LONG_SIZE = 3
_REASON_OF_SIZE = np.array([0, 1, 1, 2, 2])
_GENDERS = 2

_RELATION_GENDER = np.array([relation.gender for relation in vocabulary.RELATIONS])
_RELATION_DOMAIN = np.array([relation.domain for relation in vocabulary.RELATIONS])


def _listed(first: int, count: int) -> str:
    """Return a template that lists `count` factors from place `first` on: "{a}, {b} and {c}"."""
    slots = [f"{{factor_{place}}}" for place in range(first, min(first + count, MAX_FACTORS_COMPOSED))]
    return " and ".join([", ".join(slots[:-1]), slots[-1]] if len(slots) > 1 else slots)


def _flat(nested: tuple[tuple[tuple[str, ...], ...], ...]) -> list[tuple[str, ...]]:
    return [pool for pools in nested for pool in pools]


@cache
def grammar() -> PhraseGrammar:
    """Return the composer's grammar, compiled once per process."""
    flat_tasks = [pool for pools in (*tasks.TASKS, tasks.URGENT_TASKS) for pool in pools]
    counts = range(MAX_FACTORS_COMPOSED + 1)
    return PhraseGrammar(
        {
            "name": PhraseSlot((vocabulary.WOMEN, vocabulary.MEN)),
            "relation": PhraseSlot(([relation.name for relation in vocabulary.RELATIONS],)),
            "setting": PhraseSlot(scenes.SETTINGS),
            "day": PhraseSlot((scenes.DAYS,)),
            "part": PhraseSlot((scenes.PARTS,)),
            "weather": PhraseSlot((scenes.WEATHERS,)),
            "when": PhraseSlot((scenes.WHENS,)),
            "busy": PhraseSlot(scenes.BUSY),
            "scene": PhraseSlot((scenes.SCENES,)),
            "anchor": PhraseSlot([band.anchors for band in CAPACITY_LEVELS]),
            "anchored": PhraseSlot((scenes.ANCHORED,)),
            "detail": PhraseSlot(scenes.DETAILS),
            **{f"factor_{place}": PhraseSlot(_FACTORS) for place in range(MAX_FACTORS_COMPOSED)},
            # Pools of drains: by the number of drains. Pools of gifts: by the number of drains, then of gifts.
            "drains": PhraseSlot([(_listed(0, count),) if count else ("",) for count in counts]),
            "gifts": PhraseSlot(
                [
                    (_listed(drains, gifts),) if gifts and drains < MAX_FACTORS_COMPOSED else ("",)
                    for drains in counts
                    for gifts in counts
                ]
            ),
            "factors": PhraseSlot((factors.DRAINED, factors.GIVEN, factors.BOTH)),
            "cue": PhraseSlot(complexity_phrases.CUES),
            "opening": PhraseSlot(complexity_phrases.OPENINGS),
            "task": PhraseSlot([[asked for asked, _ in pool] for pool in flat_tasks]),
            "doing": PhraseSlot([[done for _, done in pool] for pool in flat_tasks], draw="task"),
            "wanted_day": PhraseSlot((scenes.DAYS,)),
            "deadline": PhraseSlot(_flat(requests.DEADLINES)),
            "ask": PhraseSlot(requests.ASKS),
            "reason": PhraseSlot(requests.REASONS),
            "pressure": PhraseSlot(complexity_phrases.PRESSURES),
            "beginning": PhraseSlot(reply_frames.BEGINNINGS),
            "move": PhraseSlot(_flat(replies.MOVES)),
            "stand": PhraseSlot(_flat(reply_frames.STANDS)),
            "closing": PhraseSlot([*_flat(reply_frames.CLOSINGS), *reply_frames.URGENT_CLOSINGS]),
            "context": PhraseSlot((CONTEXTS,)),
            "request": PhraseSlot((REQUESTS,)),
            "response": PhraseSlot((RESPONSES,)),
        }
    )


def choices(numbers: Numbers, draws: Draws) -> tuple[Array, Array]:
    """Return (choice, relation) for the rows of `numbers`: `PhraseGrammar.chosen`'s result, and `RELATIONS` indices."""
    compiled = grammar()
    level, target, kind = numbers.level, numbers.target, numbers.kind
    relation = draws.below("relation", len(vocabulary.RELATIONS))
    gender = _RELATION_GENDER[relation]
    gender = np.where(gender == vocabulary.EITHER, draws.below("gender", _GENDERS), gender)
    domain = _RELATION_DOMAIN[relation]
    size = np.searchsorted(tasks.SIZES_FROM_TENTHS, numbers.needed, side="right") - 1
    urgent = kind == _EMERGENCY
    # The tasks of emergencies come after those of all domains.
    task = np.where(urgent, len(vocabulary.DOMAINS), domain) * len(tasks.SIZES_FROM_TENTHS) + size
    factor_pools, factor_choices = _distinct_factors(numbers, draws)
    levels, targets = len(CAPACITY_LEVELS), len(reply_frames.BEGINNINGS)
    pools = {
        "name": gender,
        "setting": domain,
        "busy": level,
        "anchor": level,
        "detail": level,
        "drains": numbers.drains,
        "gifts": numbers.drains * (MAX_FACTORS_COMPOSED + 1) + numbers.gifts,
        "factors": np.where(numbers.gifts == 0, 0, np.where(numbers.drains == 0, 1, 2)),
        "cue": kind,
        "opening": kind,
        "task": task,
        "doing": task,
        "deadline": 2 * urgent + (size >= _LONG_SIZE),
        "reason": np.where(urgent, len(requests.REASONS) - 1, _REASON_OF_SIZE[size]),
        "pressure": kind,
        "beginning": target,
        "move": kind * targets + target,
        "stand": target * levels + level,
        # The last pools are for emergencies.
        "closing": np.where(urgent, 2 * targets + target, 2 * target + (level >= levels // 2)),
        "ask": urgent.astype(np.int64),
        **factor_pools,
    }
    day = compiled.drawn("day", np.zeros_like(level), draws)
    days = len(scenes.DAYS)
    taken = {
        "relation": relation,
        "day": day,
        # Never the day of the scene.
        "wanted_day": (day + 1 + draws.below("wanted_day", days - 1)) % days,
        **factor_choices,
    }
    return compiled.chosen(draws, pools, taken), relation


def _distinct_factors(numbers: Numbers, draws: Draws) -> tuple[dict[str, Array], dict[str, Array]]:
    """Return (pools, templates) of the factor slots, such that no row has a factor twice."""
    compiled = grammar()
    pools: dict[str, Array] = {}
    taken: dict[str, Array] = {}
    for place in range(MAX_FACTORS_COMPOSED):
        slot = f"factor_{place}"
        effect = numbers.effects[:, place]
        pool = _GIVES * (effect > 0) + (np.abs(effect) >= factors.MAJOR_FROM_TENTHS)
        within = compiled.drawn(slot, pool, draws)
        # Repeated once for each earlier factor, because moving on may meet another one.
        for _ in range(place):
            clash = np.zeros(draws.rows, dtype=bool)
            for other in pools:
                clash |= (pools[other] == pool) & (taken[other] == within)
            within = np.where(clash, (within + 1) % compiled.sizes(slot)[pool], within)
        pools[slot], taken[slot] = pool, within
    return pools, taken
