"""Filters that a training run applies to documents, as SQL conditions for a feed.

The conditions are those of the refine stage (`schema.source_code.filters`), and paths of examples and benchmarks. A
feed's state and manifest hold them as text.
"""

from __future__ import annotations

from dataclasses import dataclass

from schema.source_code.columns import EXPERT
from schema.source_code.languages import FIRST_CLASS

# Shares are chosen in parts of one in this many; it is odd, so that it divides no power of two.
_PARTS = 10_007
# A seed shifts the parts by so many.
_STEP = 3_823
_EXAMPLES = "(^|/)(examples|example)/"
_BENCHES = "(^|/)(benches|bench|benchmarks|benchmark)/|(^|/)bench_[^/]*[.]py$|_bench[.](py|rs|go)$"


@dataclass(frozen=True, kw_only=True)
class DocumentFilters:
    """Which documents a run learns from.

    Attributes:
        min_length, max_length: characters.
        exclude_tests: leave out the role `tests`; items of tests inside a file stay (`--skip-tests` of the producer
            removes them).
        exclude_examples, exclude_benches: leave out folders and files by path.
        prefer_idiomatic: an idiomatic pattern, and two of them for each low-quality mark (Python and Rust).
        prefer_documented: a doc comment or docstring (Python and Rust).
        languages: only these; None takes all.
        where: a further condition.
        others_share: beside an expert's rows, this share of the other documents.
        others_seed: with `example_id`, chooses these others.
    """

    min_length: int = 0
    max_length: int = 200_000
    exclude_tests: bool = False
    exclude_examples: bool = False
    exclude_benches: bool = False
    prefer_idiomatic: bool = False
    prefer_documented: bool = False
    languages: tuple[str, ...] | None = None
    where: str | None = None
    others_share: float | None = None
    others_seed: int = 0

    def conditions(self) -> dict[str, str]:
        """Return an SQL condition for each reason to leave a document out, true for one that passes.

        >>> DocumentFilters(min_length=64, exclude_tests=True).conditions()
        {'text_too_short': 'characters >= 64', 'text_too_long': 'characters <= 200000', 'test': "role <> 'tests'"}
        """
        others = f"language NOT IN ({_listed(FIRST_CLASS)})"
        chosen = {
            "text_too_short": f"characters >= {self.min_length}",
            "text_too_long": f"characters <= {self.max_length}",
        }
        if self.exclude_tests:
            chosen["test"] = "role <> 'tests'"
        if self.exclude_examples:
            chosen["example"] = f"NOT regexp_matches(path, '{_EXAMPLES}')"
        if self.exclude_benches:
            chosen["bench"] = f"NOT regexp_matches(path, '{_BENCHES}')"
        if self.prefer_idiomatic:
            chosen["not_idiomatic"] = f"(idiomatic >= 1 AND idiomatic >= 2 * low_quality) OR {others}"
        if self.prefer_documented:
            chosen["not_documented"] = f"documented OR {others}"
        if self.languages is not None:
            chosen["other_language"] = f"language IN ({_listed(self.languages)})"
        if self.where is not None:
            chosen["where"] = self.where
        if self.others_share is not None:
            chosen["other_share"] = (
                f"coalesce(origin, '') = '{EXPERT}' OR (example_id % {_PARTS} + {self.others_seed * _STEP % _PARTS}) "
                f"% {_PARTS} < {round(self.others_share * _PARTS)}"
            )
        return chosen


def _listed(texts: tuple[str, ...] | frozenset[str] | list[str]) -> str:
    return ", ".join("'" + text.replace("'", "''") + "'" for text in sorted(texts))
