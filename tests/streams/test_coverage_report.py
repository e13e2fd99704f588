"""The report: gaps, verdicts and marginals, from counts alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import polars as pl

from schema.axes import Axis, Quota
from schema.registry import FAMILIES
from streams.coverage.report import coverage_report, gaps
from streams.coverage.store import Counts

COLOURS = Axis("colour", ("red", "green"), pl.lit(0))
SHAPES = Axis("shape", ("round", "square", "flat"), pl.lit(0))
FAMILY = replace(
    FAMILIES["reduction"],
    name="toys",
    axes=(COLOURS, SHAPES),
    cell_axes=("colour", "shape"),
    cell_possible=lambda cell: dict(cell) != {"colour": "red", "shape": "flat"},
    cell_minimum=3,
    quotas=(
        Quota("enough_round", "min_count", "shape", ("round", "square"), 10),
        Quota("not_all_red", "max_share", "colour", ("red",), 0.5),
        Quota("half_green", "share", "colour", ("green",), 0.5, 0.1),
    ),
)


def counts(bins: Mapping[str, Mapping[str, int]], **totals: int) -> Counts:
    names = ("entries", "rows_in", "rows_clean", "rows_rejected", "rows_rerouted", "rows_augmented", "rows_lost")
    return Counts({**dict.fromkeys(names, 0), **totals}, {}, bins, (), None, {})


BINS = {
    "colour": {"red": 6, "green": 5},
    "shape": {"round": 11, "square": 4, "flat": 0},
    "cell": {"red|round": 6, "red|square": 0, "green|round": 5, "green|square": 2, "green|flat": 0, "red|flat": 0},
}


def test_gaps_are_possible_cells_and_bins_below_their_minimum_with_the_largest_deficit_first() -> None:
    assert gaps(FAMILY, counts(BINS)) == [
        {"shape": "square", "count": 4, "deficit": 6},
        {"colour": "red", "shape": "square", "count": 0, "deficit": 3},
        {"colour": "green", "shape": "flat", "count": 0, "deficit": 3},
        {"colour": "green", "shape": "square", "count": 2, "deficit": 1},
    ]


def test_an_empty_store_is_all_gaps_and_divides_by_nothing() -> None:
    report = coverage_report(FAMILY, counts({}))
    assert len(report["gaps_to_fill"]) == 5 + 2
    assert (report["cells_total"], report["cells_possible"], report["cells_covered"]) == (6, 5, 0)
    assert report["avg_per_cell"] == 0
    assert report["axes"] == {"colour": {"red": 0, "green": 0}, "shape": {"round": 0, "square": 0, "flat": 0}}
    assert {quota["name"]: quota["ok"] for quota in report["quotas"]} == {
        "enough_round": False,
        "not_all_red": True,
        "half_green": False,
    }
    assert (report["first_generated"], report["rows_per_minute"]) == (None, {})


def test_a_report_has_cells_quotas_and_balance() -> None:
    report = coverage_report(FAMILY, counts(BINS, rows_in=20, rows_clean=13, rows_rejected=6, rows_rerouted=1))
    assert report["balanced"]
    assert report["cells"] == {"red|round": 6, "green|round": 5, "green|square": 2}
    assert (report["cells_covered"], report["avg_per_cell"]) == (3, 13 / 6)
    verdicts: dict[str, Any] = {quota["name"]: (quota["actual"], quota["ok"]) for quota in report["quotas"]}
    assert verdicts == {
        "enough_round": (4.0, False),
        "not_all_red": (6 / 11, False),
        "half_green": (5 / 11, True),
    }
    assert json.loads(json.dumps(report)) == report
    assert not coverage_report(FAMILY, counts(BINS, rows_in=21, rows_clean=20))["balanced"]


def test_a_bin_of_an_older_declaration_comes_after_the_declared_ones() -> None:
    bins = {"colour": {"blue": 9, "green": 1}, "cell": {"blue|round": 9}}
    report = coverage_report(FAMILY, counts(bins))
    assert list(report["axes"]["colour"].items()) == [("red", 0), ("green", 1), ("blue", 9)]
    assert report["cells"] == {}


def test_times_are_iso_in_utc_and_minutes_the_latest() -> None:
    minutes = tuple((60_000 * number, number, number) for number in range(40))
    report = coverage_report(FAMILY, replace(counts({}), minutes=minutes, generated=(0, 61_500)))
    assert report["first_generated"] == "1970-01-01T00:00:00.000+00:00"
    assert report["last_generated"] == "1970-01-01T00:01:01.500+00:00"
    assert list(report["rows_per_minute"].items())[-1] == ("1970-01-01T00:39:00.000+00:00", 39)
    assert len(report["rows_per_minute"]) == 30
