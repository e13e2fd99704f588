"""Write texts from nested templates: a grammar of slots, and compiled code that writes the texts of many rows.

A slot has pools of templates; each row uses one template of one pool. In a template, `{slot}` is replaced by the row's
template of that slot, and `{^slot}` by the same with a capital first letter. A slot used twice gives the same text both
times. Templates may nest but must not contain themselves.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from producers.scenario.draws import Draws
from schema.buffers import strings_of
from schema.compiled import compiled

Array = npt.NDArray[Any]

_SLOT = re.compile(r"\{(\^?)([a-z_0-9]+)\}")
# The deepest nesting of templates; a context has 4 levels: context, sentence, list of factors, factor.
_DEEPEST = 16


@dataclass(frozen=True)
class PhraseSlot:
    """The pools of a slot: the caller chooses a row's pool, and the template within the pool is drawn.

    `draw` is the name of the draw. Two slots with the same draw and pools of the same sizes draw the same index.
    """

    pools: Sequence[Sequence[str]]
    draw: str = ""


class PhraseGrammar:
    """A compiled grammar of slots, given as {name: slot}.

    Raises:
        ValueError: a pool is empty, or a template names a missing slot.
    """

    def __init__(self, slots: Mapping[str, PhraseSlot]) -> None:
        self._slots = slots
        self._columns = {name: column for column, name in enumerate(slots)}
        literals: list[bytes] = []
        known: dict[bytes, int] = {}
        tokens: list[int] = []
        bounds = [0]
        templates: list[str] = []
        self._first: dict[str, Array] = {}
        self._sizes: dict[str, Array] = {}
        for name, slot in slots.items():
            firsts = []
            for pool in slot.pools:
                if not pool:
                    raise ValueError(f"slot {name} has an empty pool")
                firsts.append(len(bounds) - 1)
                for template in pool:
                    tokens += self._tokens(template, literals, known)
                    bounds.append(len(tokens))
                templates += pool
            self._first[name] = np.array(firsts)
            self._sizes[name] = np.array([len(pool) for pool in slot.pools])
        self._templates = pl.Series(templates)
        self._tokens_array = np.array(tokens, dtype=np.int32)
        self._bounds = np.array(bounds, dtype=np.int64)
        self._text = np.frombuffer(b"".join(literals), dtype=np.uint8).copy()
        self._text_bounds = np.concatenate([[0], np.cumsum([len(one) for one in literals])]).astype(np.int64)

    def _tokens(self, template: str, literals: list[bytes], known: dict[bytes, int]) -> list[int]:
        """Return a template's tokens: the number of a literal, -1 - 2 * slot, or -2 - 2 * slot for a capital letter."""
        numbers: list[int] = []
        at = 0
        for match in [*_SLOT.finditer(template), None]:
            literal = template[at : match.start() if match else len(template)].encode()
            if literal:
                if literal not in known:
                    known[literal] = len(literals)
                    literals.append(literal)
                numbers.append(known[literal])
            if match:
                if match[2] not in self._columns:
                    raise ValueError(f"{template!r} names {match[2]}, which is not a slot")
                numbers.append(-1 - 2 * self._columns[match[2]] - bool(match[1]))
                at = match.end()
        return numbers

    def sizes(self, slot: str) -> Array:
        """Return the number of templates in each pool of a slot."""
        return self._sizes[slot]

    def drawn(self, slot: str, pool: Array, draws: Draws) -> Array:
        """Return the index, within its pool, of the template that each row draws for a slot, (N,)."""
        return draws.below(self._slots[slot].draw or slot, self._sizes[slot][pool])

    def chosen(self, draws: Draws, pools: Mapping[str, Array], taken: Mapping[str, Array]) -> Array:
        """Return (N, slots) int32: the template of each slot of each row.

        Args:
            draws: of the N rows.
            pools: {slot: the index of each row's pool}; other slots use pool 0.
            taken: {slot: the template's index within the pool}; other slots are drawn.
        """
        choice = np.empty((draws.rows, len(self._columns)), dtype=np.int32)
        first_pool = np.zeros(draws.rows, dtype=np.int64)
        for name, column in self._columns.items():
            pool = pools.get(name, first_pool)
            within = taken[name] if name in taken else self.drawn(name, pool, draws)
            choice[:, column] = self._first[name][pool] + within
        return choice

    def phrases(self, choice: Array, slots: Sequence[str], wanted: Array | None = None) -> pl.Series:
        """Return the rows' templates for `slots`, String, row by row; these templates must not contain slots.

        `wanted`, (N, len(slots)) of bool, selects the templates to return.
        """
        taken = choice[:, [self._columns[slot] for slot in slots]]
        return self._templates.gather((taken.ravel() if wanted is None else taken[wanted]).astype(np.uint32))

    def texts(self, choice: Array, slot: str) -> pl.Series:
        """Return the text of `slot` in each row, String, for the choices of `chosen`."""
        data, offsets = _write(
            self._tokens_array, self._bounds, self._text, self._text_bounds, choice, self._columns[slot]
        )
        return strings_of(data, offsets)


@compiled
def _write(  # pragma: no cover
    tokens: Array, bounds: Array, text: Array, text_bounds: Array, choice: Array, slot: int
) -> tuple[Array, Array]:
    """Return the text of `slot` in each row as (UTF-8 bytes, (N + 1,) offsets). A stack holds unfinished templates."""
    rows = choice.shape[0]
    offsets = np.zeros(rows + 1, dtype=np.int64)
    data = np.empty(1024 + rows * 256, dtype=np.uint8)
    places = np.empty(_DEEPEST, dtype=np.int64)
    ends = np.empty(_DEEPEST, dtype=np.int64)
    size = 0
    for row in range(rows):
        depth = 0
        template = choice[row, slot]
        places[0], ends[0] = bounds[template], bounds[template + 1]
        capital = False
        while depth >= 0:
            if places[depth] == ends[depth]:
                depth -= 1
                continue
            token = tokens[places[depth]]
            places[depth] += 1
            if token < 0:
                inner = -1 - token
                capital |= inner % 2 == 1
                template = choice[row, inner // 2]
                depth += 1
                places[depth], ends[depth] = bounds[template], bounds[template + 1]
                continue
            low, high = text_bounds[token], text_bounds[token + 1]
            if size + high - low > data.size:
                larger = np.empty(2 * data.size + high - low, dtype=np.uint8)
                larger[:size] = data[:size]
                data = larger
            data[size : size + high - low] = text[low:high]
            if capital and 97 <= data[size] <= 122:
                data[size] -= 32
            capital = False
            size += high - low
        offsets[row + 1] = size
    return data[:size], offsets
