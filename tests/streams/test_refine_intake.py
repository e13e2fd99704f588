"""Intake: whatever bytes a record holds, they become rows or dead letters with a reason, and nothing raises."""

from __future__ import annotations

import json

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schema.record import Envelope, encode
from schema.reduction import FAMILY
from streams.refine.intake import Intake, Limits, RawRecord, read_group
from tests import reductions

LIMITS = Limits(record_bytes=1_000_000, rows=10_000, row_bytes=900_000, decoded_bytes=4_000_000)
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
        (encode(reductions.valid(2).with_columns(step_k=pl.lit(2**40))), ARROW, "wrong_type"),
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


def test_one_bad_line_does_not_take_its_neighbours_with_it() -> None:
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
