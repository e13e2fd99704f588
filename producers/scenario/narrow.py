"""A deliberately narrow baseline: the rows of a generator that only aims at good answers.

For comparison only (`feedmill compare`), never for training. Scores are 0.82 to 0.95, the complexity type is always
`baseline`, and capacity is medium or high. A few sentences make all texts, so most rows are near duplicates. Each row
by itself is valid. The baseline covers 2 of 128 cells.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from producers.scenario.composer.engine import PhraseGrammar, PhraseSlot
from producers.scenario.draws import Draws
from producers.scenario.numbers import MAX_FACTORS_COMPOSED, numbers_of
from producers.scenario.rows import Origin, rows_of
from schema.scenario import FAMILY
from schema.scenario.bands import CAPACITY_LEVELS

Array = npt.NDArray[Any]

GENERATOR = "narrow"
SCORES = (82, 95)  # hundredths
LEVELS = ("medium", "high")
TARGET, TYPE = "excellent", "baseline"

_CELLS = np.array(
    [
        index
        for index, cell in enumerate(FAMILY.cells())
        if (cell["authenticity_target"], cell["complexity_type"]) == (TARGET, TYPE) and cell["capacity_level"] in LEVELS
    ]
)
_AGE_BAND = "26-35"
_FACTORS = ("a busy week", "a short night", "a good breakfast", "a sunny day")
_FACTOR_SLOTS = [f"factor_{place}" for place in range(MAX_FACTORS_COMPOSED)]


@cache
def grammar() -> PhraseGrammar:
    """Return the baseline's few templates, compiled once per process."""
    return PhraseGrammar(
        {
            "name": PhraseSlot((("Anna", "Ben", "Clara", "David", "Emma", "Frank"),)),
            "relation": PhraseSlot((("friend", "colleague"),)),
            "setting": PhraseSlot((("the office", "the kitchen", "the park"),)),
            "anchor": PhraseSlot([band.anchors for band in CAPACITY_LEVELS]),
            "context": PhraseSlot(
                (
                    (
                        "My {relation} {name} is in {setting} and feels fine. In a word: {anchor}.",
                        "I meet my {relation} {name} in {setting}. {name} is doing well: {anchor}.",
                    ),
                )
            ),
            "task": PhraseSlot(
                (("help me with a small thing", "give me some advice", "lend me a hand", "listen to me"),)
            ),
            "request": PhraseSlot((("{name}, could you {task}?", "{name}, would you {task} today?"),)),
            "response": PhraseSlot(
                (
                    (
                        "Of course, I have time and I am happy to help you.",
                        "Yes, gladly, I have enough energy for that today.",
                        "I am happy to help you, and I have time for it.",
                    ),
                )
            ),
            **{f"factor_{place}": PhraseSlot(((name,),)) for place, name in enumerate(_FACTORS)},
        }
    )


def narrow_cells(seed: int, first: int, rows: int) -> Array:
    """Return the cell index of each of the rows first..first + rows - 1, drawn from the two cells."""
    drawn: Array = _CELLS[Draws(seed, first, rows).below("cell", len(_CELLS))]
    return drawn


def narrow_rows(cells: Array, origin: Origin) -> pl.DataFrame:
    """Return one row for each cell index of `narrow_cells`, (N,), as an identified frame of the wire columns."""
    count = len(cells)
    draws = origin.draws(count)
    numbers = replace(numbers_of(np.asarray(cells, dtype=np.int64), draws), score=draws.between("score", *SCORES))
    compiled = grammar()
    choice = compiled.chosen(draws, {"anchor": numbers.level}, {})
    texts = {
        "character_name": compiled.phrases(choice, ["name"]),
        "character_age_band": pl.Series([_AGE_BAND]).new_from_index(0, count),
        "character_relation": compiled.phrases(choice, ["relation"]),
        "setting": compiled.phrases(choice, ["setting"]),
        "qualitative_anchor": compiled.phrases(choice, ["anchor"]),
        **{column: compiled.texts(choice, column) for column in ("context", "request", "response")},
    }
    names = compiled.phrases(choice, _FACTOR_SLOTS, numbers.effects != 0)
    return rows_of(numbers, texts, names, GENERATOR, origin)
