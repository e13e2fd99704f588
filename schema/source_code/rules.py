"""The rules of a document; a rule's name is the reason code of the rows that break it.

Every computed column is computed again and compared. A missing value breaks only its column's nullability rule.
"""

from __future__ import annotations

import dataframely as dy
import polars as pl

from schema.family import Example
from schema.source_code.columns import (
    AUGMENTED_KINDS,
    COMPLETION,
    COMPUTED,
    EVOLUTION,
    EVOLUTION_COLUMNS,
    EXPERT,
    KINDS,
    evolution_text,
)
from schema.source_code.languages import LANGUAGES
from schema.source_code.scores import computed

# Computed numbers are compared with this tolerance, because a JSON file may hold them with fewer digits.
_TOLERANCE = 1e-6
_SUFFIX = "_computed"
_ISO_TIME = "%Y-%m-%dT%H:%M:%SZ"
_SCORES = (
    *("characters", "lines", "idiomatic", "idiomatic_score", "low_quality", "documented"),
    *("complexity", "nesting", "branches", "parses"),
)


def derive(frame: pl.DataFrame) -> pl.DataFrame:
    """Return `frame` with every computed column again, as `NAME_computed`."""
    return frame.hstack(computed(frame).rename({name: f"{name}{_SUFFIX}" for name in COMPUTED}))


def _is_same(column: str) -> pl.Expr:
    stated, found = pl.col(column), pl.col(f"{column}{_SUFFIX}")
    if column in ("weight", "idiomatic_score", "complexity"):
        return (stated - found).abs() <= _TOLERANCE
    return stated == found


def _says_something(column: str) -> pl.Expr:
    return pl.col(column).str.contains(r"\S")


def _is_evolution() -> pl.Expr:
    return pl.col("kind") == EVOLUTION


class SourceCode(Example):
    """The rules of one document."""

    text = dy.String(nullable=False)
    language = dy.String(nullable=False)
    repository = dy.String(nullable=False)
    commit = dy.String(nullable=True)
    path = dy.String(nullable=False)
    license = dy.String(nullable=True)
    kind = dy.String(nullable=False)
    role = dy.String(nullable=False)
    weight = dy.Float64(nullable=False)
    characters = dy.Int32(nullable=False)
    lines = dy.Int32(nullable=False)
    idiomatic = dy.Int32(nullable=False)
    idiomatic_score = dy.Float64(nullable=False)
    low_quality = dy.Int32(nullable=False)
    documented = dy.Bool(nullable=False)
    complexity = dy.Float64(nullable=False)
    nesting = dy.Int32(nullable=False)
    branches = dy.Int32(nullable=False)
    phase = dy.Int32(nullable=False)
    parses = dy.Bool(nullable=False)
    before = dy.String(nullable=True)
    after = dy.String(nullable=True)
    diff = dy.String(nullable=True)
    message = dy.String(nullable=True)
    author_date = dy.String(nullable=True)
    signatures = dy.String(nullable=True)
    prompt = dy.String(nullable=True)
    origin = dy.String(nullable=True)
    lint_warnings = dy.Int32(nullable=True)
    group = dy.String(nullable=False)

    # Recomputed by `derive`; never in a record. A column is null if what it is computed from is missing.
    role_computed = dy.String(nullable=True)
    weight_computed = dy.Float64(nullable=True)
    characters_computed = dy.Int32(nullable=True)
    lines_computed = dy.Int32(nullable=True)
    idiomatic_computed = dy.Int32(nullable=True)
    idiomatic_score_computed = dy.Float64(nullable=True)
    low_quality_computed = dy.Int32(nullable=True)
    documented_computed = dy.Bool(nullable=True)
    complexity_computed = dy.Float64(nullable=True)
    nesting_computed = dy.Int32(nullable=True)
    branches_computed = dy.Int32(nullable=True)
    phase_computed = dy.Int32(nullable=True)
    parses_computed = dy.Bool(nullable=True)

    @dy.rule()
    def text_has_nul(cls) -> pl.Expr:
        """The text has no NUL character."""
        return ~pl.col("text").str.contains("\0", literal=True)

    @dy.rule()
    def language_unknown(cls) -> pl.Expr:
        """The language is one of `LANGUAGES`."""
        return pl.col("language").is_in(LANGUAGES)

    @dy.rule()
    def repository_unnamed(cls) -> pl.Expr:
        """The repository's name is not blank."""
        return _says_something("repository")

    @dy.rule()
    def group_unnamed(cls) -> pl.Expr:
        """The group is not blank."""
        return _says_something("group")

    @dy.rule()
    def path_invalid(cls) -> pl.Expr:
        """The path is not blank, does not begin with `/`, has no part `..`, and no NUL character."""
        path = pl.col("path")
        return _says_something("path") & ~path.str.contains(r"^/|(^|/)[.][.](/|$)|\x00")

    @dy.rule()
    def kind_unknown(cls) -> pl.Expr:
        """The kind is one of `KINDS`."""
        return pl.col("kind").is_in(KINDS)

    @dy.rule()
    def origin_mismatch(cls) -> pl.Expr:
        """The row has `augmented_from` exactly if its kind is that of an augmentation."""
        known = pl.col("kind").is_in(KINDS)
        return ~known | (pl.col("kind").is_in(AUGMENTED_KINDS) == pl.col("augmented_from").is_not_null())

    @dy.rule()
    def parse_error(cls) -> pl.Expr:
        """The row is no augmentation, or its text parses."""
        return pl.col("augmented_from").is_null() | pl.col("parses_computed")

    @dy.rule()
    def role_mismatch(cls) -> pl.Expr:
        """The role is that of the path and the language."""
        return _is_same("role")

    @dy.rule()
    def weight_mismatch(cls) -> pl.Expr:
        """The weight is that of the role, or of an expert's scores."""
        return _is_same("weight")

    @dy.rule()
    def scores_mismatch(cls) -> pl.Expr:
        """Sizes, marks and complexity are those of the text."""
        return pl.all_horizontal(_is_same(name).fill_null(True) for name in _SCORES)

    @dy.rule()
    def phase_mismatch(cls) -> pl.Expr:
        """The phase is that of the recomputed complexity."""
        return _is_same("phase")

    @dy.rule()
    def evolution_incomplete(cls) -> pl.Expr:
        """An evolution has before, after, diff, message, author date and commit."""
        columns = (*EVOLUTION_COLUMNS, "commit")
        return ~_is_evolution() | pl.all_horizontal(pl.col(name).is_not_null() for name in columns)

    @dy.rule()
    def evolution_misplaced(cls) -> pl.Expr:
        """A row of another kind has no before, after, diff, message and author date."""
        is_bare = pl.all_horizontal(pl.col(name).is_null() for name in EVOLUTION_COLUMNS)
        return _is_evolution() | ~pl.col("kind").is_in(KINDS) | is_bare

    @dy.rule()
    def evolution_text_mismatch(cls) -> pl.Expr:
        """The text of an evolution is its message, a blank line, and its diff."""
        return ~_is_evolution() | (pl.col("text") == evolution_text(pl.col("message"), pl.col("diff")))

    @dy.rule()
    def author_date_invalid(cls) -> pl.Expr:
        """The author date is a time in UTC such as 2024-05-06T07:08:09Z, or missing."""
        date = pl.col("author_date")
        return date.is_null() | (
            date.str.contains(r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z$")
            & date.str.to_datetime(_ISO_TIME, strict=False).is_not_null()
        )

    @dy.rule()
    def prompt_misplaced(cls) -> pl.Expr:
        """The row has a prompt exactly if it is a completion."""
        kind = pl.col("kind")
        return ~kind.is_in(KINDS) | ((kind == COMPLETION) == pl.col("prompt").is_not_null())

    @dy.rule()
    def prompt_mismatch(cls) -> pl.Expr:
        """The text begins with the prompt, which is not blank, and goes on after it."""
        text, prompt = pl.col("text"), pl.col("prompt")
        return prompt.is_null() | (_says_something("prompt") & text.str.starts_with(prompt) & (text != prompt))

    @dy.rule()
    def origin_unknown(cls) -> pl.Expr:
        """The origin is missing, or that of an expert."""
        return pl.col("origin").is_null() | (pl.col("origin") == EXPERT)

    @dy.rule()
    def expert_incomplete(cls) -> pl.Expr:
        """A row of an expert is a completion with a number of warnings, and no other row has one."""
        warnings = pl.col("lint_warnings")
        of_expert = pl.col("origin").fill_null("") == EXPERT
        judged = (pl.col("kind") == COMPLETION) & (warnings.fill_null(-1) >= 0)
        return pl.when(of_expert).then(judged).otherwise(warnings.is_null())
