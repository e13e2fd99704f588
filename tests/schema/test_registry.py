"""Every family is complete: each code folder has its module, and its declarations are consistent."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from schema.axes import Quota, banded, labelled
from schema.errors import UnknownFamilyError
from schema.family import ENVELOPE, Example, Family, cell_label
from schema.registry import FAMILIES, family_named

ROOT = Path(__file__).parent.parent.parent
families = pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES.keys())


@families
def test_a_family_has_all_its_modules_and_its_page(family: Family) -> None:
    for folder in ("schema", "producers", "consumers"):
        module = ROOT / folder / family.name
        assert module.with_suffix(".py").is_file() or (module / "__init__.py").is_file(), (
            f"{folder} lacks {family.name}"
        )
    assert list((ROOT / "tests").rglob(f"*{family.name}*.py"))
    assert (ROOT / "docs" / f"{family.name}.md").is_file()


@families
def test_the_rules_cover_exactly_the_columns(family: Family) -> None:
    assert issubclass(family.rules, Example)
    declared = set(family.rules.column_names())
    assert set(family.wire) <= declared
    empty = family.derive(pl.DataFrame(schema=family.wire)).with_columns(record=pl.lit(0, dtype=pl.UInt32))
    assert declared <= set(empty.columns)
    good, _ = family.rules.filter(empty)
    assert good.height == 0
    assert not set(family.columns) & set(ENVELOPE)


@families
def test_axes_cells_and_quotas_use_existing_names(family: Family) -> None:
    names = [axis.name for axis in family.axes]
    assert len(set(names)) == len(names)
    assert set(family.cell_axes) <= set(names)
    for axis in family.axes:
        assert len(set(axis.bins)) == len(axis.bins)
    for quota in family.quotas:
        assert set(quota.bins) <= set(family.axis(quota.axis).bins)
    labels = [cell_label(cell) for cell in family.cells()]
    assert len(set(labels)) == len(labels)
    assert any(family.cell_possible(cell) for cell in family.cells())


def test_the_error_about_an_unknown_family_lists_the_known_ones() -> None:
    with pytest.raises(UnknownFamilyError, match="reduction") as caught:
        family_named("poetry")
    assert caught.value.exit_status == 2


def test_bands_are_half_open_and_cover_everything() -> None:
    axis = banded("x", pl.col("x"), (0, 10), ("below", "ten", "above"))
    codes = pl.DataFrame({"x": [-5, -1, 0, 9, 10, 99]}).select(axis.code).to_series().to_list()
    assert [axis.bins[code] for code in codes] == ["below", "below", "ten", "ten", "above", "above"]
    with pytest.raises(ValueError, match="3 bins"):
        banded("x", pl.col("x"), (0, 10), ("a", "b"))


def test_a_label_outside_its_axis_is_not_counted() -> None:
    axis = labelled("x", pl.col("x"), ("a", "b"))
    assert pl.DataFrame({"x": ["b", "c", None, "a"]}).select(axis.code).to_series().to_list() == [1, None, None, 0]


@pytest.mark.parametrize(
    ("quota", "counts", "expected"),
    [
        (Quota("q", "min_count", "x", ("a", "b"), 3), {"a": 5, "b": 2}, (2.0, False)),
        (Quota("q", "min_count", "x", ("a", "b"), 2), {"a": 5, "b": 2}, (2.0, True)),
        (Quota("q", "max_share", "x", ("a",), 0.4), {"a": 5, "b": 5}, (0.5, False)),
        (Quota("q", "max_share", "x", ("a",), 0.4), {}, (0.0, True)),
        (Quota("q", "share", "x", ("a",), 0.5, 0.01), {"a": 50, "b": 51}, (50 / 101, True)),
        (Quota("q", "share", "x", ("a",), 0.5, 0.01), {}, (0.0, False)),
    ],
)
def test_quota_verdicts(quota: Quota, counts: dict[str, int], expected: tuple[float, bool]) -> None:
    assert quota.verdict(counts) == expected
