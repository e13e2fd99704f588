"""The headers that name the file and the lines of a record's rows."""

from __future__ import annotations

import doctest

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schema import source_lines
from schema.source_lines import FILE_NAME_MAX_CHARS, LineRanges, file_name, parse_line_ranges, source_headers


@given(st.lists(st.integers(1, 400), min_size=1, max_size=200).map(sorted))
def test_line_numbers_are_read_back_from_their_ranges(numbers: list[int]) -> None:
    assert parse_line_ranges(str(LineRanges(numbers)), len(numbers)) == numbers


@given(st.lists(st.integers(1, 9), max_size=2000).map(sorted))
def test_ranges_that_fit_can_be_read_back(steps: list[int]) -> None:
    ranges, number, added = LineRanges(), 1, []
    for step in steps:
        number += step
        if ranges.fits(number):
            ranges.add(number)
            added.append(number)
    assert len(ranges) <= 256
    assert not added or parse_line_ranges(str(ranges), len(added)) == added


@given(st.text(alphabet="0123456789-,x ", max_size=60), st.integers(0, 50))
def test_any_text_gives_one_number_per_row_or_no_list(text: str, rows: int) -> None:
    numbers = parse_line_ranges(text, rows)
    assert numbers is None or (len(numbers) == rows and numbers == sorted(numbers))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0-3",
        "3-1",
        "1-3,2-4",
        "2x2,1x2",
        "1x0",
        "1-3x2",
        "1x4x1",
        "1-",
        "-1",
        "1-9223372036854775808",
        "a",
        "1 - 2",
        "1-999999999999",
    ],
)
def test_malformed_ranges_are_refused(text: str) -> None:
    assert parse_line_ranges(text, 4) is None


def test_a_range_with_more_lines_than_the_record_has_rows_is_refused() -> None:
    assert parse_line_ranges("1-9223372036854775807", 4) is None
    assert parse_line_ranges("1x9223372036854775807", 4) is None


@given(st.text(max_size=600))
def test_any_file_name_becomes_short_and_printable(file: str) -> None:
    name = file_name(file)
    assert len(name) <= FILE_NAME_MAX_CHARS
    assert "/" not in name
    assert name.isprintable() or name == ""
    assert dict(source_headers(file, LineRanges([1])))["feedmill-lines"] == b"1"


def test_the_examples_hold() -> None:
    assert doctest.testmod(source_lines).failed == 0
