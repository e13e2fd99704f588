"""Prompts have short rules, a line for each cell with its own bounds, and a closed JSON schema."""

from __future__ import annotations

import json
import re

import pytest

from producers.scenario.llm.answers import positions, read
from producers.scenario.llm.meter import Usage
from producers.scenario.llm.pace import SCENARIOS_PER_CALL
from producers.scenario.llm.prompts import (
    FORM,
    RULES,
    WRITING_ROLES,
    ContextWatch,
    estimated_tokens,
    models,
    request_parameters,
    role_of,
    validating,
    validation_schema,
    writing,
    writing_schema,
)
from producers.scenario.llm.replies import Reply
from schema.errors import ConfigError
from schema.scenario import FAMILY
from schema.scenario.bands import AUTHENTICITY_TARGETS, CAPACITY_LEVELS, COMPLEXITY_TYPES, support_bounds
from schema.settings import load_settings

CELLS = list(FAMILY.cells())


def test_the_instructions_take_at_most_300_tokens() -> None:
    assert "a character at x/10 can provide up to (x+2)/10" in RULES.lower()
    # A second estimate to check the first: a word is about 1.3 tokens, a punctuation mark is 1.
    words_and_marks = len(re.findall(r"\w+", RULES)) * 1.3 + len(re.findall(r"[^\w\s]", RULES))
    assert estimated_tokens(RULES) <= 300
    assert estimated_tokens(FORM) <= 170
    assert words_and_marks <= 1.2 * estimated_tokens(RULES)


def test_the_rules_state_the_form_with_all_keys_for_servers_without_schemas() -> None:
    system = writing({"run-1": CELLS[0]}, {})[0]["content"]
    example = system[system.index('{"scenarios"') : system.index("]}.") + 2]
    keys = writing_schema(1)["properties"]["scenarios"]["items"]["required"]
    assert list(json.loads(example)["scenarios"][0]) == keys
    assert set(read(Reply(example, "stop", False, Usage(), 1), ["run-1"]).scenarios) == {"run-1"}
    validation = validating({})[0]["content"]
    assert '{"scores": [{"id": "s1", ' in validation
    # The support needed can exceed 10 points.
    assert "out of 10" not in validation


def test_rules_and_schema_are_the_same_for_every_call_of_a_size() -> None:
    first, second = ({f"{run}-{number}": CELLS[number] for number in range(3)} for run in "ab")
    assert writing(first, {}) == writing(second, {})
    assert writing_schema(3) is writing_schema(3)
    assert validation_schema(3) is validation_schema(3)
    assert writing_schema(3) != writing_schema(2)


def test_the_line_of_a_cell_holds_its_bounds() -> None:
    for cell in CELLS:
        (system, user) = writing({"run-1": cell}, {})
        assert (system["role"], user["role"]) == ("system", "user")
        line = user["content"]
        level = next(band for band in CAPACITY_LEVELS if band.name == cell["capacity_level"])
        target = next(band for band in AUTHENTICITY_TARGETS if band.name == cell["authenticity_target"])
        assert line.startswith(f"s1: C {level.low}-{level.high};")
        low, high = re.findall(r"C([+-][0-9.]+)", line)
        # At any capacity, raised to the line's floor, these equal the family's bounds.
        floor = 1.0 if "at least 1.0" in line else 0.0
        for capacity in (level.low, level.high):
            asked = max(floor, capacity + float(low)), max(floor, capacity + float(high))
            assert asked == pytest.approx(support_bounds(target.name, capacity))
        assert f"score {target.low:.2f}-" in line
        assert f"type {cell['complexity_type']} (" in line
        assert all(anchor in line for anchor in level.anchors)


def test_the_line_of_an_id_asked_for_again_names_its_fault() -> None:
    asked = {"r-1": CELLS[3], "r-2": CELLS[4]}
    first, second = writing(asked, {"r-2": "calculation_wrong"})[1]["content"].splitlines()
    assert "wrong" not in first
    assert second.endswith("; wrong last time: calculation_wrong")


def test_the_schema_closes_every_object() -> None:
    schema = writing_schema(SCENARIOS_PER_CALL)

    def objects(node: object) -> list[dict[str, object]]:
        inside = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
        own = [node] if isinstance(node, dict) and node.get("type") == "object" else []
        return own + [node for part in inside for node in objects(part)]

    nodes = objects(json.loads(json.dumps(schema)))
    assert len(nodes) == 3
    for part in nodes:
        assert part["additionalProperties"] is False
        assert part["required"] == list(part["properties"])
    scenario = schema["properties"]["scenarios"]["items"]["properties"]
    assert scenario["id"]["enum"] == positions(SCENARIOS_PER_CALL)
    assert scenario["complexity_type"]["enum"] == list(COMPLEXITY_TYPES)


def test_every_type_has_a_role() -> None:
    assert {role_of(name) for name in COMPLEXITY_TYPES} == set(WRITING_ROLES)
    with pytest.raises(KeyError):
        role_of("something_else")


def test_request_parameters_of_a_role_come_after_the_shared_ones() -> None:
    settings = load_settings(llm_request={"seed": 1, "temperature": 0.7, "validation": {"temperature": 0}})
    assert request_parameters(settings, "simple") == {"seed": 1, "temperature": 0.7}
    assert request_parameters(settings, "validation") == {"seed": 1, "temperature": 0}


def test_a_budget_in_money_needs_every_price() -> None:
    prices = {"s": (1.0, 1.0), "c": (1.0, 1.0)}
    named = {"llm_model_simple": "s", "llm_model_complex": "c", "llm_budget_usd": 1.0, "llm_prices": prices}
    assert models(load_settings(**named)) == {"simple": "s", "complex": "c"}
    with pytest.raises(ConfigError, match="price of v: set FEEDMILL_LLM_PRICES"):
        models(load_settings(**named, llm_model_validation="v"))


def test_a_prompt_with_too_few_reported_tokens_counts_as_truncated() -> None:
    watch = ContextWatch()
    prompt = [{"role": "system", "content": "x" * 800}, {"role": "user", "content": "y" * 800}]
    assert not watch.is_truncated("m", prompt, None, alike=True)
    assert watch.is_truncated("m", prompt, 199, alike=True)
    assert not watch.is_truncated("m", prompt, 200, alike=True)
    # A denser prompt of the same model lowers the limit for similar prompts, but not for other models or prompts.
    shorter = [{"role": "user", "content": "z" * 800}]
    assert not watch.is_truncated("m", shorter, 200, alike=True)
    assert watch.is_truncated("m", prompt, 260, alike=True)
    assert not watch.is_truncated("another", prompt, 260, alike=True)
    assert not watch.is_truncated("m", prompt, 260, alike=False)
    assert not watch.is_truncated("m", prompt, 1600, alike=False)
    assert not watch.is_truncated("m", prompt, 300, alike=True)


def test_a_prompt_no_longer_than_a_complete_one_is_complete_whatever_is_reported() -> None:
    watch = ContextWatch()
    prompt = [{"role": "user", "content": "x" * 1600}]
    assert not watch.is_truncated("m", prompt, 400, alike=True)
    assert not watch.is_truncated("m", prompt, 10, alike=True)
    assert watch.is_truncated("another", prompt, 10, alike=True)
    watch.leave_out("another")
    assert not watch.is_truncated("another", prompt, 10, alike=True)
