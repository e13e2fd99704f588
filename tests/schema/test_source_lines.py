"""The headers that say which lines of which file a record's rows are."""

from __future__ import annotations

import doctest

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schema import source_lines
from schema.source_lines import FILE_NAME_MAX_CHARS, file_name, line_ranges, parse_line_ranges, source_headers


@given(st.sets(st.integers(1, 400), min_size=1, max_size=200).map(sorted))
def test_line_numbers_come_back_from_their_ranges(numbers: list[int]) -> None:
    assert parse_line_ranges(line_ranges(numbers), len(numbers)) == numbers


@given(st.text(alphabet="0123456789-,x ", max_size=60), st.integers(0, 50))
def test_any_text_gives_as_many_numbers_as_there_are_rows_or_none(text: str, rows: int) -> None:
    found = parse_line_ranges(text, rows)
    assert found is None or (len(found) == rows and list(found) == sorted(set(found)))


@pytest.mark.parametrize(
    "text", ["", "0-3", "3-1", "1-3,2-4", "1,1", "1-", "-1", "1-9223372036854775808", "a", "1 - 2", "1-999999999999"]
)
def test_malformed_ranges_are_refused(text: str) -> None:
    assert parse_line_ranges(text, 4) is None


def test_a_range_that_claims_more_lines_than_the_record_has_rows_makes_no_list() -> None:
    assert parse_line_ranges("1-9223372036854775807", 4) is None


@given(st.text(max_size=600))
def test_a_file_name_is_short_and_printable_whatever_it_was(file: str) -> None:
    name = file_name(file)
    assert len(name) <= FILE_NAME_MAX_CHARS
    assert "/" not in name
    assert name.isprintable() or name == ""
    assert dict(source_headers(file, [1]))["feedmill-lines"] == b"1"


def test_the_examples_hold() -> None:
    assert doctest.testmod(source_lines).failed == 0
