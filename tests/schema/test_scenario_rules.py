"""Each rule rejects rows that break it, for this reason alone, and valid rows pass."""

from __future__ import annotations

import math
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schema.family import Example
from schema.scenario import FAMILY
from schema.scenario.bands import POINT_TOLERANCE, support_bounds, support_ranges, target_names
from schema.scenario.rules import ANSWER_FAULTS, Scenario
from tests import scenarios

# A row of level medium and target authentic, with base 6.0, factors -1.5 and 0.5, and effective capacity 5.0.
PLAIN: dict[str, Any] = {
    **scenarios.row(8 * (4 * 2 + 2)),
    "capacity_factors": [{"name": "poor sleep", "effect": -1.5}, {"name": "a kind word", "effect": 0.5}],
    "base_capacity": 6.0,
    "effective_capacity": 5.0,
    "support_needed": 5.5,
    "support_possible": 7.0,
    "calculation_steps": ["6.0 - 1.5 = 4.5", "4.5 + 0.5 = 5.0", "support possible: 5.0 + 2.0 = 7.0"],
    "authenticity_score": 0.7,
}


def judged(rows: list[dict[str, Any]]) -> list[set[str]]:
    """Return the reasons for which each row is rejected, in the order of the rows."""
    frame = scenarios.frame(rows).with_columns(record=pl.int_range(len(rows), dtype=pl.UInt32))
    _, failures = FAMILY.rules.filter(FAMILY.derive(frame))
    details = failures.details()
    names = [name for name, dtype in details.schema.items() if isinstance(dtype, pl.Enum)]
    reasons: dict[int, set[str]] = {
        row["record"]: {name for name in names if row[name] == "invalid"} for row in details.iter_rows(named=True)
    }
    return [reasons.get(record, set()) for record in range(len(rows))]


def reasons(**changes: Any) -> set[str]:
    return judged([{**PLAIN, **changes}])[0]


# Changes to PLAIN that break one rule each.
BREAKS: dict[str, list[dict[str, Any]]] = {
    "scenario_unnamed": [{"scenario_id": " "}],
    "character_unnamed": [{"character_name": ""}, {"character_name": "\t "}],
    "relation_missing": [{"character_relation": ""}],
    "age_band_unknown": [{"character_age_band": "0-17"}],
    "complexity_type_unknown": [{"complexity_type": "Baseline"}],
    "base_capacity_out_of_range": [
        {
            "base_capacity": base,
            "capacity_factors": [{"name": "poor sleep", "effect": 5.0 - base}],
            "calculation_steps": [f"{base} {5.0 - base:+} = 5.0", "5.0 + 2 = 7.0"],
        }
        for base in (10.5, -0.5)
    ],
    "effective_capacity_out_of_range": [
        {
            "effective_capacity": 10.5,
            "capacity_factors": [{"name": "poor sleep", "effect": 4.5}],
            "calculation_steps": ["6 + 4.5 = 10.5", "10.5 + 2 = 12.5"],
            "support_possible": 12.5,
            "support_needed": 11.0,
        }
    ],
    "capacity_level_mismatch": [
        {"capacity_level": "high"},
        {"capacity_level": "unheard of"},
        # Between low and medium.
        {
            "effective_capacity": 4.2,
            "capacity_factors": [{"name": "poor sleep", "effect": -1.8}],
            "calculation_steps": ["6 - 1.8 = 4.2", "4.2 + 2 = 6.2"],
            "support_possible": 6.2,
            "support_needed": 4.2,
        },
    ],
    "authenticity_score_out_of_range": [{"authenticity_score": 0.19}, {"authenticity_score": 1.01}],
    "authenticity_target_mismatch": [{"authenticity_score": score} for score in (0.2, 0.59, 0.8, 1.0)],
    "factors_missing": [
        {"capacity_factors": [], "base_capacity": 5.0, "calculation_steps": ["5.0 = 5.0", "5.0 + 2.0 = 7.0"]}
    ],
    "factors_too_many": [
        {
            "capacity_factors": [{"name": f"factor {n}", "effect": 0.1 if n % 2 else -0.1} for n in range(18)],
            "base_capacity": 5.0,
            "calculation_steps": ["5.0" + " - 0.1 + 0.1" * 9 + " = 5.0", "5.0 + 2.0 = 7.0"],
        }
    ],
    "factor_unnamed": [
        {"capacity_factors": [{"name": "", "effect": -1.5}, {"name": "a kind word", "effect": 0.5}]},
        {"capacity_factors": [{"name": " \t", "effect": -1.5}, {"name": "", "effect": 0.5}]},
    ],
    "factor_repeated": [
        {"capacity_factors": [{"name": "poor sleep", "effect": -1.5}, {"name": "poor sleep", "effect": 0.5}]}
    ],
    "factor_without_effect": [
        {
            "capacity_factors": [{"name": "poor sleep", "effect": -1.0}, {"name": "a kind word", "effect": 0.0}],
            "calculation_steps": ["6.0 - 1.0 + 0.0 = 5.0", "5.0 + 2.0 = 7.0"],
        }
    ],
    "factor_effect_out_of_range": [
        {
            "capacity_factors": [{"name": "poor sleep", "effect": -12.0}, {"name": "a kind word", "effect": 11.0}],
            "calculation_steps": ["6.0 - 12.0 + 11.0 = 5.0", "5.0 + 2.0 = 7.0"],
        }
    ],
    "grounding_sum_mismatch": [
        {
            "capacity_factors": [{"name": "poor sleep", "effect": -1.5}],
            "calculation_steps": ["6.0 - 1.5 + 0.5 = 5.0", "5.0 + 2.0 = 7.0"],
        }
    ],
    "support_possible_mismatch": [
        {"support_possible": 7.5, "calculation_steps": [*PLAIN["calculation_steps"], "5.0 + 2.5 = 7.5"]}
    ],
    "support_formula_broken": [{"support_needed": needed} for needed in (4.4, 6.6, -1.0)],
    "calculation_missing": [{"calculation_steps": []}],
    "calculation_malformed": [
        {"calculation_steps": [*PLAIN["calculation_steps"], line]}
        for line in (
            "",
            "so we have seven",
            "5 + = 5",
            "5 + 1",
            "(5 + 1) = 6",
            "1 = 1 = 1",
            "5,0 + 1 = 6",
            "a = b: 1 = 1",
        )
    ],
    "calculation_wrong": [
        {"calculation_steps": ["6.0 - 1.5 = 4.4", *PLAIN["calculation_steps"][1:]]},
        {"calculation_steps": [*PLAIN["calculation_steps"], "1 / 0 = 1"]},
        {"calculation_steps": [*PLAIN["calculation_steps"], "1 / 3 = 0.34"]},
    ],
    "calculation_ungrounded": [
        {"calculation_steps": ["5.9 - 1.5 = 4.4", *PLAIN["calculation_steps"]]},  # starts elsewhere
        {"calculation_steps": ["6.0 - 1.5 = 4.5", "4.5 + 0.5 = 5.0"]},  # no support
        {"calculation_steps": ["6.0 - 1.0 = 5.0", "5.0 + 2.0 = 7.0"]},  # other effects
        {"calculation_steps": ["6.0 - 1.5 = 4.5", "4.5 + 2.5 = 7.0", "2.5 + 2.5 = 5.0"]},
        {"calculation_steps": ["6.0 - 1.5 + 0.5 + 2.0 = 7.0"]},  # no effective capacity
    ],
    "anchor_inconsistent": [{"qualitative_anchor": "rested and clear"}, {"qualitative_anchor": "never heard of"}],
    "setting_missing": [{"setting": " "}],
    "setting_absent": [{"setting": "the moon"}],
    "text_missing": [{"request": "?!"}, {"response": ""}],
    "text_too_short": [{"request": "You?"}, {"response": "ok"}, {"context": PLAIN["setting"], "setting": "the"}],
    "language_insane": [
        {"response": "no " * 20},
        {"response": "sdfg hjkl qwrt zxcv bnmp dfgh jklm wrtp sdfg"},
        {"request": "a" * 50},
        {"request": "please ??? !!! ### $$$ %%% ^^^ &&& *** --- +++"},
        {"response": "I can\ufffdt do it today, but tomorrow"},
        {"response": "I can do it today\0, but not tomorrow"},
        {"response": "asdfkjhasdflkjhasdflkjhqweriuyzxcvmnb lkasjdhflkajsdhflkjashdflkjh"},
        {"response": "a b c d e f g h i j k l m n o p"},
    ],
    "template_leftover": [
        {"response": f"I hear you, and I can do some of it. {leftover}"}
        for leftover in (
            "{name}",
            "{{ setting }}",
            "TODO",
            "Lorem ipsum dolor.",
            "<name>",
            "[NAME]",
            "[your name]",
            "%s",
            "As an AI language model I cannot.",
        )
    ],
    "response_repeats_request": [
        {"response": PLAIN["request"]},
        {"response": PLAIN["request"].upper().replace(",", " --").replace("?", "!!")},
        {"response": f"Well: {PLAIN['request']}"},
    ],
    "generator_unnamed": [{"generator": ""}],
    "model_missing": [{"generator": "llm"}, {"generator": "llm", "model": " "}],
    "model_misplaced": [{"generator": "composer", "model": "m"}, {"generator": "narrow", "model": ""}],
    **{fault: [{"answer_fault": fault}] for fault in ANSWER_FAULTS},
    "answer_fault_unknown": [{"answer_fault": "answer_odd"}, {"answer_fault": ""}],
}
CASES = [(rule, changes) for rule, several in BREAKS.items() for changes in several]


def test_every_rule_has_a_row_that_breaks_it() -> None:
    rules = {name for name in Scenario._validation_rules(with_cast=False) if "|" not in name}
    assert rules == set(BREAKS)


def test_a_row_that_breaks_one_rule_is_rejected_for_that_rule_alone() -> None:
    broken = judged([{**PLAIN, **changes} for _, changes in CASES])
    assert [(changes, names) for (_, changes), names in zip(CASES, broken, strict=True)] == [
        (changes, {rule}) for rule, changes in CASES
    ]


def test_valid_rows_of_every_cell_pass() -> None:
    rows = [scenarios.row(number) for number in range(512)]
    assert judged([PLAIN, *rows]) == [set()] * 513


@pytest.mark.parametrize(
    "changes",
    [
        {"effective_capacity": 5.04, "support_possible": 7.04},
        {"calculation_steps": ["6 - 1.5 + 0.5 = 5", "5 + 2 = 7"]},
        {"calculation_steps": ["Start (of 10): 6,0:6.0 \u2212 1.5 = 4.5", "4.5+.5=5.00", "5 + 2 = 7", "7 / 10 = 0.7"]},
        {"calculation_steps": ["6.0 - 1.5 = 4.5", "effects: -1.5 + 0.5 = -1", "4.5 + 0.5 = 5.0", "5.0 + 2 = 7"]},
        {"generator": "llm", "model": "m", "prompt_tokens": 0, "cost_usd": 0.0},
        {"generator": "someone else's", "model": "m"},
        {"setting": "The Kitchen", "context": "In THE KITCHEN the kettle has boiled dry again."},
        {"request": "你今天下午能开车送我去医院吗？", "response": "我今天很累，只能送你去，不能等你。"},
        {"response": "No, no, no."},
        {"response": "¡Todo a su tiempo! Hoy puedo llevar una caja, mañana las otras dos."},
        {"request": "Можешь завтра забрать детей из школы?", "response": "Завтра могу, но только до пяти часов."},
    ],
)
def test_unusual_valid_rows_pass(changes: dict[str, Any]) -> None:
    assert reasons(**changes) == set()


NULLABLE = {"model", "prompt_tokens", "completion_tokens", "cost_usd", "batch_id", "validation_model"}
NULLABLE |= {"validation_score", "answer_fault", "seed", "chunk"}


@pytest.mark.parametrize("column", [name for name in FAMILY.columns if name not in NULLABLE])
def test_a_missing_value_is_rejected_and_never_filled_in(column: str) -> None:
    broken = reasons(**{column: None})
    # A row without text has no identity, and a row without a scenario has no split.
    follows = {"example_id|nullability"} if column in ("context", "request", "response") else set()
    follows |= {"split|nullability"} if column == "scenario_id" else set()
    assert broken == {f"{column}|nullability"} | follows


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    "column", ["base_capacity", "effective_capacity", "support_needed", "support_possible", "authenticity_score"]
)
def test_nan_and_infinity_are_rejected(column: str, value: float) -> None:
    assert f"{column}|{'nan' if math.isnan(value) else 'inf'}" in reasons(**{column: value})


def test_a_missing_value_inside_a_list_is_rejected() -> None:
    factors = [{"name": None, "effect": -1.5}, {"name": "a kind word", "effect": 0.5}]
    assert "capacity_factors|inner_inner_name_nullability" in reasons(capacity_factors=factors)
    factors = [{"name": "poor sleep", "effect": None}, {"name": "a kind word", "effect": math.nan}]
    assert {"capacity_factors|inner_inner_effect_nullability", "capacity_factors|inner_inner_effect_nan"} <= reasons(
        capacity_factors=factors
    )
    assert "calculation_steps|inner_nullability" in reasons(calculation_steps=[*PLAIN["calculation_steps"], None])


def test_an_empty_answer_breaks_only_the_rule_of_its_fault_and_nullability() -> None:
    row = {"scenario_id": "r-1", "generator": "llm", "model": "m", "answer_fault": "answer_refused"}
    frame = scenarios.frame([row]).with_columns(record=pl.lit(0, dtype=pl.UInt32))
    _, failures = FAMILY.rules.filter(FAMILY.derive(frame))
    counts = failures.counts()
    assert counts["answer_refused"] == 1
    assert {name for name in counts if "|" not in name} == {"answer_refused"}


@given(st.sampled_from(target_names()), st.integers(0, 100))
def test_support_ranges_equal_the_bounds_of_each_row(target: str, tenths: int) -> None:
    ranges = support_ranges(pl.lit(target), pl.lit(tenths / 10))
    assert pl.select(low=ranges[0], high=ranges[1]).row(0) == pytest.approx(support_bounds(target, tenths / 10))


def test_support_may_exceed_its_bound_by_less_than_half_a_tenth() -> None:
    _, high = support_bounds("authentic", 5.0)
    # Not at the bound itself, where floating point decides.
    excesses = [thousandths / 1000 for thousandths in range(-200, 201) if thousandths != 1000 * POINT_TOLERANCE]
    broken = judged([{**PLAIN, "support_needed": high + excess} for excess in excesses])
    assert ["support_formula_broken" in names for names in broken] == [excess > POINT_TOLERANCE for excess in excesses]


@settings(max_examples=25)
@given(st.lists(st.tuples(*[st.text(max_size=40)] * 3, st.lists(st.text(max_size=20), max_size=4)), max_size=20))
def test_any_texts_and_lines_are_judged_and_no_row_is_lost(rows: list[tuple[Any, ...]]) -> None:
    changed = [
        {**PLAIN, "context": context, "request": request, "response": response, "calculation_steps": lines}
        for context, request, response, lines in rows
    ]
    broken = judged(changed)
    assert [("text_missing" in names, "calculation_missing" in names) for names in broken] == [
        (any(not any(map(str.isalpha, text)) for text in texts), not lines) for *texts, lines in rows
    ]


def test_the_rules_do_not_override_those_of_the_base_class() -> None:
    shared = set(Example._validation_rules(with_cast=False))
    assert not shared & set(BREAKS)
