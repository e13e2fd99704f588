"""The rules for a valid scenario; a rule's name is the reason code of rows that break it.

The rules compare a row's labels with its numbers and the numbers with one another. They evaluate its calculation and
check its texts. Nothing that a producer or a model claims is accepted unchecked, and no value is filled in. A missing
value breaks only its column's nullability rule. A row breaks the rule that names its fault, and no rule that would only
follow from this fault.
"""

from __future__ import annotations

import dataframely as dy
import polars as pl

from schema.family import Example
from schema.scenario.bands import (
    AUTHENTICITY_TARGETS,
    CAPACITY_LEVELS,
    COMPLEXITY_TYPES,
    LARGEST_CAPACITY,
    MAX_FACTORS_ALLOWED,
    POINT_TOLERANCE,
    SUM_TOLERANCE,
    SUPPORT_HEADROOM,
    level_of,
    support_ranges,
    target_of,
)
from schema.scenario.columns import AGE_BANDS

# The values of `answer_fault`: why a model's answer is unusable. Each has a rule of the same name.
ANSWER_FAULTS = (
    "answer_missing",
    "answer_malformed",
    "answer_duplicated",
    "answer_wrong_cell",
    "answer_cut_off",
    "answer_refused",
    "answer_empty",
    "answer_server_error",
    "answer_thinking_only",
    "answer_thinking_cut_off",
    "answer_timed_out",
    "validation_below_minimum",
)
# Generators that use no language model.
MODEL_FREE = ("composer", "narrow")

# The least length in bytes of letters: a word has about as many bytes in every script, but not as many letters.
_SHORTEST = {"context": 20, "request": 6, "response": 6}
_LEVEL_OF_ANCHOR = {anchor: band.name for band in CAPACITY_LEVELS for anchor in band.anchors}


def derive(frame: pl.DataFrame) -> pl.DataFrame:
    """Return `frame` with the facts about its factors, calculation and texts that the rules compare with."""
    # Importing the compiler takes a second. Commands that only name the family do not wait for it.
    from schema.scenario import arithmetic, language

    setting = pl.col("setting").str.to_lowercase()
    return (
        frame.hstack(arithmetic.facts(frame))
        .hstack(language.facts(frame))
        .with_columns(setting_in_context=pl.col("context").str.to_lowercase().str.contains(setting, literal=True))
    )


def _is_same(left: pl.Expr, right: pl.Expr) -> pl.Expr:
    """Return whether two numbers of points are the same to one decimal."""
    return (left - right).abs() < POINT_TOLERANCE


def _says_something(column: str) -> pl.Expr:
    return pl.col(column).str.contains(r"\S")


def _is_capacity(column: str) -> pl.Expr:
    return pl.col(column).is_between(-SUM_TOLERANCE, LARGEST_CAPACITY + SUM_TOLERANCE)


def _is_score() -> pl.Expr:
    return pl.col("authenticity_score").is_between(AUTHENTICITY_TARGETS[0].low, AUTHENTICITY_TARGETS[-1].high)


def _is_no_fault(name: str) -> pl.Expr:
    return pl.col("answer_fault").is_null() | (pl.col("answer_fault") != name)


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

    # Recomputed by `derive`; never in a record.
    factors_named = dy.Bool(nullable=False)
    factors_distinct = dy.Bool(nullable=False)
    factors_felt = dy.Bool(nullable=False)
    factors_within_scale = dy.Bool(nullable=False)
    effects_sum = dy.Float64(nullable=True, allow_inf=True, allow_nan=True)
    calculation_readable = dy.Bool(nullable=False)
    calculation_right = dy.Bool(nullable=False)
    calculation_grounded = dy.Bool(nullable=False)
    context_sane = dy.Bool(nullable=False)
    request_sane = dy.Bool(nullable=False)
    response_sane = dy.Bool(nullable=False)
    context_letter_bytes = dy.Int64(nullable=False)
    request_letter_bytes = dy.Int64(nullable=False)
    response_letter_bytes = dy.Int64(nullable=False)
    response_repeats = dy.Bool(nullable=False)
    leftover = dy.Bool(nullable=False)
    setting_in_context = dy.Bool(nullable=True)

    @dy.rule()
    def scenario_unnamed(cls) -> pl.Expr:
        """The scenario's id is not blank."""
        return _says_something("scenario_id")

    @dy.rule()
    def character_unnamed(cls) -> pl.Expr:
        """The character's name is not blank."""
        return _says_something("character_name")

    @dy.rule()
    def relation_missing(cls) -> pl.Expr:
        """The character's relation to the person who asks is not blank."""
        return _says_something("character_relation")

    @dy.rule()
    def age_band_unknown(cls) -> pl.Expr:
        """The age band is one of `AGE_BANDS`."""
        return pl.col("character_age_band").is_in(AGE_BANDS)

    @dy.rule()
    def complexity_type_unknown(cls) -> pl.Expr:
        """The complexity type is one of `COMPLEXITY_TYPES`."""
        return pl.col("complexity_type").is_in(COMPLEXITY_TYPES)

    @dy.rule()
    def base_capacity_out_of_range(cls) -> pl.Expr:
        """The base capacity is 0 to 10 points."""
        return _is_capacity("base_capacity")

    @dy.rule()
    def effective_capacity_out_of_range(cls) -> pl.Expr:
        """The effective capacity is 0 to 10 points."""
        return _is_capacity("effective_capacity")

    @dy.rule()
    def capacity_level_mismatch(cls) -> pl.Expr:
        """The level includes the effective capacity; a capacity between two bands matches no level."""
        level = level_of(pl.col("effective_capacity"))
        return ~_is_capacity("effective_capacity") | pl.col("capacity_level").eq(level).fill_null(
            pl.col("capacity_level").is_null() | pl.col("effective_capacity").is_null()
        )

    @dy.rule()
    def authenticity_score_out_of_range(cls) -> pl.Expr:
        """The authenticity score is 0.2 to 1."""
        return _is_score()

    @dy.rule()
    def authenticity_target_mismatch(cls) -> pl.Expr:
        """The authenticity target includes the score."""
        return ~_is_score() | (pl.col("authenticity_target") == target_of(pl.col("authenticity_score")))

    @dy.rule()
    def factors_missing(cls) -> pl.Expr:
        """The row has at least one factor."""
        return pl.col("capacity_factors").list.len() > 0

    @dy.rule()
    def factors_too_many(cls) -> pl.Expr:
        """The row has at most 16 factors."""
        return pl.col("capacity_factors").list.len() <= MAX_FACTORS_ALLOWED

    @dy.rule()
    def factor_unnamed(cls) -> pl.Expr:
        """Every factor has a name."""
        return pl.col("factors_named")

    @dy.rule()
    def factor_repeated(cls) -> pl.Expr:
        """No two named factors have the same name."""
        return pl.col("factors_distinct") | ~pl.col("factors_named")

    @dy.rule()
    def factor_without_effect(cls) -> pl.Expr:
        """No factor's effect is 0 to one decimal."""
        return pl.col("factors_felt")

    @dy.rule()
    def factor_effect_out_of_range(cls) -> pl.Expr:
        """Every factor's effect is within -10 to 10 points."""
        return pl.col("factors_within_scale")

    @dy.rule()
    def grounding_sum_mismatch(cls) -> pl.Expr:
        """Base capacity + effects = effective capacity."""
        return _is_same(pl.col("base_capacity") + pl.col("effects_sum"), pl.col("effective_capacity"))

    @dy.rule()
    def support_possible_mismatch(cls) -> pl.Expr:
        """The support possible is the effective capacity + 2."""
        return _is_same(pl.col("support_possible"), pl.col("effective_capacity") + SUPPORT_HEADROOM)

    @dy.rule()
    def support_formula_broken(cls) -> pl.Expr:
        """The support needed is within its target's bounds at the effective capacity (`bands.support_bounds`)."""
        low, high = support_ranges(pl.col("authenticity_target"), pl.col("effective_capacity"))
        return pl.col("support_needed").is_between(low - POINT_TOLERANCE, high + POINT_TOLERANCE)

    @dy.rule()
    def calculation_missing(cls) -> pl.Expr:
        """There is at least one line of calculation."""
        return pl.col("calculation_steps").list.len() > 0

    @dy.rule()
    def calculation_malformed(cls) -> pl.Expr:
        """Every line of calculation follows the grammar of `schema.scenario.arithmetic`."""
        return pl.col("calculation_readable")

    @dy.rule()
    def calculation_wrong(cls) -> pl.Expr:
        """Both sides of every line of calculation are the same number."""
        return pl.col("calculation_right")

    @dy.rule()
    def calculation_ungrounded(cls) -> pl.Expr:
        """Right lines start from the base, use every effect, and give the capacity and the support possible."""
        is_right = pl.col("calculation_readable") & pl.col("calculation_right")
        return pl.col("calculation_grounded") | ~is_right | (pl.col("calculation_steps").list.len() == 0)

    @dy.rule()
    def anchor_inconsistent(cls) -> pl.Expr:
        """The anchor is one of the phrases for the level of the effective capacity."""
        level = pl.col("qualitative_anchor").replace_strict(_LEVEL_OF_ANCHOR, default=None, return_dtype=pl.String)
        known = level_of(pl.col("effective_capacity"))
        return pl.col("qualitative_anchor").is_null() | known.is_null() | level.eq_missing(known)

    @dy.rule()
    def setting_missing(cls) -> pl.Expr:
        """The setting is not blank."""
        return _says_something("setting")

    @dy.rule()
    def setting_absent(cls) -> pl.Expr:
        """The context contains the setting word for word, in any case."""
        return pl.col("setting_in_context")

    @dy.rule()
    def text_missing(cls) -> pl.Expr:
        """Context, request and response all have letters."""
        return pl.all_horizontal(pl.col(text).is_null() | (pl.col(f"{text}_letter_bytes") > 0) for text in _SHORTEST)

    @dy.rule()
    def text_too_short(cls) -> pl.Expr:
        """Context, request and response have at least 20, 6 and 6 bytes of letters, or no letters at all."""
        return pl.all_horizontal(
            ~pl.col(f"{text}_letter_bytes").is_between(1, shortest - 1) for text, shortest in _SHORTEST.items()
        )

    @dy.rule()
    def language_insane(cls) -> pl.Expr:
        """Context, request and response are language, judged by their letters and words."""
        return pl.all_horizontal(
            pl.col(f"{text}_sane") | (pl.col(f"{text}_letter_bytes") < shortest) for text, shortest in _SHORTEST.items()
        )

    @dy.rule()
    def template_leftover(cls) -> pl.Expr:
        """No text contains leftovers of a template or a draft, or a model that mentions itself."""
        return ~pl.col("leftover")

    @dy.rule()
    def response_repeats_request(cls) -> pl.Expr:
        """The response shares less than nine words in ten with the request."""
        return ~pl.col("response_repeats")

    @dy.rule()
    def generator_unnamed(cls) -> pl.Expr:
        """The generator is not blank."""
        return _says_something("generator")

    @dy.rule()
    def model_missing(cls) -> pl.Expr:
        """A row of the generator `llm` names its model."""
        return (pl.col("generator") != "llm") | _says_something("model").fill_null(False)

    @dy.rule()
    def model_misplaced(cls) -> pl.Expr:
        """A row of the composer or the narrow generator names no model."""
        return ~pl.col("generator").is_in(MODEL_FREE) | pl.col("model").is_null()

    @dy.rule()
    def answer_missing(cls) -> pl.Expr:
        """The model's answer has a scenario with the id asked for."""
        return _is_no_fault("answer_missing")

    @dy.rule()
    def answer_malformed(cls) -> pl.Expr:
        """The model's answer can be read as a scenario."""
        return _is_no_fault("answer_malformed")

    @dy.rule()
    def answer_duplicated(cls) -> pl.Expr:
        """The model's answer has the id only once."""
        return _is_no_fault("answer_duplicated")

    @dy.rule()
    def answer_wrong_cell(cls) -> pl.Expr:
        """The numbers of the model's answer belong to the cell that was asked for."""
        return _is_no_fault("answer_wrong_cell")

    @dy.rule()
    def answer_cut_off(cls) -> pl.Expr:
        """The model's answer contains the whole scenario."""
        return _is_no_fault("answer_cut_off")

    @dy.rule()
    def answer_refused(cls) -> pl.Expr:
        """The model did not refuse to answer."""
        return _is_no_fault("answer_refused")

    @dy.rule()
    def answer_empty(cls) -> pl.Expr:
        """The model's answer has text."""
        return _is_no_fault("answer_empty")

    @dy.rule()
    def answer_server_error(cls) -> pl.Expr:
        """The server sent an answer and not an error with HTTP status 200."""
        return _is_no_fault("answer_server_error")

    @dy.rule()
    def answer_thinking_only(cls) -> pl.Expr:
        """The model's answer has text beside the model's thinking."""
        return _is_no_fault("answer_thinking_only")

    @dy.rule()
    def answer_thinking_cut_off(cls) -> pl.Expr:
        """The model's thinking ended before the length limit."""
        return _is_no_fault("answer_thinking_cut_off")

    @dy.rule()
    def answer_timed_out(cls) -> pl.Expr:
        """The model answered within the time limit."""
        return _is_no_fault("answer_timed_out")

    @dy.rule()
    def validation_below_minimum(cls) -> pl.Expr:
        """The validation model did not score the scenario below the minimum of its run."""
        return _is_no_fault("validation_below_minimum")

    @dy.rule()
    def answer_fault_unknown(cls) -> pl.Expr:
        """The fault is null or one of `ANSWER_FAULTS`."""
        return pl.col("answer_fault").is_null() | pl.col("answer_fault").is_in(ANSWER_FAULTS)
