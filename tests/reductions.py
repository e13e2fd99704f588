"""Small valid reduction rows for tests, made without the generator."""

from __future__ import annotations

from typing import Any

import polars as pl

from schema.family import identify
from schema.reduction import FAMILY
from schema.reduction.text import facts


def row(number: int, **changes: Any) -> dict[str, Any]:
    """Return a valid row with a term of its own for every `number`: abstractions around a redex."""
    term = "\\." * (number % 50) + "(\\." + "0" * (1 + number // 50) + ")(\\.0)"
    start = 2 * (number % 50)
    base = {
        "term": term,
        "step_k": 0,
        "steps_total": 1,
        "trace_id": f"t{number}",
        "span_start": start,
        "span_end": len(term),
        "outcome": "normal_form",
        "initial_size": 10,
        "initial_depth": 4,
        "growth": 1.0,
        "cycle": 0,
        "seed": 7,
        "chunk": 0,
        "recipe": "by-hand",
    }
    return {**base, **changes}


def frame(rows: list[dict[str, Any]]) -> pl.DataFrame:
    """Return rows as an identified frame of `FAMILY.wire`; a missing size, depth or redex depth is filled in."""
    own = {name: [r.get(name) for r in rows] for name in FAMILY.columns}
    raw = pl.DataFrame(own, schema=FAMILY.columns)
    computed = facts(raw["term"])
    filled = raw.with_columns(
        size=pl.coalesce("size", computed["found_size"]),
        depth=pl.coalesce("depth", computed["found_depth"]),
        redex_depth=pl.coalesce("redex_depth", computed["found_redex_depth"]),
    )
    return identify(filled, FAMILY).select(list(FAMILY.wire))


def valid(count: int, first: int = 0) -> pl.DataFrame:
    """Return `count` valid rows with distinct terms."""
    return frame([row(number) for number in range(first, first + count)])
