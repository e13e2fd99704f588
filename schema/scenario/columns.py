"""The scenario family's columns, and its JSON form.

One row is a moment in which somebody asks a character for support. It holds the character's capacity and its
calculation, the request, the response and how authentic the response is. Capacities and support are points out of 10.
In JSON the character is an object of its own.
"""

from __future__ import annotations

from typing import Any

import polars as pl

CHARACTER = {"character_name": "name", "character_age_band": "age_band", "character_relation": "relation"}
AGE_BANDS = ("18-25", "26-35", "36-50", "51-65", "66+")

COLUMNS: dict[str, pl.DataType] = {
    "scenario_id": pl.String(),  # decides the split; an augmented row keeps the id of its original
    "character_name": pl.String(),
    "character_age_band": pl.String(),
    "character_relation": pl.String(),  # to the person who asks, e.g. "older sister"
    "setting": pl.String(),  # the place, e.g. "the hospital corridor"; `context` contains it word for word
    "context": pl.String(),
    "capacity_factors": pl.List(pl.Struct({"name": pl.String(), "effect": pl.Float64()})),
    "base_capacity": pl.Float64(),
    "effective_capacity": pl.Float64(),  # base_capacity + the sum of the effects
    "capacity_level": pl.String(),
    "support_needed": pl.Float64(),
    "support_possible": pl.Float64(),  # effective_capacity + 2
    "request": pl.String(),
    "response": pl.String(),
    "authenticity_score": pl.Float64(),  # 0 to 1
    "authenticity_target": pl.String(),
    "complexity_type": pl.String(),
    "calculation_steps": pl.List(pl.String()),  # lines such as "6.0 - 1.5 = 4.5"
    "qualitative_anchor": pl.String(),  # one of the level's phrases
    "generator": pl.String(),  # "composer", "narrow", "llm", or another producer's own name
    "model": pl.String(),  # null if no model wrote the text
    "prompt_tokens": pl.Int64(),
    "completion_tokens": pl.Int64(),
    "cost_usd": pl.Float64(),  # null if unknown
    "batch_id": pl.String(),  # the model call or the block that made the row
    "validation_model": pl.String(),
    "validation_score": pl.Float64(),  # 0 to 1: how well the text fits its numbers, by a third model
    "answer_fault": pl.String(),  # why a model's answer is unusable; null in every other row
    "seed": pl.Int64(),
    "chunk": pl.Int64(),
}


def flatten(document: dict[str, Any]) -> dict[str, Any]:
    """Return one JSON object as {column: value}; values of an unexpected shape are kept for the type check."""
    flat = {name: value for name, value in document.items() if name != "character"}
    character = document.get("character")
    if isinstance(character, dict):
        flat.update({column: character.get(name) for column, name in CHARACTER.items()})
    elif character is not None:
        flat["character_name"] = character
    return flat


def nest(frame: pl.DataFrame) -> pl.DataFrame:
    """Return `frame` in the JSON form: `character` a struct of name, age_band and relation."""
    character = pl.struct(*(pl.col(column).alias(name) for column, name in CHARACTER.items())).alias("character")
    rest = [name for name in frame.columns if name not in CHARACTER and name != "scenario_id"]
    return frame.select("scenario_id", character, *rest)
