"""What makes a scenario valid; a rule's name is the reason code that its failures carry to the dashboard."""

from __future__ import annotations

import dataframely as dy
import polars as pl

from schema.family import Example


def derive(frame: pl.DataFrame) -> pl.DataFrame:
    """Return `frame` with the facts that the rules compare with."""
    return frame


class Scenario(Example):
    """The rules of one scenario."""

    scenario_id = dy.String(nullable=False)
    character_name = dy.String(nullable=False)
    character_age_band = dy.String(nullable=False)
    character_relation = dy.String(nullable=False)
    setting = dy.String(nullable=False)
    context = dy.String(nullable=False)
    capacity_factors = dy.List(
        dy.Struct({"name": dy.String(nullable=False), "effect": dy.Float64(nullable=False)}), nullable=False
    )
    base_capacity = dy.Float64(nullable=False)
    effective_capacity = dy.Float64(nullable=False)
    capacity_level = dy.String(nullable=False)
    support_needed = dy.Float64(nullable=False)
    support_possible = dy.Float64(nullable=False)
    request = dy.String(nullable=False)
    response = dy.String(nullable=False)
    authenticity_score = dy.Float64(nullable=False)
    authenticity_target = dy.String(nullable=False)
    complexity_type = dy.String(nullable=False)
    calculation_steps = dy.List(dy.String(nullable=False), nullable=False)
    qualitative_anchor = dy.String(nullable=False)
    generator = dy.String(nullable=False)
    model = dy.String(nullable=True)
    prompt_tokens = dy.Int64(nullable=True, min=0)
    completion_tokens = dy.Int64(nullable=True, min=0)
    cost_usd = dy.Float64(nullable=True, min=0.0)
    batch_id = dy.String(nullable=True)
    validation_model = dy.String(nullable=True)
    validation_score = dy.Float64(nullable=True, min=0.0, max=1.0)
    answer_fault = dy.String(nullable=True)
    seed = dy.Int64(nullable=True)
    chunk = dy.Int64(nullable=True)
