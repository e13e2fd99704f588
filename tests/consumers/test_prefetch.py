from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from consumers.prefetch import Prefetched


def alive() -> int:
    return sum(thread.name == "feedmill-prefetch" for thread in threading.enumerate())


def test_items_come_in_order_without_the_pauses() -> None:
    assert list(Prefetched(iter([1, None, 2, None, None, 3]), ahead=2)) == [1, 2, 3]
    assert alive() == 0


def test_an_exception_is_raised_in_place_of_its_item() -> None:
    def items_then_error() -> Iterator[int]:
        yield 1
        raise ValueError("broken")

    items = Prefetched(items_then_error(), ahead=4)
    assert next(items) == 1
    with pytest.raises(ValueError, match="broken"):
        next(items)
    with pytest.raises(StopIteration):
        next(items)


def test_at_most_the_requested_items_are_made_ahead() -> None:
    yielded: list[int] = []

    def numbers() -> Iterator[int]:
        for number in range(100):
            yielded.append(number)
            yield number

    items = Prefetched(numbers(), ahead=3)
    assert next(items) == 0
    items.close()
    # Three waiting, one in hand, one taken.
    assert len(yielded) <= 5


def test_large_items_are_made_fewer_at_a_time() -> None:
    yielded: list[int] = []

    def numbers() -> Iterator[int]:
        for number in range(100):
            yielded.append(number)
            yield number

    items = Prefetched(numbers(), ahead=10, size=lambda number: 40, ahead_size=100)
    assert next(items) == 0
    items.close()
    # Two waiting, one in hand, one taken.
    assert len(yielded) <= 4
    # An item above the limit comes alone.
    assert list(Prefetched(iter([1, 2, 3]), ahead=10, size=lambda number: 1000, ahead_size=100)) == [1, 2, 3]


def test_closing_ends_a_thread_that_waits_and_closes_its_source() -> None:
    closed = threading.Event()

    def never() -> Iterator[int | None]:
        try:
            while True:
                yield None
        finally:
            closed.set()

    items = Prefetched(never(), ahead=1)
    items.close()
    assert closed.is_set()
    assert alive() == 0
