from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schema.family import CELL_AXIS
from schema.parts import load_part
from schema.registry import FAMILIES
from schema.retractions import COLUMNS, NO_IDS, WIRE_IDS, coverage_of, is_retracted, sorted_ids
from streams.refine.ledger_entries import _coverage

IDS = st.one_of(st.integers(0, 20), st.integers(2**64 - 5, 2**64 - 1))


@given(rows=st.lists(st.tuples(IDS, st.none() | IDS)), retracted=st.lists(IDS))
def test_a_row_is_retracted_exactly_if_its_id_or_its_origin_is(
    rows: list[tuple[int, int | None]], retracted: list[int]
) -> None:
    frame = pl.DataFrame(rows, schema=WIRE_IDS, orient="row")
    ids = sorted_ids(pl.DataFrame({"example_id": retracted}, schema={"example_id": pl.UInt64}))
    wanted = [row in retracted or (origin is not None and origin in retracted) for row, origin in rows]
    assert is_retracted(frame, ids).to_list() == wanted


@given(retracted=st.lists(IDS))
def test_an_id_that_is_retracted_several_times_counts_once(retracted: list[int]) -> None:
    entries = pl.DataFrame({"example_id": [*retracted, *retracted]}, schema={"example_id": pl.UInt64})
    assert sorted_ids(entries).tolist() == sorted(set(retracted))


@pytest.mark.parametrize("name", FAMILIES)
def test_an_entry_holds_the_bins_that_the_ledger_counts_its_row_in(name: str) -> None:
    family = FAMILIES[name]
    rows = load_part(family, "samples")(40).select(list(family.wire))
    counted = coverage_of(rows, family)
    assert counted.dtype == COLUMNS["coverage"]
    sums = counted.explode().struct.unnest().group_by("axis", "bin").len()
    assert CELL_AXIS in sums["axis"]
    in_ledger = _coverage(family.derive(rows.with_columns(record=pl.lit(0, dtype=pl.UInt32))), family, 1)
    wanted = {(each["axis"], each["bin"]): each["rows"] for each in in_ledger[0]}
    assert {(axis, bin_): rows for axis, bin_, rows in sums.iter_rows()} == wanted


def test_no_row_is_retracted_by_no_ids() -> None:
    frame = pl.DataFrame({"example_id": [0], "augmented_from": [None]}, schema=WIRE_IDS)
    assert is_retracted(frame, NO_IDS).to_list() == [False]
