"""Lines of JSON: an accepted line gives a row with the same values, and every other line is refused with a reason."""

from __future__ import annotations

import json
from dataclasses import replace
from math import isclose
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schema.family import Family
from schema.json_form import json_lines
from schema.json_rows import lines_of, read_lines
from schema.parts import load_part
from schema.registry import FAMILIES

SAMPLES: dict[str, pl.DataFrame] = {name: load_part(family, "samples")(20) for name, family in FAMILIES.items()}
families = pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES.keys())
# Values that another program may put anywhere.
scalars = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(-1e9, 1e9) | st.text(max_size=4)
values = scalars | st.just(float("nan")) | st.lists(scalars, max_size=3) | st.dictionaries(st.text(max_size=3), scalars)
GOOD = ("7", 7, 7.5, True, [], {"x": 1})


def same(read: Any, written: Any) -> bool:
    """Return whether a row's value equals its line's, with the same types; null for an absent value."""
    if isinstance(read, dict) and isinstance(written, dict):
        return all(same(value, written.get(name)) for name, value in read.items())
    if isinstance(read, list) and isinstance(written, list):
        return len(read) == len(written) and all(map(same, read, written))
    if isinstance(read, float) and type(written) in (float, int):
        return isclose(read, written, rel_tol=1e-6, abs_tol=1e-30)
    if type(read) is int and type(written) is float:
        return read == written
    return type(read) is type(written) and bool(read == written)


@families
def test_written_lines_are_read_back_unchanged(family: Family) -> None:
    frame = SAMPLES[family.name]
    rows, others = read_lines(json_lines(frame, family).splitlines(), family)
    assert others == []
    assert rows.select(*family.columns, "augmented_from").equals(frame.select(*family.columns, "augmented_from"))
    assert rows.schema == frame.schema == read_lines([], family)[0].schema
    assert rows["example_id"].null_count() == rows["split"].null_count() == frame.height


@families
@given(data=st.data())
def test_a_row_has_the_values_of_its_line(family: Family, data: st.DataObject) -> None:
    document = json.loads(json_lines(SAMPLES[family.name][:1], family))
    place = document
    while isinstance(place[key := data.draw(st.sampled_from(sorted(place)))], dict) and data.draw(st.booleans()):
        place = place[key]
    place[key] = data.draw(values)
    line = json.dumps(document).encode()
    rows, others = read_lines([line], family)
    assert rows.height + len(others) == 1
    if others:
        assert (others[0].line, others[0].reason) == (line, "wrong_type")
    else:
        assert same(rows.select(family.columns.keys()).row(0, named=True), family.flatten(document))


@families
def test_every_column_refuses_values_of_other_types(family: Family) -> None:
    bare = replace(family, flatten=lambda document: document)
    for name, dtype in family.columns.items():
        taken = {type(good) for good in GOOD if read_lines([json.dumps({name: good}).encode()], bare)[0].height}
        inside = getattr(dtype, "inner", None)
        if inside is not None:
            assert taken == {list}, name
            _, others = read_lines([json.dumps({name: [True]}).encode()], bare)
            assert [other.reason for other in others] == ["wrong_type"]
        else:
            plain = {pl.String(): {str}, pl.Boolean(): {bool}}.get(dtype, {int} if dtype.is_integer() else {int, float})
            assert taken == plain, name


@pytest.mark.parametrize("origin", ["0x12345678901234", " 234567890123456", "1234", 17, "+234567890123456"])
def test_an_origin_is_sixteen_hex_digits(origin: object) -> None:
    family = FAMILIES["reduction"]
    document = json.loads(json_lines(SAMPLES["reduction"][:1], family))
    rows, _ = read_lines([json.dumps({**document, "augmented_from": "00000000000000fF"}).encode()], family)
    assert rows["augmented_from"].to_list() == [255]
    _, others = read_lines([json.dumps({**document, "augmented_from": origin}).encode()], family)
    assert [other.reason for other in others] == ["wrong_type"]


def test_an_object_may_cover_several_lines() -> None:
    lines = [b'{"a": 1}', b"", b'{"a": 2}']
    assert lines_of(b"\n".join(lines)) == [lines[0], lines[2]]
    written = json.dumps({"a": 1, "b": 2}, indent=1).encode()
    assert lines_of(written) == [written]
    assert lines_of(b" \n ") == []


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"base_capacity": NaN}', "base_capacity is nan, which Float64 does not hold"),
        ('{"prompt_tokens": 1.5}', "prompt_tokens is 1.5, which Int64 does not hold"),
        ('{"seed": 1' + 400 * "0" + "}", "seed is 1" + 23 * "0" + ", which Int64 does not hold"),
        ('{"setting": true}', "setting is a JSON bool, which String does not hold"),
    ],
)
def test_a_refused_line_names_the_wrong_value(line: str, message: str) -> None:
    _, others = read_lines([line.encode()], FAMILIES["scenario"])
    assert message in others[0].message


@pytest.mark.parametrize("value", [101.0, 101, -0.0, 1.01e2])
def test_a_whole_number_written_as_a_float_is_that_integer(value: float) -> None:
    document = json.loads(json_lines(SAMPLES["reduction"][:1], FAMILIES["reduction"]))
    rows, others = read_lines([json.dumps({**document, "step_k": value}).encode()], FAMILIES["reduction"])
    assert others == []
    assert rows["step_k"].to_list() == [int(value)]


@pytest.mark.parametrize("value", [101.5, 2.0**31, 1e300, float("inf"), 2.0**53 + 2, "101.0", True])
def test_a_float_that_does_not_fit_its_integer_column_is_refused(value: object) -> None:
    document = json.loads(json_lines(SAMPLES["reduction"][:1], FAMILIES["reduction"]))
    for name in ("step_k", "steps_total"):
        _, others = read_lines([json.dumps({**document, name: value}).encode()], FAMILIES["reduction"])
        assert [other.reason for other in others] == ["wrong_type"]
