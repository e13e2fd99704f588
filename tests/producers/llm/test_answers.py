"""A model's answers become rows or faults: every answer is checked, and no part is invented."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producers.scenario.llm import faults
from producers.scenario.llm.answers import (
    JudgedAnswer,
    broken_rules,
    judge,
    objects_in,
    positions,
    read,
    scores_in,
    to_frame,
)
from producers.scenario.llm.faults import (
    BELOW_MINIMUM,
    CUT_OFF,
    DUPLICATED,
    EMPTY,
    MALFORMED,
    MISSING,
    REFUSED,
    SERVER_ERROR,
    THINKING_CUT_OFF,
    THINKING_ONLY,
    TIMED_OUT,
    WRONG_CELL,
)
from producers.scenario.llm.meter import Usage
from producers.scenario.llm.replies import Reply
from schema.scenario import FAMILY
from schema.scenario.rules import ANSWER_FAULTS
from tests.producers.llm.server import GRID, ModelServer, well

COMMON = {"generator": "llm", "model": "m", "seed": 1, "chunk": 1}
MAKER = ModelServer(lambda call: well)
CELLS = {"r-0": 0, "r-1": 40, "r-2": 77}
ASKED = {name: dict(zip(FAMILY.cell_axes, GRID[cell], strict=True)) for name, cell in CELLS.items()}


def correct(**cells: int) -> list[dict[str, Any]]:
    """Return a correct scenario for each id of ASKED; `cells` replaces the cells of some ids."""
    return [MAKER.scenario(name, cells.get(name.replace("-", "_"), cell)) for name, cell in CELLS.items()]


def reply(text: str, finish_reason: str = "stop", *, refused: bool = False, thought: bool = False) -> Reply:
    return Reply(text, finish_reason, refused, Usage(), 1, thought)


def by_position(scenarios: list[Any]) -> list[Any]:
    """Return scenarios with the ids of an answer in place of those of ASKED."""
    places = dict(zip(ASKED, positions(len(ASKED)), strict=True))
    return [{**scenario, "id": places.get(scenario["id"], scenario["id"])} for scenario in scenarios]


def judged(scenarios: list[Any], texts: set[int] | None = None) -> JudgedAnswer:
    return judge(read(reply(json.dumps({"scenarios": by_position(scenarios)})), ASKED), ASKED, COMMON, texts or set())


def test_correct_answers_are_accepted_by_id_in_any_order() -> None:
    result = judged(correct()[::-1])
    assert result.faults == {}
    frame = to_frame(result.accepted[name] for name in ASKED)
    assert frame.select(FAMILY.cell_axes).rows() == [tuple(cell.values()) for cell in ASKED.values()]
    assert broken_rules(frame) == [[], [], []]
    assert frame["scenario_id"].to_list() == list(ASKED)


def test_an_answer_for_the_cell_of_another_open_id_is_accepted_for_that_id() -> None:
    result = judged(correct(r_0=CELLS["r-2"])[:2])
    assert set(result.accepted) == {"r-1", "r-2"}
    assert result.accepted["r-2"]["scenario_id"] == "r-2"
    assert result.faults == {"r-0": "answer_wrong_cell"}


def test_an_id_keeps_its_own_answer_if_another_answer_has_its_cell_too() -> None:
    scenarios = correct(r_0=CELLS["r-2"])
    result = judged(scenarios)
    assert result.accepted["r-2"]["context"] == scenarios[2]["context"]
    assert result.faults == {"r-0": "answer_wrong_cell"}
    assert result.refused["r-0"]["answer_fault"] == "answer_wrong_cell"


def test_answers_with_rotated_ids_are_all_accepted_for_their_cells() -> None:
    result = judged(correct(r_0=CELLS["r-1"], r_1=CELLS["r-2"], r_2=CELLS["r-0"]))
    assert set(result.accepted) == set(ASKED)
    assert (result.faults, result.refused) == ({}, {})


def test_a_cell_that_was_not_asked_for_is_refused() -> None:
    result = judged(correct(r_1=5))
    assert result.faults == {"r-1": "answer_wrong_cell"}
    assert broken_rules(to_frame([result.refused["r-1"]])) == [["answer_wrong_cell"]]


def test_labels_come_from_the_numbers_and_not_from_the_question() -> None:
    scenario = MAKER.scenario("r-0", CELLS["r-0"])
    scenario |= {"capacity_level": "high", "authenticity_target": "excellent", "effective_capacity": 9.0}
    row = judged([scenario]).accepted["r-0"]
    assert to_frame([row]).select(FAMILY.cell_axes).row(0) == GRID[0]


def test_numbers_between_two_levels_have_no_label_and_break_the_rules() -> None:
    scenario = MAKER.scenario("r-0", CELLS["r-0"]) | {"base_capacity": 2.0, "capacity_factors": []}
    scenario["base_capacity"] = 1.7
    result = judged([scenario])
    assert "r-0" not in result.accepted
    assert to_frame([result.refused["r-0"]])["capacity_level"].to_list() == [None]
    assert broken_rules(to_frame([result.refused["r-0"]]))[0]


def test_a_contradiction_is_named_by_the_rule_that_it_breaks() -> None:
    scenarios = correct()
    scenarios[1] |= {"calculation_steps": ["1.0 + 1.0 = 3.0"]}
    result = judged(scenarios)
    assert "calculation_wrong" in result.faults["r-1"].split(",")
    assert set(result.accepted) == {"r-0", "r-2"}


def test_a_text_that_the_run_already_has_is_refused() -> None:
    scenarios = correct()
    first = judged(scenarios)
    assert len(first.texts) == 3
    again = judged(scenarios, first.texts)
    assert again.faults == dict.fromkeys(ASKED, "answer_duplicated")
    twins = [scenarios[0], {**scenarios[0], "id": "r-1"}]
    assert judged(twins).faults["r-1"] == "answer_duplicated"


def test_an_id_that_is_answered_twice_has_no_answer() -> None:
    scenarios = correct()
    result = judged([*scenarios, scenarios[0]])
    assert result.faults == {"r-0": "answer_duplicated"}


@pytest.mark.parametrize(
    "change",
    [
        {"authenticity_score": "0.7"},
        {"authenticity_score": None},
        {"base_capacity": True},
        {"base_capacity": float("nan")},
        {"support_needed": 10**400},
        {"capacity_factors": "none"},
        {"capacity_factors": [{"name": "x"}]},
        {"calculation_steps": ["1 + 1 = 2"] * 100},
        {"request": 5},
        {"response": "\ud800"},
        {"context": "x" * 5000},
    ],
)
def test_an_answer_of_a_wrong_form_is_malformed(change: dict[str, Any]) -> None:
    scenarios = correct()
    scenarios[0] |= change
    result = judged(scenarios)
    assert result.faults == {"r-0": "answer_malformed"}
    assert set(result.accepted) == {"r-1", "r-2"}


def test_every_fault_is_a_reason_that_the_rules_know() -> None:
    of_answers = {BELOW_MINIMUM, TIMED_OUT, EMPTY, THINKING_ONLY, THINKING_CUT_OFF, SERVER_ERROR}
    assert of_answers | {MISSING, MALFORMED, DUPLICATED, WRONG_CELL, CUT_OFF, REFUSED} == set(ANSWER_FAULTS)


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        (reply('{"scenarios": []}'), MISSING),
        (reply("no."), MALFORMED),
        (reply("[" * 100_000), MALFORMED),
        (reply("", refused=True), REFUSED),
        (reply('{"scenarios": [{"id": "a"', "length"), CUT_OFF),
        (reply("", "length"), CUT_OFF),
        (reply(" \n"), EMPTY),
        (reply("", thought=True), THINKING_ONLY),
        (reply("", "length", thought=True), THINKING_CUT_OFF),
        (reply("no.", thought=True), MALFORMED),
    ],
)
def test_each_missing_answer_has_its_own_fault(given: Reply, fault: str) -> None:
    assert read(given, ["a", "b"]).faults == dict.fromkeys("ab", fault)


def test_faults_that_a_user_can_mend_have_one_line_of_advice() -> None:
    mendable = [CUT_OFF, EMPTY, MALFORMED, REFUSED, SERVER_ERROR, THINKING_CUT_OFF, THINKING_ONLY]
    lines = faults.advice([*mendable, WRONG_CELL, "calculation_wrong"])
    assert [line.split(":")[0] for line in lines] == mendable


@pytest.mark.parametrize(
    ("text", "items"),
    [
        ('{"n": [1, 2, 3]} no: {"n": [4]}', [4]),
        ('{"n": [1]} and so on: {"n": []}', [1]),
        ('{"n": [1]} then {"n": [2, 3', [1]),
        ('{"n": [1, 2, {"n": [7]}]}', [1, 2, {"n": [7]}]),
        ('{"n": [1, 2, ?} {"n": [3, ?}', [1, 2]),
        ('Sure:\n```json\n[{"id": 1}, {"id": 2}]\n```', [{"id": 1}, {"id": 2}]),
        ('{"id": 1, "a": [\n{"id": 3}]}\n{"x": 1}\n{"id": 2}', [{"id": 1, "a": [{"id": 3}]}, {"id": 2}]),
        ('{"id": 1}\n{"id": 2, ', [{"id": 1}]),
    ],
)
def test_the_last_complete_list_or_bare_objects_count(text: str, items: list[Any]) -> None:
    assert objects_in(text, "n")[0] == items


ITEMS = st.lists(
    st.dictionaries(st.sampled_from(["id", "text", "n"]), st.one_of(st.text(max_size=20), st.integers()), max_size=3),
    max_size=5,
)


@given(items=ITEMS, kept=st.floats(0, 1), indent=st.sampled_from([None, 1]), before=st.sampled_from(["", "Sure {x}: "]))
def test_the_complete_items_of_a_truncated_list_are_kept(
    items: list[Any], kept: float, indent: int | None, before: str
) -> None:
    text = before + json.dumps({"scenarios": items}, indent=indent)
    cut = text[: round(len(text) * kept)]
    complete, is_whole = objects_in(cut, "scenarios")
    assert complete == items[: len(complete)]
    ending = "\n}" if indent else "}"
    assert is_whole == (len(cut) >= len(text) - len(ending))
    whole = [json.dumps({"scenarios": items[: count + 1]}, indent=indent) for count in range(len(items))]
    closing = len("\n ]\n}") if indent else len("]}")
    assert len(complete) == sum(len(before) + len(part) - closing <= len(cut) for part in whole)


@given(st.text())
def test_any_text_is_read_without_an_error(text: str) -> None:
    for dressed in (text, f'{{"scenarios": [{text}', f'{{"scenarios": [{{"id": "s1", {text}'):
        answers = read(reply(dressed), list(ASKED))
        assert set(answers.scenarios) | set(answers.faults) == set(ASKED)
    scores_in(f'{{"scores": [{text}', list(ASKED))


def test_scores_are_matched_by_id_and_invalid_ones_omitted() -> None:
    items = [
        {"id": "s2", "score": 1},
        {"id": "s1", "score": 0.25},
        {"id": "s3", "score": 0.5},
        {"id": "s3", "score": 0.6},
        {"id": "s4", "score": 7},
        {"id": "s5", "score": True},
        {"id": "s6", "score": "0.5"},
        {"id": "s7", "score": 0.5},
        {"id": ["s1"], "score": 0.5},
        "s2",
    ]
    assert scores_in(json.dumps({"scores": items}), "abcdef") == {"a": 0.25, "b": 1.0}
