"""Decoding: any bytes of a record become rows or dead letters with a reason, and nothing raises."""

from __future__ import annotations

import json
import math
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schema.record import Envelope, encode
from schema.reduction import FAMILY
from schema.scenario import FAMILY as SCENARIO
from schema.source_lines import line_ranges, parse_line_ranges, source_headers
from streams.refine.decode import Intake, RawRecord, RecordLimits, read_group
from tests import reductions, scenarios

LIMITS = RecordLimits(record_bytes=1_000_000, rows=10_000, row_bytes=900_000, decoded_bytes=4_000_000)
ARROW = Envelope("reduction", "raw", 1, "r", 4, 0, 1).headers()
JSON_TYPE = [("content-type", b"application/json")]
DOCUMENT = {
    "term": "(\\.0)(\\.0)",
    "step_k": 0,
    "steps_total": 1,
    "trace_id": "t",
    "target_span": [0, 10],
    "outcome": "normal_form",
}


def read(value: bytes | None, headers: list[tuple[str, bytes]]) -> Intake:
    return read_group([RawRecord("t", 0, 5, 0, value, headers)], FAMILY, LIMITS)


def reason(value: bytes | None, headers: list[tuple[str, bytes]]) -> str:
    intake = read(value, headers)
    assert intake.frame.height == 0
    assert len(intake.dead) == 1
    assert intake.dead[0].value == (value or b"")
    return intake.dead[0].reason


def with_type(ce_type: str) -> list[tuple[str, bytes]]:
    return [(name, ce_type.encode() if name == "ce_type" else value) for name, value in ARROW]


def test_a_micro_batch_comes_back_as_it_went() -> None:
    rows = reductions.valid(30)
    intake = read(encode(rows), ARROW)
    assert intake.frame.drop("record").equals(rows)
    assert (intake.runs, intake.chunks, intake.dead) == (["r"], [4], [])


def test_columns_are_read_by_name_and_absent_ones_are_null() -> None:
    rows = reductions.valid(3)
    shuffled = rows.select(reversed(rows.columns)).drop("recipe").with_columns(extra=pl.lit(1))
    intake = read(encode(shuffled), ARROW)
    assert intake.frame.columns == [*FAMILY.wire, "record"]
    assert intake.frame["recipe"].null_count() == 3
    assert intake.frame["term"].to_list() == rows["term"].to_list()


@pytest.mark.parametrize(
    ("value", "headers", "expected"),
    [
        (b"\x00\xff garbage", ARROW, "garbage"),
        (b"\x00\xff garbage", [], "not_json"),
        (encode(reductions.valid(5))[:-40], ARROW, "garbage"),
        (encode(reductions.valid(5))[:200], ARROW, "garbage"),
        (encode(reductions.valid(1).head(0)), ARROW, "empty_batch"),
        (b"", ARROW, "empty_record"),
        (None, [], "empty_record"),
        (b"[1, 2]", JSON_TYPE, "not_an_object"),
        (b"17", JSON_TYPE, "not_an_object"),
        (b"[" * 100_000, JSON_TYPE, "not_json"),
        (b'{"term": 5}', JSON_TYPE, "wrong_type"),
        (b'{"term": "\\ud800"}', JSON_TYPE, "wrong_type"),
        (b'{"step_k": true}', JSON_TYPE, "wrong_type"),
        (b'{"step_k": 3000000000}', JSON_TYPE, "wrong_type"),
        (b'{"meta": {"growth": NaN}}', JSON_TYPE, "wrong_type"),
        (b"{}", [("content-type", b"image/png")], "unknown_content_type"),
        (encode(reductions.valid(2).with_columns(pl.col("step_k").cast(pl.String))), ARROW, "wrong_type"),
        (encode(reductions.valid(2)), with_type("feedmill.reduction.raw.v9"), "unknown_schema_version"),
        (encode(reductions.valid(2)), with_type("feedmill.poetry.raw.v1"), "unknown_family"),
        (encode(reductions.valid(2)), with_type("feedmill.reduction.clean.v1"), "wrong_topic"),
        (encode(reductions.valid(2)), with_type("com.example.thing"), "malformed_ce_type"),
        (b"x" * 1_000_001, ARROW, "record_too_large"),
        (encode(reductions.valid(1).with_columns(recipe=pl.lit("x" * 950_000))), ARROW, "row_too_large"),
        (encode(pl.DataFrame({"term": ["x" * 100_000] * 50})), ARROW, "too_many_bytes"),
        (encode(pl.DataFrame({"term": [None] * 10_001})), ARROW, "too_many_rows"),
    ],
)
def test_each_kind_of_bad_record_has_its_reason(
    value: bytes | None, headers: list[tuple[str, bytes]], expected: str
) -> None:
    assert reason(value, headers) == expected


def test_one_bad_line_does_not_reject_its_neighbours() -> None:
    lines = [json.dumps(DOCUMENT).encode(), b"not json", json.dumps({**DOCUMENT, "trace_id": "u"}).encode(), b"[]"]
    intake = read(b"\n".join(lines), JSON_TYPE)
    assert intake.frame["trace_id"].to_list() == ["t", "u"]
    assert [(letter.reason, letter.value) for letter in intake.dead] == [
        ("not_json", b"not json"),
        ("not_an_object", b"[]"),
    ]


def test_a_pretty_printed_object_is_one_row() -> None:
    intake = read(json.dumps(DOCUMENT, indent=2).encode(), [])
    assert intake.frame.select("term", "span_start", "span_end").rows() == [("(\\.0)(\\.0)", 0, 10)]


def test_a_bad_record_leaves_the_others_of_its_group_in_order() -> None:
    good = [encode(reductions.valid(2, first)) for first in (0, 2)]
    records = [
        RawRecord("t", 0, 5, 0, good[0], ARROW),
        RawRecord("t", 0, 6, 0, b"garbage", ARROW),
        RawRecord("t", 0, 9, 0, json.dumps(DOCUMENT).encode(), JSON_TYPE),
        RawRecord("t", 0, 11, 0, good[1], ARROW),
    ]
    intake = read_group(records, FAMILY, LIMITS)
    assert intake.frame["record"].to_list() == [0, 0, 2, 3, 3]
    assert [(letter.record, letter.reason) for letter in intake.dead] == [(1, "garbage")]


@pytest.mark.parametrize("bad", [b"not json", b'{"term": 5}', b"[]"])
@pytest.mark.parametrize("good", [0, 1])
def test_every_bad_line_counts_as_a_row(bad: bytes, good: int) -> None:
    lines = [bad] * 5000 + [json.dumps(DOCUMENT).encode()] * good
    intake = read(b"\n".join(lines), JSON_TYPE)
    assert intake.frame.height == good
    assert sum(letter.rows for letter in intake.dead) == 5000
    # All lines of one reason are in one letter, with their original bytes.
    assert [letter.value for letter in intake.dead] == [b"\n".join([bad] * 5000)]


def test_lines_are_counted_by_reason_and_keep_their_numbers_in_the_file() -> None:
    lines = [b"no", json.dumps(DOCUMENT).encode(), b"[]", b"nor this", b'{"term": 5}']
    headers = [*JSON_TYPE, *source_headers("/data/some.jsonl", [3, 4, 7, 9, 10])]
    intake = read(b"\n".join(lines), headers)
    assert {letter.reason: (letter.rows, letter.lines, letter.value) for letter in intake.dead} == {
        "not_json": (2, [3, 9], b"no\nnor this"),
        "not_an_object": (1, [7], b"[]"),
        "wrong_type": (1, [10], b'{"term": 5}'),
    }
    assert intake.frame.select("source_file", "source_line").rows() == [("some.jsonl", 4)]


def test_letters_have_no_more_ranges_of_lines_than_a_header_may() -> None:
    lines = [b"no" if number % 2 else b"[]" for number in range(1400)]
    intake = read(b"\n".join(lines), [*JSON_TYPE, *source_headers("f", range(1, 1401))])
    assert sum(letter.rows for letter in intake.dead) == 1400
    for letter in intake.dead:
        assert letter.lines is not None
        assert parse_line_ranges(line_ranges(letter.lines), letter.rows) == letter.lines


@pytest.mark.parametrize("value", [b"\x80\x01\nbinary\n\xff\n", "t\u00e9xt\nof two".encode("latin-1")])
def test_bytes_that_are_no_text_count_as_one_row(value: bytes) -> None:
    assert [(letter.reason, letter.rows, letter.value) for letter in read(value, []).dead] == [("not_json", 1, value)]


def test_too_many_lines_are_refused_and_counted() -> None:
    value = b"{}\n" * 10_001
    assert [(letter.reason, letter.rows) for letter in read(value, []).dead] == [("too_many_rows", 10_001)]
    small = RecordLimits(record_bytes=1_000_000, rows=10_000, row_bytes=900_000, decoded_bytes=1_000_000)
    intake = read_group([RawRecord("t", 0, 5, 0, b"{}\n" * 9_000, [])], FAMILY, small)
    assert [(letter.reason, letter.rows) for letter in intake.dead] == [("too_many_bytes", 9_000)]


def test_a_row_that_is_too_large_rejects_its_whole_record() -> None:
    limits = RecordLimits(record_bytes=1_000_000, rows=10_000, row_bytes=1_000, decoded_bytes=4_000_000)
    lines = [json.dumps(DOCUMENT).encode(), b"no", json.dumps({**DOCUMENT, "trace_id": "x" * 2_000}).encode()]
    intake = read_group([RawRecord("t", 0, 5, 0, b"\n".join(lines), [])], FAMILY, limits)
    assert intake.frame.is_empty()
    assert [(letter.reason, letter.rows) for letter in intake.dead] == [("row_too_large", 3)]


@pytest.mark.parametrize("growth", [math.nan, math.inf, -math.inf, 1e39])
def test_numbers_that_no_stage_can_use_are_null(growth: float) -> None:
    rows = reductions.valid(3).with_columns(growth=pl.Series([1.5, growth, None], dtype=pl.Float64))
    intake = read(encode(rows.with_columns(step_k=pl.Series([0, 2**40, 0]))), ARROW)
    assert intake.frame["growth"].to_list() == [1.5, None, None]
    assert intake.frame["step_k"].to_list() == [0, None, 0]


def test_numbers_in_lists_are_checked_too() -> None:
    factors = [{"name": "a", "effect": math.nan}, {"name": "b", "effect": 1.0}]
    rows = scenarios.frame([scenarios.row(1), scenarios.row(2, capacity_factors=factors)])
    headers = Envelope("scenario", "raw", 1, "r", 4, 0, 1).headers()
    frame = read_group([RawRecord("t", 0, 5, 0, encode(rows), headers)], SCENARIO, LIMITS).frame
    assert frame["capacity_factors"][1].to_list() == [{"name": "a", "effect": None}, {"name": "b", "effect": 1.0}]
    assert frame["capacity_factors"][0].equals(rows["capacity_factors"][0])


@pytest.mark.parametrize("effect", ["1e400", "-1e400", "NaN", "1" + "0" * 301, "1" + "0" * 5000])
def test_a_json_number_beyond_a_float_is_a_reason(effect: str) -> None:
    line = f'{{"capacity_factors": [{{"name": "a", "effect": {effect}}}]}}'
    intake = read_group([RawRecord("t", 0, 5, 0, line.encode(), [])], SCENARIO, LIMITS)
    assert [letter.reason for letter in intake.dead] in (["wrong_type"], ["not_json"])


@pytest.mark.parametrize("effect", [2**64, -(2**70), 10**299])
def test_an_integer_beyond_64_bits_is_a_float_in_a_float_column(effect: int) -> None:
    line = json.dumps({"base_capacity": effect, "capacity_factors": [{"name": "a", "effect": effect}]}).encode()
    intake = read_group([RawRecord("t", 0, 5, 0, line, [])], SCENARIO, LIMITS)
    assert intake.frame["capacity_factors"][0][0]["effect"] == intake.frame["base_capacity"][0] == float(effect)


json_value = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from([2**63, 2**64, 1e308]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["name", "effect"]), inner),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(sorted(SCENARIO.columns)), json_value, max_size=6))
def test_no_json_object_raises(document: dict[str, Any]) -> None:
    intake = read_group([RawRecord("t", 0, 5, 0, json.dumps(document).encode(), [])], SCENARIO, LIMITS)
    assert intake.frame.height + len(intake.dead) == 1


def test_headers_are_cut_to_a_size_that_can_travel_on() -> None:
    long = b"r" * 600_000
    intake = read(encode(reductions.valid(1)), [*ARROW, ("feedmill-run", long), ("feedmill-source-file", long)])
    assert intake.runs == ["r" * 256]
    assert intake.frame["source_file"].to_list() == ["r" * 256]


def test_a_row_keeps_its_file_and_line_when_it_is_sent_on() -> None:
    rows = reductions.valid(3).with_columns(source_file=pl.lit("a.jsonl"), source_line=pl.Series([5, None, 9]))
    plain = RawRecord("t", 0, 6, 0, encode(reductions.valid(2)), ARROW)
    frame = read_group([plain, RawRecord("t", 0, 7, 0, encode(rows), ARROW)], FAMILY, LIMITS).frame
    assert frame["source_file"].to_list() == [None, None, "a.jsonl", "a.jsonl", "a.jsonl"]
    assert frame["source_line"].to_list() == [None, None, 5, None, 9]
    # Columns of other types are ignored.
    other = encode(reductions.valid(1).with_columns(source_line=pl.lit("x")))
    assert read(other, ARROW).frame.columns == [*FAMILY.wire, "record"]


WHOLE = encode(reductions.valid(20))


@given(st.binary(max_size=300))
def test_no_bytes_raise(value: bytes) -> None:
    for headers in (ARROW, JSON_TYPE):
        intake = read(value, headers)
        assert intake.frame.height + len(intake.dead) >= 1


@given(st.integers(0, len(WHOLE) - 1), st.integers(1, 255))
def test_a_flipped_byte_in_a_micro_batch_never_raises(position: int, change: int) -> None:
    damaged = bytearray(WHOLE)
    damaged[position] ^= change
    intake = read(bytes(damaged), ARROW)
    assert intake.frame.height + len(intake.dead) >= 1
    intake.frame.to_dicts()


def test_a_record_that_says_it_has_no_rows_is_read_as_it_is() -> None:
    headers = Envelope("reduction", "raw", 1, "r", 4, 0, 0).headers()
    empty = RawRecord("t", 0, 5, 0, encode(reductions.valid(1).head(0)), headers)
    full = RawRecord("t", 0, 6, 0, encode(reductions.valid(2)), ARROW)
    intake = read_group([empty, full], FAMILY, LIMITS)
    assert intake.dead == []
    assert intake.frame["record"].to_list() == [1, 1]
