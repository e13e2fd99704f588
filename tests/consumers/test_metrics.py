from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from consumers.reduction.metrics import DEPTH_BANDS, SIZE_BANDS, SpanMetrics, iou

# A predicted span, the true span, size and depth.
Row = tuple[tuple[int, int], tuple[int, int], int, int]

span = st.tuples(st.integers(1, 40), st.integers(1, 20)).map(lambda drawn: (drawn[0], sum(drawn)))
normal_form = st.just((0, 0))
rows = st.lists(st.tuples(span | normal_form, span | normal_form, st.integers(1, 300), st.integers(0, 20)), max_size=30)


def one_iou(a: tuple[int, int], b: tuple[int, int]) -> float:
    return iou(torch.tensor([a]), torch.tensor([b])).item()


def measured(given_rows: list[Row]) -> SpanMetrics:
    metrics = SpanMetrics()
    metrics.add(
        torch.tensor([row[0] for row in given_rows], dtype=torch.int64).reshape(-1, 2),
        torch.tensor([row[1] for row in given_rows], dtype=torch.int64).reshape(-1, 2),
        torch.tensor([row[1] == (0, 0) for row in given_rows], dtype=torch.bool),
        torch.tensor([row[2] for row in given_rows], dtype=torch.int32),
        torch.tensor([row[3] for row in given_rows], dtype=torch.int32),
    )
    return metrics


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ((2, 5), (3, 6), 0.5),
        ((2, 5), (5, 8), 0.0),
        ((2, 5), (7, 9), 0.0),
        ((2, 5), (2, 5), 1.0),
        ((1, 9), (3, 5), 0.25),
        ((0, 0), (0, 0), 1.0),
        ((0, 0), (3, 5), 0.0),
    ],
)
def test_iou_of_half_open_spans(a: tuple[int, int], b: tuple[int, int], expected: float) -> None:
    assert one_iou(a, b) == one_iou(b, a) == expected


@given(span, span)
def test_iou_is_that_of_the_sets_of_positions(a: tuple[int, int], b: tuple[int, int]) -> None:
    left, right = set(range(*a)), set(range(*b))
    assert one_iou(a, b) == pytest.approx(len(left & right) / len(left | right))


anything = st.tuples(st.integers(-20, 2**31), st.integers(-20, 2**31))
nearby = st.tuples(st.integers(-3, 6), st.integers(-3, 6))


@given(anything | nearby, anything | nearby)
def test_iou_is_symmetric_in_the_unit_interval_and_1_for_equal_spans_only(
    a: tuple[int, int], b: tuple[int, int]
) -> None:
    share = one_iou(a, b)
    assert 0 <= share <= 1
    assert share == one_iou(b, a)
    assert one_iou(a, a) == 1
    assert (share == 1) == (a == b)


@pytest.mark.parametrize(("a", "b"), [((5, 2), (5, 9)), ((5, 0), (0, 0)), ((4, 4), (7, 7)), ((9, 3), (3, 9))])
def test_empty_and_negative_spans_share_nothing_with_others(a: tuple[int, int], b: tuple[int, int]) -> None:
    assert one_iou(a, b) == one_iou(b, a) == 0


def test_bands_are_half_open_and_named_by_their_values() -> None:
    assert SIZE_BANDS.names == ("<20", "20-49", "50-79", "80-119", "120-199", "200+")
    assert DEPTH_BANDS.names == ("<8", "8-10", "11-13", "14+")
    edges = torch.tensor([1, 19, 20, 49, 50, 79, 80, 119, 120, 199, 200, 999])
    assert SIZE_BANDS.code(edges).tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    assert DEPTH_BANDS.code(torch.tensor([0, 7, 8, 10, 11, 13, 14])).tolist() == [0, 0, 1, 1, 2, 2, 3]


def test_a_summary_counts_what_was_added() -> None:
    summary = measured(
        [
            ((2, 5), (3, 6), 30, 7),
            ((4, 9), (4, 9), 30, 8),
            ((0, 0), (0, 0), 60, 8),
            ((0, 0), (1, 4), 60, 12),
            ((1, 3), (0, 0), 60, 12),
        ]
    ).summary()
    assert (summary["rows"], summary["exact_span"], summary["iou"]) == (5, 0.4, 0.5)
    assert summary["normal_form"] == {"precision": 0.5, "recall": 0.5, "support": 2}
    by_size = {entry["band"]: entry for entry in summary["by_size"]}
    assert (by_size["20-49"]["rows"], by_size["20-49"]["exact_span"], by_size["20-49"]["iou"]) == (2, 0.5, 0.75)
    assert by_size["20-49"]["nf_precision"] is by_size["20-49"]["nf_recall"] is None
    assert (by_size["50-79"]["nf_precision"], by_size["50-79"]["nf_recall"]) == (0.5, 0.5)
    assert by_size["80-119"]["rows"] == 0
    assert by_size["80-119"]["exact_span"] is None
    assert [entry["rows"] for entry in summary["by_depth"]] == [1, 2, 2, 0]
    assert (summary["deeper_than_7"]["rows"], summary["deeper_than_7"]["exact_span"]) == (4, 0.5)
    assert json.loads(json.dumps(summary)) == summary


def test_a_reducible_row_of_unknown_span_counts_for_the_normal_form_decision_only() -> None:
    metrics = SpanMetrics()
    unknown, reducible = torch.tensor([[-100, -100]]), torch.tensor([False])
    metrics.add(torch.tensor([[0, 0]]), unknown, reducible, torch.tensor([9]), torch.tensor([2]))
    summary = metrics.summary()
    assert (summary["rows"], summary["exact_span"], summary["iou"]) == (1, None, None)
    assert summary["normal_form"] == {"precision": 0.0, "recall": None, "support": 0}


@given(rows, rows)
def test_ranks_that_merge_count_as_one(first: list[Row], second: list[Row]) -> None:
    merged = measured(first)
    merged.merge(measured(second))
    whole = measured(first + second)
    assert torch.allclose(merged.counts, whole.counts)
    assert merged.summary()["rows"] == len(first) + len(second)


@given(rows)
def test_bands_add_up_to_the_whole(given_rows: list[Row]) -> None:
    summary = measured(given_rows).summary()
    for axis in ("by_size", "by_depth"):
        assert sum(entry["rows"] for entry in summary[axis]) == summary["rows"] == len(given_rows)
        exact = sum(round(entry["exact_span"] * entry["rows"]) for entry in summary[axis] if entry["rows"])
        assert exact == sum(row[0] == row[1] for row in given_rows)
