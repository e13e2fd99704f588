"""Small valid documents for tests: Python and Rust files with functions that can be augmented."""

from __future__ import annotations

from typing import Any

import polars as pl

from schema.family import identify
from schema.source_code import FAMILY
from schema.source_code.grammar import grammar_of, parse
from schema.source_code.scores import scored

_NOUNS = ["boxes", "letters", "lamps", "keys", "tickets", "blankets", "ladders", "plates", "bottles", "maps", "cables"]
_VERBS = [
    "sort",
    "count",
    "pack",
    "label",
    "clean",
    "borrow",
    "move",
    "fold",
    "fetch",
    "weigh",
    "mend",
    "paint",
    "lift",
]

_PYTHON = '''"""Work on {nouns}, part {number}."""

from collections.abc import Iterable


def {verb}_{nouns}(given_{nouns}: Iterable[int], limit_{number}: int = {number}) -> list[int]:
    """Return the {nouns} to {verb}, at most {number}."""
    chosen_{nouns} = []
    for each_{nouns} in given_{nouns}:
        if each_{nouns} > limit_{number}:  # too many {nouns}
            chosen_{nouns}.append(each_{nouns} - limit_{number})
    return chosen_{nouns}
'''
_RUST = """//! Work on {nouns}, part {number}.

/// Returns the {nouns} to {verb}, at most {number}.
pub fn {verb}_{nouns}(given_{nouns}: &[i64], limit_{number}: i64) -> Option<Vec<i64>> {{
    let mut chosen_{nouns} = Vec::new();
    for each_{nouns} in given_{nouns} {{
        // too many {nouns}
        if *each_{nouns} > limit_{number} {{
            chosen_{nouns}.push(*each_{nouns} - limit_{number} - {number});
        }}
    }}
    if chosen_{nouns}.is_empty() {{ None }} else {{ Some(chosen_{nouns}) }}
}}
"""


def document(number: int, **changes: Any) -> dict[str, Any]:
    """Return a document with a text of its own for each `number`: even ones are Python, odd ones Rust."""
    words = {
        "nouns": f"{_NOUNS[number % len(_NOUNS)]}_{number}",
        "verb": _VERBS[number % len(_VERBS)],
        "number": number + 3,
    }
    language, template, path = (
        ("python", _PYTHON, f"package/part_{number}.py")
        if number % 2 == 0
        else ("rust", _RUST, f"src/part_{number}.rs")
    )
    return {
        "text": template.format(**words),
        "language": language,
        "repository": f"hand-made-{number % 5}",
        "path": path,
        "kind": "snapshot",
        "group": f"hand-made-{number % 5}",
        **changes,
    }


def frame(documents: list[dict[str, Any]]) -> pl.DataFrame:
    """Return documents as a scored and identified frame of `FAMILY.wire`."""
    own = {name: [each.get(name) for each in documents] for name in FAMILY.columns}
    rows = scored(pl.DataFrame(own, schema=FAMILY.columns))
    return identify(rows, FAMILY).select(list(FAMILY.wire))


def valid_rows(count: int, first: int = 0) -> pl.DataFrame:
    """Return `count` valid snapshots with different texts, alternating between Python and Rust."""
    return frame([document(number) for number in range(first, first + count)])


def parses(source: bytes, language: str) -> bool:
    """Whether source code has a syntax tree without errors; true for a language without grammar."""
    tree = parse(source, language)
    return grammar_of(language) is None if tree is None else not tree.root_node.has_error
