"""Every family is complete: the parts that it declares exist and fit its rules, and its declarations are consistent."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path

import polars as pl
import pytest

from consumers.form_options import FormOptions
from consumers.source_code.byte_pairs import LEAST_VOCABULARY, train_byte_pairs
from consumers.tensor_form import TensorForm, form_of
from feedmill.family_commands import DeclaredCommands
from schema.axes import Quota, banded, labelled
from schema.errors import ConfigError, UnknownFamilyError
from schema.family import ENVELOPE, Example, Family, Parts, axis_codes, cell_codes, cell_label, identify
from schema.parts import load_part
from schema.registry import FAMILIES, family_named

ROOT = Path(__file__).parent.parent.parent
families = pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES.keys())


def families_with(part: str) -> pytest.MarkDecorator:
    """Run a test for each family that declares an optional part."""
    declaring = [family for family in FAMILIES.values() if getattr(family.parts, part)]
    return pytest.mark.parametrize("family", declaring, ids=[family.name for family in declaring])


# The package that holds each part; the keys are the names of the parts.
PACKAGES = {
    "producer": "producers",
    "filling": "producers",
    "augmentation": "streams",
    "tensor_form": "consumers",
    "commands": "feedmill",
    "samples": "tests",
}


def judged(rows: pl.DataFrame, family: Family) -> pl.DataFrame:
    """Return the rows that pass the family's rules."""
    good, _ = family.rules.filter(family.derive(rows.with_columns(record=pl.lit(0, dtype=pl.UInt32))))
    return good


@families
def test_a_family_declares_its_parts_in_the_packages_that_use_them(family: Family) -> None:
    assert {each.name for each in fields(Parts)} == set(PACKAGES)
    for part, package in PACKAGES.items():
        declared = getattr(family.parts, part)
        places = declared.values() if isinstance(declared, Mapping) else [declared] if declared else []
        assert all(place.startswith(f"{package}.") for place in places), part
    assert (ROOT / "docs" / f"{family.name}.md").is_file()


@families
def test_every_declared_part_exists_and_is_of_its_kind(family: Family, tmp_path: Path) -> None:
    if isinstance(load_part(family, "tensor_form"), TensorForm):
        form = form_of(family.name)
    else:
        # The form needs a tokenizer; any will do.
        tokenizer = tmp_path / "tokenizer.json"
        tokenizer.write_text(train_byte_pairs(["a text"], LEAST_VOCABULARY))
        form = form_of(family.name, FormOptions(tokenizer=tokenizer))
    assert set(form.columns) <= set(family.wire)
    for part in ("producer", "samples"):
        assert callable(load_part(family, part)), part
    assert f"produce {family.name}" in family.parts.commands
    for line in family.parts.commands:
        group, name = line.split()
        command = DeclaredCommands(group)[name]
        assert (command.name, bool(command.help), bool(command.params)) == (name, True, True)


@families
def test_sample_rows_are_valid_and_different(family: Family) -> None:
    samples = load_part(family, "samples")(50)
    assert dict(samples.schema) == family.wire
    assert judged(samples, family).height == samples["example_id"].n_unique() == 50
    assert identify(samples, family).equals(samples)


@families_with("filling")
def test_filled_rows_are_valid_and_of_their_cells(family: Family) -> None:
    possible = [cell for cell in family.cells() if family.cell_possible(cell)]
    cells = [possible[0], possible[-1]]
    rows = judged(load_part(family, "filling")(cells, 3, 0), family)
    labels = list(family.cells())
    codes = cell_codes(axis_codes(rows, family.axes), family)
    assert [labels[code] for code in codes] == cells


@families_with("augmentation")
def test_augmented_sample_rows_are_valid(family: Family) -> None:
    samples = judged(load_part(family, "samples")(20), family)
    copies = load_part(family, "augmentation")(samples.with_columns(copy=pl.lit(0, dtype=pl.UInt32)))
    assert not copies.is_empty()
    assert copies["augmented_from"].is_in(samples["example_id"].implode()).all()
    assert judged(identify(copies.drop("record"), family), family).height == copies.height


@pytest.mark.parametrize("place", ["producers.nowhere:fill", "producers.reduction.filling:nothing", "no.such:thing"])
def test_a_part_that_does_not_exist_is_an_error_that_names_it(place: str) -> None:
    family = replace(FAMILIES["reduction"], parts=replace(FAMILIES["reduction"].parts, filling=place))
    with pytest.raises(ConfigError, match=f"declares its filling as {place}, which does not exist"):
        load_part(family, "filling")


def test_a_part_that_is_not_declared_is_an_error_that_names_it() -> None:
    with pytest.raises(ConfigError, match="family scenario has no eval scenario: declare it"):
        load_part(FAMILIES["scenario"], "eval scenario")
    with pytest.raises(ConfigError, match="family scenario has no commands: declare it"):
        load_part(FAMILIES["scenario"], "commands")


def test_a_missing_library_of_a_part_is_not_a_missing_part(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "needs_more.py").write_text("import no_such_library\n")
    monkeypatch.syspath_prepend(tmp_path)
    family = replace(FAMILIES["reduction"], parts=replace(FAMILIES["reduction"].parts, filling="needs_more:fill"))
    with pytest.raises(ModuleNotFoundError, match="no_such_library"):
        load_part(family, "filling")


def test_the_declarations_load_none_of_their_parts() -> None:
    program = "import sys, schema.registry, schema.parts; print(*{each.partition('.')[0] for each in sys.modules})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    assert not {*PACKAGES.values(), "torch", "kafka", "faust", "duckdb", "numba", "typer"} & set(done.stdout.split())


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
