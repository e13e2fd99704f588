"""What makes a scenario valid; a rule's name is the reason code that its failures carry to the dashboard.

A row's labels are compared with its numbers, its numbers with one another, its calculation is read and evaluated, and
its texts are judged: nothing that a producer or a model says of a row is taken on trust, and nothing is filled in. A
missing value breaks its column's nullability and no other rule; a row breaks the rule that names its fault and none
that would only follow from it.
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

# Why a model's answer could not be taken, as `answer_fault` says it; each has a rule of its name.
ANSWER_FAULTS = (
    "answer_missing",
    "answer_malformed",
    "answer_duplicated",
    "answer_wrong_cell",
    "answer_cut_off",
    "answer_refused",
)
# Generators whose texts no model wrote.
MODEL_FREE = ("composer", "narrow")

# In bytes of letters, which come to about as much in a script of few letters to a word as in one of many.
_SHORTEST = {"context": 20, "request": 6, "response": 6}
_LEVEL_OF_ANCHOR = {anchor: band.name for band in CAPACITY_LEVELS for anchor in band.anchors}


def derive(frame: pl.DataFrame) -> pl.DataFrame:
    """Return `frame` with the facts that the rules compare with: of its factors, its calculation and its texts."""
    # Importing the compiler takes a second, which a command that only names the family need not wait for.
    from schema.scenario import arithmetic, language

    setting = pl.col("setting").str.to_lowercase()
    return (
        frame.hstack(arithmetic.facts(frame))
        .hstack(language.facts(frame))
        .with_columns(setting_stands=pl.col("context").str.to_lowercase().str.contains(setting, literal=True))
    )


def _is_same(left: pl.Expr, right: pl.Expr) -> pl.Expr:
    """Whether two numbers of points are the same to one decimal."""
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

    # Recomputed by `derive`; never on the wire.
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
    setting_stands = dy.Bool(nullable=True)

    @dy.rule()
    def scenario_unnamed(cls) -> pl.Expr:
        """The id of the scenario, which groups rows, says something."""
        return _says_something("scenario_id")

    @dy.rule()
    def character_unnamed(cls) -> pl.Expr:
        """The character has a name."""
        return _says_something("character_name")

    @dy.rule()
    def relation_missing(cls) -> pl.Expr:
        """What the character is to the one who asks is said."""
        return _says_something("character_relation")

    @dy.rule()
    def age_band_unknown(cls) -> pl.Expr:
        """An age band is one of five."""
        return pl.col("character_age_band").is_in(AGE_BANDS)

    @dy.rule()
    def complexity_type_unknown(cls) -> pl.Expr:
        """A complexity type is one of eight."""
        return pl.col("complexity_type").is_in(COMPLEXITY_TYPES)

    @dy.rule()
    def base_capacity_out_of_range(cls) -> pl.Expr:
        """A base capacity is 0 to 10 points."""
        return _is_capacity("base_capacity")

    @dy.rule()
    def effective_capacity_out_of_range(cls) -> pl.Expr:
        """An effective capacity is 0 to 10 points."""
        return _is_capacity("effective_capacity")

    @dy.rule()
    def capacity_level_mismatch(cls) -> pl.Expr:
        """The level is that of the effective capacity; one between two bands has no level to match."""
        level = level_of(pl.col("effective_capacity"))
        return ~_is_capacity("effective_capacity") | pl.col("capacity_level").eq(level).fill_null(
            pl.col("capacity_level").is_null() | pl.col("effective_capacity").is_null()
        )

    @dy.rule()
    def authenticity_score_out_of_range(cls) -> pl.Expr:
        """A score is 0.2 to 1."""
        return _is_score()

    @dy.rule()
    def authenticity_target_mismatch(cls) -> pl.Expr:
        """The target is that of the score."""
        return ~_is_score() | (pl.col("authenticity_target") == target_of(pl.col("authenticity_score")))

    @dy.rule()
    def factors_missing(cls) -> pl.Expr:
        """A capacity is reckoned from at least one factor."""
        return pl.col("capacity_factors").list.len() > 0

    @dy.rule()
    def factors_too_many(cls) -> pl.Expr:
        """One moment has at most 16 factors."""
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
        """Every factor's effect is, to one decimal, more than 0."""
        return pl.col("factors_felt")

    @dy.rule()
    def factor_effect_out_of_range(cls) -> pl.Expr:
        """No effect takes or gives more than the 10 points that there are."""
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
        """Every line has a reading."""
        return pl.col("calculation_readable")

    @dy.rule()
    def calculation_wrong(cls) -> pl.Expr:
        """Both sides of every line are the same number."""
        return pl.col("calculation_right")

    @dy.rule()
    def calculation_ungrounded(cls) -> pl.Expr:
        """Right lines start from the base, use every effect, and come to the capacity and the support possible."""
        is_right = pl.col("calculation_readable") & pl.col("calculation_right")
        return pl.col("calculation_grounded") | ~is_right | (pl.col("calculation_steps").list.len() == 0)

    @dy.rule()
    def anchor_inconsistent(cls) -> pl.Expr:
        """The anchor is one of the phrases for the row's level."""
        level = pl.col("qualitative_anchor").replace_strict(_LEVEL_OF_ANCHOR, default=None, return_dtype=pl.String)
        known = level_of(pl.col("effective_capacity"))
        return pl.col("qualitative_anchor").is_null() | known.is_null() | level.eq_missing(known)

    @dy.rule()
    def setting_missing(cls) -> pl.Expr:
        """Where it happens is said."""
        return _says_something("setting")

    @dy.rule()
    def setting_absent(cls) -> pl.Expr:
        """The setting stands in the context, word for word but for case."""
        return pl.col("setting_stands")

    @dy.rule()
    def text_missing(cls) -> pl.Expr:
        """Context, request and response all have words."""
        return pl.all_horizontal(pl.col(text).is_null() | (pl.col(f"{text}_letter_bytes") > 0) for text in _SHORTEST)

    @dy.rule()
    def text_too_short(cls) -> pl.Expr:
        """Context, request and response are long enough to say something."""
        return pl.all_horizontal(
            ~pl.col(f"{text}_letter_bytes").is_between(1, shortest - 1) for text, shortest in _SHORTEST.items()
        )

    @dy.rule()
    def language_insane(cls) -> pl.Expr:
        """Context, request and response are language, as far as their letters and words tell."""
        return pl.all_horizontal(
            pl.col(f"{text}_sane") | (pl.col(f"{text}_letter_bytes") < shortest) for text, shortest in _SHORTEST.items()
        )

    @dy.rule()
    def template_leftover(cls) -> pl.Expr:
        """No text holds what a template, a draft or a model speaking of itself leaves behind."""
        return ~pl.col("leftover")

    @dy.rule()
    def response_repeats_request(cls) -> pl.Expr:
        """The response says something other than the request."""
        return ~pl.col("response_repeats")

    @dy.rule()
    def generator_unnamed(cls) -> pl.Expr:
        """What made the row is named."""
        return _says_something("generator")

    @dy.rule()
    def model_missing(cls) -> pl.Expr:
        """A language model's text names the model."""
        return (pl.col("generator") != "llm") | _says_something("model").fill_null(False)

    @dy.rule()
    def model_misplaced(cls) -> pl.Expr:
        """A text that no model wrote names none."""
        return ~pl.col("generator").is_in(MODEL_FREE) | pl.col("model").is_null()

    @dy.rule()
    def answer_missing(cls) -> pl.Expr:
        """A model was asked for this scenario and its answer holds none of that id."""
        return _is_no_fault("answer_missing")

    @dy.rule()
    def answer_malformed(cls) -> pl.Expr:
        """A model's answer cannot be read as a scenario."""
        return _is_no_fault("answer_malformed")

    @dy.rule()
    def answer_duplicated(cls) -> pl.Expr:
        """A model's answer holds the id more than once."""
        return _is_no_fault("answer_duplicated")

    @dy.rule()
    def answer_wrong_cell(cls) -> pl.Expr:
        """The numbers of a model's answer show a cell that was not asked for."""
        return _is_no_fault("answer_wrong_cell")

    @dy.rule()
    def answer_cut_off(cls) -> pl.Expr:
        """A model's answer ended before the scenario did."""
        return _is_no_fault("answer_cut_off")

    @dy.rule()
    def answer_refused(cls) -> pl.Expr:
        """A model would not answer."""
        return _is_no_fault("answer_refused")

    @dy.rule()
    def answer_fault_unknown(cls) -> pl.Expr:
        """A fault is one that has a rule."""
        return pl.col("answer_fault").is_null() | pl.col("answer_fault").is_in(ANSWER_FAULTS)
