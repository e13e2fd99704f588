"""The declaration of the code family is whole: its sample rows are valid, and its rules cover its columns."""

from __future__ import annotations

import polars as pl

from schema.family import identify
from schema.source_code import FAMILY
from tests.schema import test_registry
from tests.source_code import valid_rows


def test_sample_documents_are_valid_and_different() -> None:
    rows = valid_rows(50)
    assert dict(rows.schema) == FAMILY.wire
    assert test_registry.judged(rows, FAMILY).height == rows["example_id"].n_unique() == 50
    assert identify(rows, FAMILY).equals(rows)


def test_the_declaration_is_consistent() -> None:
    test_registry.test_the_rules_cover_exactly_the_columns(FAMILY)
    test_registry.test_axes_cells_and_quotas_use_existing_names(FAMILY)


def test_a_stated_role_of_another_path_is_a_mismatch() -> None:
    rows = valid_rows(1).with_columns(role=pl.lit("tests"), record=pl.lit(0, dtype=pl.UInt32))
    _, failures = FAMILY.rules.filter(FAMILY.derive(rows))
    assert failures.counts() == {"role_mismatch": 1}
