"""Rows are batched into records within limits of rows, bytes and time."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from producers.ingest.batches import SEND_WITHIN_S, Batcher, LineBatch
from schema.source_lines import parse_line_ranges


@given(
    st.lists(st.tuples(st.integers(0, 3), st.binary(min_size=1, max_size=50)), max_size=40),
    st.integers(1, 6),
    st.integers(10, 100),
    st.integers(1, 10),
)
def test_batches_hold_all_rows_within_their_limits(
    steps: list[tuple[int, bytes]], max_rows: int, max_bytes: int, at_once: int
) -> None:
    lines = [line.replace(b"\n", b" ") for _, line in steps]
    numbers = list(itertools.accumulate((step for step, _ in steps), initial=1))[1:]
    rows = list(zip(numbers, lines, strict=True))
    batcher = Batcher(max_rows, max_bytes)
    batches: list[LineBatch] = []
    for begin in range(0, len(rows), at_once):
        batches.extend(batcher.add(rows[begin : begin + at_once]))
    batches.extend(batcher.rest())
    assert [line for batch in batches for line in batch.value.split(b"\n")] == lines
    assert [number for batch in batches for number in parse_line_ranges(str(batch.lines), batch.rows) or ()] == numbers
    for batch in batches:
        assert 1 <= batch.rows <= max_rows
        assert batch.rows == 1 or len(batch.value) <= max_bytes


def test_a_batch_has_no_more_line_ranges_than_its_header_can_hold() -> None:
    batcher = Batcher(2048, 10**6)
    batches = [*batcher.add([(2 * number, b"x") for number in range(1, 1000)]), *batcher.rest()]
    assert sum(batch.rows for batch in batches) == 999
    assert all(parse_line_ranges(str(batch.lines), batch.rows) for batch in batches)


def test_rows_are_due_half_a_second_after_the_first_arrived() -> None:
    clock = itertools.count(100.0, SEND_WITHIN_S / 4)
    batcher = Batcher(10, 1000, clock=lambda: next(clock))
    assert batcher.due_in_s() is None
    assert list(batcher.add([(1, b"a")])) == []
    dues = []
    for number in range(2, 6):
        assert list(batcher.add([(number, b"a")])) == []
        dues.append(batcher.due_in_s())
    assert dues == [SEND_WITHIN_S * left / 4 for left in (3, 2, 1, 0)]
    assert [batch.rows for batch in batcher.rest()] == [5]
    assert batcher.due_in_s() is None
