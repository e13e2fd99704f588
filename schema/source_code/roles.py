"""The role of a document in its repository, from its path and language, and the weight of each role."""

from __future__ import annotations

import re

import polars as pl

from schema.source_code.languages import PROSE

ROLES = ("core", "ordinary", "docs", "tests")
# Mean passes over a document in an epoch, by role. The contract gives the numbers.
WEIGHTS = {"core": 3.0, "ordinary": 1.0, "docs": 0.5, "tests": 0.3}

# Patterns over the whole path. Each is read by Python's and by Polars' engine, so it uses only what both read alike:
# classes of ASCII letters, groups, alternatives, and `$` for the end of the text.
_TESTS = (
    r"(^|/)([Tt]ests?|testing|testdata|__tests__|[Ss]pecs?)/"
    r"|(^|/)(test|tests|conftest)[.][a-z]+$"
    r"|(^|/)test_[^/]*$"
    r"|_tests?[.][a-z]+$"
    r"|[.](test|spec)[.][a-z]+$"
    r"|[A-Za-z0-9]Tests?[.]java$"
)
_DOCS = r"(^|/)([Dd]ocs?|[Dd]ocumentation)/"
_CORE = r"(^|/)(src|core)/|(^|/)core[.][a-z]+$"
# In this order: a test below `src/` is a test, and a page of documentation there is documentation.
_PATTERNS = {"tests": _TESTS, "docs": _DOCS, "core": _CORE}
# In Python `$` also matches before a line feed at the end of the text.
_COMPILED = {role: re.compile(pattern.replace("$", r"\Z")) for role, pattern in _PATTERNS.items()}


def role_of(path: str, language: str) -> str:
    """Return the role of one document: tests, docs, core or ordinary, the first that fits.

    >>> role_of("src/parser.rs", "rust"), role_of("src/tests/all.rs", "rust"), role_of("README.md", "markdown")
    ('core', 'tests', 'docs')
    """
    if _COMPILED["tests"].search(path):
        return "tests"
    if language in PROSE or _COMPILED["docs"].search(path):
        return "docs"
    return "core" if _COMPILED["core"].search(path) else "ordinary"


def role_expression(path: pl.Expr, language: pl.Expr) -> pl.Expr:
    """Return `role_of` as an expression over a path and a language (String; null for a null path)."""
    found = {role: path.str.contains(pattern) for role, pattern in _PATTERNS.items()}
    return (
        pl.when(path.is_null())
        .then(pl.lit(None, dtype=pl.String))
        .when(found["tests"])
        .then(pl.lit("tests"))
        .when(found["docs"] | language.is_in(PROSE).fill_null(False))
        .then(pl.lit("docs"))
        .when(found["core"])
        .then(pl.lit("core"))
        .otherwise(pl.lit("ordinary"))
    )


def weight_expression(role: pl.Expr) -> pl.Expr:
    """Return the weight of a role (Float64; null for an unknown role)."""
    return role.replace_strict(WEIGHTS, default=None, return_dtype=pl.Float64)
