"""`python -m bench.phase_edges LANGUAGE FOLDER...`: measure the complexities that separate the phases of a language.

It prints, as JSON, the number of files and the terciles of their complexity. Tests and files of fewer than 64
characters are left out. `schema.source_code.complexity.PHASE_EDGES` holds the figures that were measured.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from schema.source_code.languages import language_of
from schema.source_code.scores import scored

# The default of the setting `code_min_length`.
_SHORTEST_CHARACTERS = 64


def measured(language: str, folders: Sequence[Path]) -> dict[str, object]:
    """Return {language, files, edges}; `edges` are the terciles of complexity of the language's files in `folders`."""
    rows = [
        {"text": text, "language": language, "path": path.relative_to(folder).as_posix(), "kind": "snapshot"}
        for folder in folders
        for path in sorted(folder.rglob("*"))
        if language_of(path.name) == language and "site-packages" not in path.parts and (text := _text(path))
    ]
    names = ("text", "language", "path", "kind")
    frame = scored(pl.DataFrame(rows, schema=dict.fromkeys(names, pl.String)))
    frame = frame.filter(pl.col("characters") >= _SHORTEST_CHARACTERS, pl.col("role") != "tests")
    edges = [frame["complexity"].quantile(third / 3, interpolation="linear") for third in (1, 2)]
    return {"language": language, "files": frame.height, "edges": [round(edge or 0.0, 2) for edge in edges]}


def _text(path: Path) -> str:
    """Return the text of a file, or nothing if it is no UTF-8."""
    try:
        return path.read_bytes().decode()
    except (OSError, UnicodeDecodeError):
        return ""


if __name__ == "__main__":
    print(json.dumps(measured(sys.argv[1], [Path(folder) for folder in sys.argv[2:]])))
