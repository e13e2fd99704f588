"""The profile of one side of a comparison: counts over its rows, frame by frame, and a report of them."""

from __future__ import annotations

from collections import Counter
from math import log
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from consumers.compare.rows import Rows
from consumers.compare.texts import RowSample, TextTally
from schema.axes import verdicts
from schema.family import Family, axis_codes, cell_codes, cell_label, identify
from schema.response_measures import response_measures

# These columns say where a row came from and are not measured.
_PROVENANCE = ("seed", "chunk")


class DatasetProfile:
    """Counts over the rows of one side.

    Every row is checked against the family's rules, as in the refine stage. Invalid rows are only counted, by the rules
    they break; all other measures are of the valid rows. Memory grows by 8 bytes a row, for the ids.

    Args:
        family: the rows' family.
        near: the Jaccard similarity from which two rows are near duplicates.
    """

    def __init__(self, family: Family, near: float) -> None:
        self._family = family
        self._counts = {axis.name: np.zeros(len(axis.bins), dtype=np.int64) for axis in family.axes}
        self._cells = np.zeros(len(list(family.cells())), dtype=np.int64)
        self._numbers = {
            name: _Range() for name, dtype in family.columns.items() if dtype.is_numeric() and name not in _PROVENANCE
        }
        self._ids: list[npt.NDArray[np.uint64]] = []
        self._texts = TextTally(family, near)
        self._responses = RowSample()
        self._near = near
        self.rows = 0
        self._invalid = 0
        self._reasons: Counter[str] = Counter()

    def take(self, rows: Rows) -> None:
        """Count some rows; ids are computed from the content, and unreadable lines count as invalid rows."""
        family = self._family
        identified = (
            identify(rows.frame, family).select(list(family.wire)).with_columns(record=pl.lit(0, dtype=pl.UInt32))
        )
        valid, failures = family.rules.filter(family.derive(identified))
        self.rows += len(rows)
        self._invalid += len(rows) - valid.height
        self._reasons.update(rows.refused)
        self._reasons.update(failures.counts())
        if valid.height:
            self._measure(valid)

    def _measure(self, valid: pl.DataFrame) -> None:
        family = self._family
        codes = axis_codes(valid, family.axes)
        for name, counts in self._counts.items():
            counts += _histogram(codes[name].to_numpy(), len(counts))
        self._cells += _histogram(cell_codes(codes, family), len(self._cells))
        for name, spread in self._numbers.items():
            spread.take(valid[name])
        self._ids.append(valid["example_id"].to_numpy())
        self._texts.take(valid.select(self._texts.expression.alias("text"))["text"])
        if family.response and family.response_label:
            self._responses.take(valid.select(response=family.response, label=family.response_label))

    def report(self) -> dict[str, Any]:
        """Return the counts and measures, ready for JSON.

        Keys:
            rows, rows_invalid: all rows read, and the rows that break a rule or cannot be read;
                invalid_by_reason: {reason: rows}; a row that breaks two rules counts under both.
            axes: {axis: {covered, total, balance, bins: {bin: rows}}}: bins with rows, all bins; balance as `balance`.
            cells: {covered, possible, total, balance, rows: {label: rows}}, balance over the possible cells.
            numbers: {column: {min, max, mean}}, null if the column has no value.
            duplicates: rows with the content of an earlier row.
            sample_rows: rows compared with each other; near_duplicates: those whose similarity to another row is at
                least `near_duplicate_threshold`.
            distinct_ngrams: share of distinct n-grams; ngram: the unit of an n-gram.
            responses: as `schema.response_measures.response_measures`, of a sample; null without responses.
            quotas: [{name, kind, axis, bins, target, actual, ok}], as declared; quotas_met: number of quotas met.
        """
        rows, near = self._texts.likeness()
        responses = self._responses.frame
        bins = {
            axis.name: dict(zip(axis.bins, self._counts[axis.name].tolist(), strict=True)) for axis in self._family.axes
        }
        quotas = verdicts(self._family.quotas, bins)
        ids = np.concatenate([np.empty(0, dtype=np.uint64), *self._ids])
        return {
            "rows": self.rows,
            "rows_invalid": self._invalid,
            "invalid_by_reason": dict(self._reasons.most_common()),
            "axes": {axis.name: _axis(axis.bins, self._counts[axis.name]) for axis in self._family.axes},
            "cells": self._cell_report(),
            "numbers": {name: spread.report() for name, spread in self._numbers.items()},
            "duplicates": len(ids) - len(np.unique(ids)),
            "sample_rows": rows,
            "near_duplicates": near,
            "near_duplicate_threshold": self._near,
            "distinct_ngrams": self._texts.ngrams.ratio,
            "ngram": self._texts.ngram,
            "responses": response_measures(responses["response"], responses["label"]) if responses.height else None,
            "quotas": quotas,
            "quotas_met": sum(quota["ok"] for quota in quotas),
        }

    def _cell_report(self) -> dict[str, Any]:
        declared = list(self._family.cells())
        possible = np.array([self._family.cell_possible(cell) for cell in declared], dtype=np.bool_)
        return {
            "covered": int((self._cells > 0).sum()),
            "possible": int(possible.sum()),
            "total": len(declared),
            "balance": balance(self._cells[possible]),
            "rows": {cell_label(cell): int(rows) for cell, rows in zip(declared, self._cells, strict=True) if rows},
        }


def balance(counts: npt.NDArray[np.int64]) -> float:
    """Return how evenly rows are spread over bins (K,), 0 to 1: their entropy over log(K), Pielou's evenness.

    1 if all bins have equally many rows; 0 if one bin has all rows, there are no rows, or there is only one bin.

    "The measurement of diversity in different types of biological collections" (Pielou, 1966).
    """
    total, bins = int(counts.sum()), len(counts)
    if not total or bins < 2:
        return 0.0
    shares = counts[counts > 0] / total
    return abs(float(-(shares * np.log(shares)).sum())) / log(bins)


class _Range:
    """Least, greatest and mean of a column's values."""

    def __init__(self) -> None:
        self._least: float | None = None
        self._most: float | None = None
        self._sum, self._count = 0.0, 0

    def take(self, values: pl.Series) -> None:
        values = values.drop_nulls()
        if values.is_empty():
            return
        least, most = float(values.min()), float(values.max())  # type: ignore[arg-type]
        self._least = least if self._least is None else min(self._least, least)
        self._most = most if self._most is None else max(self._most, most)
        self._sum += float(values.cast(pl.Float64).sum())
        self._count += len(values)

    def report(self) -> dict[str, float | None]:
        # Twelve digits: further digits depend on how the rows were cut into frames.
        mean = float(f"{self._sum / self._count:.12g}") if self._count else None
        return {"min": self._least, "max": self._most, "mean": mean}


def _axis(bins: tuple[str, ...], counts: npt.NDArray[np.int64]) -> dict[str, Any]:
    return {
        "covered": int((counts > 0).sum()),
        "total": len(bins),
        "balance": balance(counts),
        "bins": dict(zip(bins, counts.tolist(), strict=True)),
    }


def _histogram(codes: npt.NDArray[np.int64], bins: int) -> npt.NDArray[np.int64]:
    return np.bincount(codes[codes >= 0], minlength=bins)
