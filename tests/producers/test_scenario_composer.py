"""The composer's texts are complete sentences without near duplicates, and they fit their numbers and their cell."""

from __future__ import annotations

import re
from itertools import combinations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from producers.scenario.composer import complexity_phrases, factors, replies, reply_frames, scenes, tasks
from producers.scenario.composer.composing import compose
from producers.scenario.composer.engine import PhraseGrammar, PhraseSlot
from producers.scenario.composer.grammar import grammar
from producers.scenario.draws import Draws
from producers.scenario.planning import plan
from producers.scenario.rows import Origin
from schema.scenario import FAMILY, TEXT, vocabulary
from schema.scenario.bands import AUTHENTICITY_TARGETS, CAPACITY_LEVELS, COMPLEXITY_TYPES
from schema.shingles import shingles
from schema.text_measures import distinct_ngrams, nearest

TEXTS = ("context", "request", "response")
# The count and seed of the acceptance test.
COUNT, SEED = 2000, 3


def composed(count: int, seed: int) -> pl.DataFrame:
    return compose(plan(count, seed), Origin(seed, 0, 0, "test/0"))


@pytest.fixture(scope="module")
def rows() -> pl.DataFrame:
    return composed(COUNT, SEED)


@pytest.mark.parametrize("seed", [SEED, 2**63 - 1])
def test_every_row_obeys_the_rules_of_the_family(seed: int) -> None:
    frame = composed(COUNT, seed)
    assert dict(frame.schema) == FAMILY.wire
    _, failures = FAMILY.rules.filter(FAMILY.derive(frame.with_columns(record=pl.lit(0, dtype=pl.UInt32))))
    assert failures.counts() == {}


def test_rows_have_the_planned_cells(rows: pl.DataFrame) -> None:
    cells = [tuple(cell.values()) for cell in FAMILY.cells()]
    assert rows.select(FAMILY.cell_axes).rows() == [cells[index] for index in plan(COUNT, SEED)]


def test_no_two_of_2000_texts_are_near_duplicates(rows: pl.DataFrame) -> None:
    texts = rows.select(TEXT).to_series()
    assert texts.n_unique() == rows["example_id"].n_unique() == COUNT
    threshold = FAMILY.near_duplicate_threshold
    # Even the most similar pair stays below half of the threshold.
    assert nearest(*shingles(texts)).max() < threshold / 2
    assert distinct_ngrams(texts) > 0.25


def test_no_two_of_100000_texts_are_the_same() -> None:
    assert composed(100_000, 11)["example_id"].n_unique() == 100_000


def test_a_text_names_character_setting_and_factors(rows: pl.DataFrame) -> None:
    for row in rows.head(400).rows(named=True):
        for column in ("context", "request"):
            assert re.search(rf"\b{row['character_name']}\b", row[column])
        for phrase in (row["setting"], f"my {row['character_relation']}", row["qualitative_anchor"]):
            assert phrase.lower() in row["context"].lower()
        names = [factor["name"] for factor in row["capacity_factors"]]
        assert len(set(names)) == len(names)
        assert all(name.lower() in row["context"].lower() for name in names)
        major = {*factors.DRAINS_MAJOR, *factors.GIVES_MAJOR}
        taking = {*factors.DRAINS_MAJOR, *factors.DRAINS_MINOR}
        for factor in row["capacity_factors"]:
            assert (factor["name"] in major) == (abs(factor["effect"]) >= factors.MAJOR_FROM_TENTHS / 10)
            assert (factor["name"] in taking) == (factor["effect"] < 0)


def test_texts_are_complete_sentences(rows: pl.DataFrame) -> None:
    for text in rows.head(700).select(TEXTS).unpivot()["value"]:
        assert not re.search(r"[{}]|  | [,.;:?!]|\.\.|\bNone\b", text), text
        assert re.fullmatch(r"[A-Z\"].*[.!?]", text), text
        assert not re.search(r"[.!?] [a-z]", text.replace('"', "")), text
        assert not re.search(r"\b[Aa] [aeiou](?!ne\b|nce\b|se)|\b[Aa]n [^aeiouh]", text), text
        assert not re.search(r"\b(\w+) \1\b", text), text


def test_the_size_of_a_task_fits_the_support_needed(rows: pl.DataFrame) -> None:
    size_of = {
        asked: size
        for pools in (*tasks.TASKS, tasks.URGENT_TASKS)
        for size, pool in enumerate(pools)
        for asked, _ in pool
    }
    edges = (*tasks.SIZES_FROM_TENTHS, 10**6)
    for row in rows.head(400).rows(named=True):
        asked = max((task for task in size_of if task in row["request"]), key=len)
        assert edges[size_of[asked]] <= round(row["support_needed"] * 10) < edges[size_of[asked] + 1]


def test_the_phrases_determine_the_type_and_the_target(rows: pl.DataFrame) -> None:
    for row in rows.head(400).rows(named=True):
        kind = COMPLEXITY_TYPES.index(row["complexity_type"])
        target = [band.name for band in AUTHENTICITY_TARGETS].index(row["authenticity_target"])
        kinds = [
            number
            for number, cues in enumerate(complexity_phrases.CUES)
            if any(cue.replace("{name}", row["character_name"]) in row["context"] for cue in cues)
        ]
        assert kinds == [kind]
        answered = [
            (one, other)
            for one, moves in enumerate(replies.MOVES)
            for other, pool in enumerate(moves)
            if any(move in row["response"] for move in pool)
        ]
        assert answered == [(kind, target)]


def test_every_bin_has_phrases_that_no_other_bin_has() -> None:
    levels, targets, types = len(CAPACITY_LEVELS), len(AUTHENTICITY_TARGETS), len(COMPLEXITY_TYPES)
    by_type = [complexity_phrases.CUES, complexity_phrases.OPENINGS, complexity_phrases.PRESSURES, replies.MOVES]
    assert [len(pools) for pools in by_type] == [types] * 4
    assert [
        len(pools)
        for pools in (
            *replies.MOVES,
            reply_frames.STANDS,
            reply_frames.BEGINNINGS,
            reply_frames.CLOSINGS,
            reply_frames.URGENT_CLOSINGS,
        )
    ] == ([targets] * (types + 4))
    assert [len(pools) for pools in (*reply_frames.STANDS, scenes.BUSY, scenes.DETAILS)] == [levels] * (targets + 2)
    assert len(scenes.SETTINGS) == len(tasks.TASKS) == len(vocabulary.DOMAINS)
    assert {len(sizes) for sizes in (*tasks.TASKS, tasks.URGENT_TASKS)} == {len(tasks.SIZES_FROM_TENTHS)}
    moves = [set(pool) for pools in replies.MOVES for pool in pools]
    stands = [set(pool) for pools in reply_frames.STANDS for pool in pools]
    drawn = [moves, stands, *by_type[:3], scenes.DETAILS, reply_frames.BEGINNINGS]
    for pools in drawn:
        for one, other in combinations(map(set, pools), 2):
            assert not one & other


def test_relations_fit_names_and_ages(rows: pl.DataFrame) -> None:
    known = {relation.name: relation for relation in vocabulary.RELATIONS}
    names = (vocabulary.WOMEN, vocabulary.MEN, vocabulary.WOMEN + vocabulary.MEN)
    assert set(rows["character_relation"]) == set(known)
    for name, relation, age_band in rows.select("character_name", "character_relation", "character_age_band").rows():
        assert name in names[known[relation].gender]
        assert age_band in known[relation].age_bands
    assert not set(vocabulary.WOMEN) & set(vocabulary.MEN)


def test_composed_rows_are_marked_as_not_written_by_a_model(rows: pl.DataFrame) -> None:
    assert rows["generator"].unique().to_list() == ["composer"]
    for column in ("model", "prompt_tokens", "completion_tokens", "cost_usd", "validation_model", "answer_fault"):
        assert rows[column].null_count() == COUNT
    assert rows["scenario_id"].n_unique() == COUNT
    assert rows["scenario_id"][0] == f"{SEED:x}-0"


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**63 - 1), st.integers(0, 2**40), st.lists(st.integers(0, 127), min_size=1, max_size=40))
def test_a_row_depends_only_on_its_cell_its_seed_and_its_number(seed: int, first: int, cells: list[int]) -> None:
    whole = compose(np.array(cells), Origin(seed, first, 7, "a"))
    one = compose(np.array(cells[-1:]), Origin(seed, first + len(cells) - 1, 7, "a"))
    assert one.equals(whole.tail(1))


WORDS = st.text("abcé ,", max_size=6)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(WORDS, min_size=1, max_size=4), min_size=1, max_size=3),
    st.lists(st.tuples(WORDS, st.sampled_from(["{leaf}", "{^leaf}", "{other}", "{^other}"])), min_size=1, max_size=4),
    st.integers(1, 50),
    st.integers(0, 1000),
)
def test_a_text_is_its_template_with_every_slot_replaced(
    leaves: list[list[str]], parts: list[tuple[str, str]], count: int, seed: int
) -> None:
    root = "".join(word + slot for word, slot in parts)
    compiled = PhraseGrammar(
        {
            "leaf": PhraseSlot(leaves),
            "other": PhraseSlot((("x{leaf}", "é"),)),
            "root": PhraseSlot(((root, f"{root}!"),)),
        }
    )
    draws = Draws(seed, 0, count)
    pools = {"leaf": draws.below("pool", len(leaves))}
    choice = compiled.chosen(draws, pools, {})
    texts = compiled.texts(choice, "root").to_list()
    drawn = {
        slot: compiled.drawn(slot, pools.get(slot, np.zeros(count, np.int64)), draws)
        for slot in ("leaf", "other", "root")
    }
    for row, text in enumerate(texts):
        leaf = leaves[pools["leaf"][row]][drawn["leaf"][row]]
        other = ("x{leaf}", "é")[drawn["other"][row]].replace("{leaf}", leaf)
        expected = (root, f"{root}!")[drawn["root"][row]]
        # If the slot itself is empty, the next letter is capital.
        plain = expected
        for slot, value in (("leaf", leaf), ("other", other)):
            plain = plain.replace(f"{{{slot}}}", value).replace(f"{{^{slot}}}", f"\0{value}")
        assert text == re.sub("\0+(.?)", lambda match: upper(match[1]), plain)


def upper(letter: str) -> str:
    """Return the letter in upper case if it is ASCII, because the engine changes only ASCII letters."""
    return letter.upper() if letter.isascii() else letter


def test_phrases_are_the_rows_templates_of_the_slots_asked_for() -> None:
    compiled = PhraseGrammar({"a": PhraseSlot((("x", "y"),)), "b": PhraseSlot((("z",),))})
    choice = compiled.chosen(Draws(1, 0, 3), {}, {"a": np.array([0, 1, 0])})
    assert compiled.phrases(choice, ["a", "b"]).to_list() == ["x", "z", "y", "z", "x", "z"]
    wanted = np.array([[True, False], [True, True], [False, False]])
    assert compiled.phrases(choice, ["a", "b"], wanted).to_list() == ["x", "y", "z"]


@pytest.mark.parametrize(
    ("slots", "message"),
    [({"a": PhraseSlot(((),))}, "empty pool"), ({"a": PhraseSlot((("{b}",),))}, "names b, which is not a slot")],
)
def test_an_invalid_grammar_is_refused(slots: dict[str, PhraseSlot], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PhraseGrammar(slots)


def test_a_grammar_is_compiled_once() -> None:
    assert grammar() is grammar()
    assert grammar().sizes("cue").tolist() == [len(pool) for pool in complexity_phrases.CUES]
