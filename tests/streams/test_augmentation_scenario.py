"""Augmented scenarios: valid, of the same cell and scenario, about another person, and determined by their origin."""

from __future__ import annotations

import re
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from producers.run import generate
from producers.scenario.run import ScenarioRun
from schema.scenario import FAMILY, TEXT
from schema.scenario.bands import MAX_FACTORS_ALLOWED
from schema.scenario.vocabulary import MEN, WOMEN
from schema.text_measures import pair_similarities
from streams.augmentation.scenario import augment
from streams.augmentation.scenario.jitter_numbers import CAPACITY_STEPS, EFFECT_STEPS, SCORE_STEPS
from streams.augmentation.scenario.phrases import UNSURE, replaced
from streams.augmentation.scenario.swap_names import swapped
from streams.augmentation.scenario.vocabulary import ANYONE, RELATIONS, SETTINGS
from tests import scenarios
from tests.streams.augmented import copies, judged

KEPT = ("scenario_id", "character_age_band", "complexity_type", "capacity_level", "authenticity_target")
KEPT += ("qualitative_anchor", "generator", "model", "batch_id", "seed", "chunk")
TEXTS = ("context", "request", "response")
PLAIN = scenarios.row(
    8 * (4 * 2 + 2),
    character_name="Nadia",
    character_relation="older sister",
    setting="the kitchen",
    context="My older sister Nadia stands in the kitchen; the kettle is on, and the week has been long.",
    request="Nadia, could you take the dog for the whole weekend? Nadia's garden is so much larger.",
    response="I can take the dog on Sunday, and not before; on Saturday I need to sleep.",
)

FACTORS = PLAIN["capacity_factors"]


def augmented(**changes: Any) -> dict[str, Any] | None:
    """The first copy of the plain row, if it has one."""
    copied = augment(copies(scenarios.frame([{**PLAIN, **changes}]), 1))
    judged(copied, FAMILY)
    return copied.row(0, named=True) if copied.height else None


def swapped_row(**changes: Any) -> dict[str, Any]:
    """The plain row with its phrases swapped, however similar the texts stay."""
    return swapped(copies(scenarios.frame([{**PLAIN, **changes}]), 1)).row(0, named=True)


@settings(max_examples=10)
@given(st.integers(0, 100_000), st.integers(1, 40), st.integers(1, 4))
def test_copies_are_valid_and_stay_in_their_cell(first: int, count: int, number: int) -> None:
    origins = scenarios.valid_rows(count, first)
    rows = copies(origins, number)
    copied = augment(rows)
    assert dict(copied.schema) == {**FAMILY.wire, "record": pl.UInt32()}
    assert copied["example_id"].null_count() == copied["split"].null_count() == copied.height
    valid = judged(copied, FAMILY)

    both = valid.join(
        rows.unique("record").select("record", *FAMILY.wire), on="record", suffix="_origin", validate="m:1"
    )
    assert both.select((pl.col("augmented_from") == pl.col("example_id_origin")).all()).item()
    # The family's `group` is the scenario, so the split is the origin's.
    for column in (*KEPT, "split"):
        assert both[column].eq_missing(both[f"{column}_origin"]).all(), column
    assert both.select(
        ((pl.col("effective_capacity") - pl.col("effective_capacity_origin")).abs() < (CAPACITY_STEPS + 0.5) / 10).all()
        & ((pl.col("authenticity_score") - pl.col("authenticity_score_origin")).abs() < (SCORE_STEPS + 0.5) / 100).all()
    ).row(0) == (True,)
    factors = both.explode("capacity_factors")["capacity_factors"].struct.unnest()
    before = both.explode("capacity_factors_origin")["capacity_factors_origin"].struct.unnest()
    assert factors["name"].equals(before["name"])
    assert ((factors["effect"] - before["effect"]).abs() < (EFFECT_STEPS + 0.5) / 10).all()
    assert (factors["effect"] * before["effect"] > 0).all()

    # The copies of one origin are all different examples, and none equals the origin.
    assert not valid["example_id"].is_in(origins["example_id"]).any()
    assert valid["example_id"].n_unique() == valid.height


def test_most_valid_rows_have_copies_that_mostly_differ_in_each_part() -> None:
    rows = copies(scenarios.valid_rows(256), 3)
    copied = augment(rows)
    assert 0.9 * rows.height < copied.height
    both = copied.join(rows.unique("record"), on="record", suffix="_origin")
    for column in ("character_name", "setting", "effective_capacity", "support_needed", "authenticity_score"):
        assert both.select((pl.col(column) != pl.col(f"{column}_origin")).mean()).item() > 0.7, column
    assert both.select((pl.col("character_relation") != pl.col("character_relation_origin")).mean()).item() > 0.5


def test_copies_of_composed_rows_are_valid_too() -> None:
    origins = pl.concat(generate(ScenarioRun(count=512, seed=11)))
    rows = copies(origins, 2)
    copied = augment(rows)
    assert 0.2 * rows.height < copied.height < rows.height
    valid = judged(copied, FAMILY)
    assert valid["example_id"].n_unique() == valid.height
    assert not valid["example_id"].is_in(origins["example_id"]).any()
    for column in FAMILY.cell_axes:
        before = valid.join(origins, left_on="augmented_from", right_on="example_id", suffix="_origin")
        assert before[column].equals(before[f"{column}_origin"].alias(column))


@pytest.mark.parametrize("origins", [scenarios.valid_rows(256), pl.concat(generate(ScenarioRun(count=512, seed=11)))])
def test_no_copy_is_a_near_duplicate_of_its_origin(origins: pl.DataFrame) -> None:
    copied = augment(copies(origins, 2))
    both = copied.join(origins.select("example_id", origin=TEXT), left_on="augmented_from", right_on="example_id")
    similarities = pair_similarities(both.select(TEXT).to_series(), both["origin"])
    assert 0.5 < similarities.max() < FAMILY.near_duplicate_threshold


def test_a_copy_depends_on_its_row_and_its_number_alone() -> None:
    rows = copies(scenarios.valid_rows(64), 3)
    copied = augment(rows)
    shuffled = augment(rows.sample(fraction=1, shuffle=True, seed=1))
    order = ["record", *TEXTS]
    assert copied.sort(order).equals(shuffled.sort(order))
    alone = rows.filter((pl.col("record") == 17) & (pl.col("copy") == 2))
    assert augment(alone).row(0) in copied.filter(pl.col("record") == 17).rows()


def test_swaps_replace_the_old_words_everywhere() -> None:
    row = augmented()
    assert row is not None
    assert row["character_name"] in WOMEN
    assert row["character_relation"] in {r.name for r in RELATIONS if r.circle == "siblings"} - {"older sister"}
    assert row["setting"] in SETTINGS[0]
    for text in TEXTS:
        back = row[text]
        for column in ("setting", "character_relation", "character_name"):
            back = back.replace(row[column], PLAIN[column])
        assert back == PLAIN[text]


@pytest.mark.parametrize(
    "changes",
    [
        # Of nobody in particular.
        {"character_name": "Ann", "context": "In the kitchen it is Anniversary day, and Ann-Marie is out with Annä."},
        {"character_relation": "uncle", "context": "In the kitchen Nadia waits; no relation is named here at all."},
        # Called by another name of kin as well.
        {"context": "My older sister Nadia stands in the kitchen.", "request": "Mum, could you take the dog, Nadia?"},
        {"context": "I have an older sister, Nadia, who is in the kitchen with a long list."},
        {"setting": "the lighthouse", "context": "My older sister Nadia is in the lighthouse, and it is late."},
        {"capacity_factors": [{"name": "what Nadia said", "effect": FACTORS[0]["effect"]}, *FACTORS[1:]]},
        {"setting": "the kitchen", "context": "My older sister Nadia is in THE KITCHEN, and it is rather late."},
    ],
)
def test_phrases_that_cannot_be_swapped_safely_are_kept(changes: dict[str, Any]) -> None:
    row = swapped_row(**changes)
    origin = {**PLAIN, **changes}
    left = [name for name in ("character_name", "character_relation", "setting") if row[name] == origin[name]]
    assert left
    for name in left:
        for text in TEXTS:
            assert len(re.findall(rf"(?i)\b{origin[name]}\b", row[text])) == len(
                re.findall(rf"(?i)\b{origin[name]}\b", origin[text])
            )


def test_a_new_name_has_the_gender_of_relation_and_texts() -> None:
    neutral = {
        "character_relation": "flatmate",
        "character_age_band": "18-25",
        "context": "My flatmate Yong stands in the kitchen; the kettle is on, and the week has been long.",
        "character_name": "Yong",
        "request": "Yong, could you take the dog for the whole weekend? It would help me no end.",
    }
    names = {}
    for sentence in ("", " She is tired.", " He is tired.", " She is tired, and he is not."):
        row = swapped_row(**{**neutral, "context": neutral["context"] + sentence})
        names[sentence] = row["character_name"]
    assert names[""] in {*WOMEN, *MEN, *ANYONE}
    assert names[" She is tired."] in WOMEN
    assert names[" He is tired."] in MEN
    assert names[" She is tired, and he is not."] == "Yong"


def test_a_copy_that_changes_few_words_is_left_out() -> None:
    words = "The lamp on the shelf has been mended and nobody talks about it, not even the neighbours upstairs. " * 2
    changes = {"context": f"{PLAIN['context']} {words}", "request": "Could you take the dog for the whole weekend?"}
    assert swapped_row(**changes)["character_name"] != PLAIN["character_name"]
    assert augmented(**changes) is None


def test_a_row_with_nothing_to_swap_has_no_copy() -> None:
    assert (
        augmented(
            character_name="Nadia",
            setting="the lighthouse",
            context="Deep in the lighthouse a lamp is being mended, and nobody talks.",
            request="Could you take the dog for the whole weekend?",
        )
        is None
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"response": "I have about 4.5 in me today, so Sunday it is, and not before."},
        {"response": "Today I am a four out of ten, so Sunday it is, and not before."},
    ],
)
def test_numbers_stay_if_the_texts_mention_points(changes: dict[str, Any]) -> None:
    row = augmented(**changes)
    assert row is not None
    for column in ("base_capacity", "effective_capacity", "support_needed", "capacity_factors", "calculation_steps"):
        assert row[column] == PLAIN[column]


def test_numbers_with_more_than_one_decimal_stay() -> None:
    changes = {
        "capacity_factors": [{"name": "a fall", "effect": -0.96}],
        "base_capacity": 5.96,
        "calculation_steps": ["5.96 - 0.96 = 5.0", "5.0 + 2.0 = 7.0"],
    }
    row = augmented(effective_capacity=5.0, support_needed=5.0, support_possible=7.0, **changes)
    assert row is not None
    assert {name: row[name] for name in changes} == changes


def test_a_row_with_the_most_and_largest_effects_is_moved() -> None:
    effects = [10.0 if place % 2 else -10.0 for place in range(MAX_FACTORS_ALLOWED)]
    row = augmented(
        capacity_factors=[{"name": f"swing {place}", "effect": effect} for place, effect in enumerate(effects)],
        base_capacity=5.0,
        effective_capacity=5.0,
        support_needed=5.0,
        support_possible=7.0,
        calculation_steps=scenarios.steps(5.0, effects),
    )
    assert row is not None
    assert len(row["calculation_steps"]) == MAX_FACTORS_ALLOWED + 1


def test_copies_have_no_tokens_cost_or_validation() -> None:
    row = augmented(
        generator="llm",
        model="m",
        prompt_tokens=10,
        completion_tokens=20,
        cost_usd=0.1,
        validation_model="v",
        validation_score=0.9,
    )
    assert row is not None
    assert (row["generator"], row["model"]) == ("llm", "m")
    nulls = ("prompt_tokens", "completion_tokens", "cost_usd", "validation_model", "validation_score")
    assert all(row[name] is None for name in nulls)


def test_no_rows_have_no_copies() -> None:
    assert augment(copies(scenarios.valid_rows(3), 1)[:0]).height == 0


def test_every_swap_has_others_to_be_swapped_for() -> None:
    assert len({*WOMEN, *MEN, *ANYONE}) == len(WOMEN) + len(MEN) + len(ANYONE)
    settings_ = [setting for kind in SETTINGS for setting in kind]
    assert len(set(settings_)) == len(settings_)
    assert all(setting == setting.lower() and setting.startswith("the ") for setting in settings_)
    assert len({relation.name for relation in RELATIONS}) == len(RELATIONS)


def replace_one(text: str, old: str, new: str) -> tuple[str, int]:
    texts, counts = replaced(pl.Series([text]), pl.Series([old]), pl.Series([new]))
    return texts.item(), int(counts[0])


ASCII = st.text("abB -_'.,1", max_size=30)


@given(ASCII, st.text("abB ", min_size=1, max_size=4), st.text("xyZ", max_size=6))
def test_phrases_are_replaced_as_a_regular_expression_would(text: str, old: str, new: str) -> None:
    anywhere = re.compile(rf"(?<![\w-]){re.escape(old)}(?![\w-])", re.IGNORECASE)
    capital = old[0].upper() + old[1:]
    found = [match[0] for match in anywhere.finditer(text)]
    if any(each not in (old, capital) for each in found):
        assert replace_one(text, old, new) == (text, UNSURE)
        return

    def written(match: re.Match[str]) -> str:
        return new if match[0] == old else new[:1].upper() + new[1:]

    assert replace_one(text, old, new) == (anywhere.sub(written, text), len(found))


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("\u201cNadia\u201d, said Nadia\u2014twice", "\u201cVera\u201d, said Vera\u2014twice"),
        ("Nadia", "Vera"),
        ("Nadia\u2019s", "Vera\u2019s"),
        ("NadiaNadia", None),
        ("é Nadia é", "é Vera é"),
    ],
)
def test_typographic_marks_end_a_word(text: str, result: str | None) -> None:
    assert replace_one(text, "Nadia", "Vera")[0] == (result or text)


@pytest.mark.parametrize("text", ["éNadia", "Nadiaé", "NADIA", "nadia", "Nadia 娜Nadia"])
def test_an_unsure_row_is_kept(text: str) -> None:
    assert replace_one(text, "Nadia", "Vera") == (text, UNSURE)
