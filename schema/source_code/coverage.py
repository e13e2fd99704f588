"""The code family's coverage axes, cells and quotas."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from schema.axes import Axis, Quota, banded, labelled
from schema.source_code.columns import KINDS
from schema.source_code.complexity import PHASES
from schema.source_code.languages import FIRST_CLASS, WITH_GRAMMAR
from schema.source_code.roles import ROLES

_language = labelled("language", pl.col("language"), WITH_GRAMMAR)
_patterned = pl.col("language").is_in(FIRST_CLASS)
IDIOMATIC_BINS = ("0", "1-2", "3-4", "5-6", "7-8")
_idiomatic = banded("idiomatic_band", pl.col("idiomatic"), (1, 3, 5, 7), IDIOMATIC_BINS)
PHASE_BINS = tuple(str(phase) for phase in PHASES)

CELL_AXES = ("language", "kind", "phase")
AXES: tuple[Axis, ...] = (
    Axis("language", (*WITH_GRAMMAR, "other"), _language.code.fill_null(len(WITH_GRAMMAR))),
    labelled("kind", pl.col("kind"), KINDS),
    Axis("phase", PHASE_BINS, (pl.col("phase") - 1).cast(pl.UInt16)),
    labelled("role", pl.col("role"), ROLES),
    # Only languages that have patterns are counted.
    Axis("idiomatic_band", IDIOMATIC_BINS, pl.when(_patterned).then(_idiomatic.code)),
    Axis("documented", ("no", "yes"), pl.when(_patterned).then(pl.col("documented").cast(pl.UInt16))),
)

QUOTAS = (
    # The route, which is the smallest shingle of the text, does not depend on the role.
    Quota("quota_tests_share", "max_share", "role", ("tests",), 0.25),
)


def cell_possible(cell: Mapping[str, str]) -> bool:
    """Return whether a topic should have documents of a cell: those of the languages that can be augmented."""
    return cell["language"] in FIRST_CLASS
