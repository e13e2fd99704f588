"""The licence of a file or of a repository, as an SPDX expression, from where authors usually state it.

1. `SPDX-License-Identifier:` in the first lines of a file; it holds for that file only.
2. `license` in Cargo.toml or pyproject.toml.
3. The text of LICENSE or COPYING files, if it is one of the well-known ones. Two of them, such as LICENSE-MIT and
   LICENSE-APACHE, are joined with OR.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from producers.source_code.regular_files import text_of

_SPDX = re.compile(r"SPDX-License-Identifier:[ \t]*([A-Za-z0-9.+\-() \t]+)")
_SPDX_CHARACTERS = 2000
_EXPRESSION = re.compile(r"[A-Za-z0-9.+\-]+(?:\s+(?:OR|AND|WITH)\s+[A-Za-z0-9.+\-]+)*")
_LICENSE_FILE = re.compile(r"(?:licen[cs]e|copying|unlicense)(?:[-_.].*)?", re.IGNORECASE)
_MOST_FILES = 8

# (SPDX id, sentences that are all in the licence's text), the more special licence first. White space is normalised.
_TEXTS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("Apache-2.0", ("Apache License", "Version 2.0, January 2004")),
    ("AGPL-3.0", ("GNU AFFERO GENERAL PUBLIC LICENSE", "Version 3")),
    ("LGPL-3.0", ("GNU LESSER GENERAL PUBLIC LICENSE", "Version 3")),
    ("LGPL-2.1", ("GNU LESSER GENERAL PUBLIC LICENSE", "Version 2.1")),
    ("GPL-3.0", ("GNU GENERAL PUBLIC LICENSE", "Version 3")),
    ("GPL-2.0", ("GNU GENERAL PUBLIC LICENSE", "Version 2")),
    ("MPL-2.0", ("Mozilla Public License Version 2.0",)),
    ("Python-2.0", ("PYTHON SOFTWARE FOUNDATION LICENSE VERSION 2",)),
    ("BSL-1.0", ("Boost Software License - Version 1.0",)),
    ("Unlicense", ("This is free and unencumbered software released into the public domain",)),
    ("CC0-1.0", ("CC0 1.0 Universal",)),
    ("ISC", ("Permission to use, copy, modify, and/or distribute this software for any purpose with or without fee",)),
    ("Zlib", ("This software is provided 'as-is', without any express or implied warranty", "Altered source versions")),
    ("BSD-3-Clause", ("Redistribution and use in source and binary forms", "endorse or promote products")),
    ("BSD-2-Clause", ("Redistribution and use in source and binary forms",)),
    ("MIT", ("Permission is hereby granted, free of charge, to any person obtaining a copy",)),
)


def file_license(text: str) -> str | None:
    """Return the SPDX expression in the first 2,000 characters of a file, or None."""
    found = _SPDX.search(text, 0, _SPDX_CHARACTERS)
    return " ".join(found[1].split()).removesuffix(" --") or None if found else None


def license_of_text(text: str) -> str | None:
    """Return the SPDX id of a licence's text, or None if it is not one of the well-known ones."""
    flat = " ".join(text.split())
    return next((name for name, sentences in _TEXTS if all(one in flat for one in sentences)), None)


def repository_license(folder: Path, cargo: Mapping[str, Any], project: Mapping[str, Any]) -> str | None:
    """Return the licence that a repository states, or None.

    Args:
        folder: the repository's folder.
        cargo: the table `package` of its Cargo.toml, or `workspace.package`.
        project: the table `project` of its pyproject.toml.
    """
    stated = (cargo.get("license"), project.get("license"))
    for text in stated:
        # The old form in crates, MIT/Apache-2.0, means OR.
        if isinstance(text, str) and _EXPRESSION.fullmatch(text := " OR ".join(text.split("/")).strip("() ")):
            return " ".join(text.split())
        if isinstance(text, dict) and isinstance(text.get("text"), str):
            return license_of_text(text["text"]) or (text["text"] if _EXPRESSION.fullmatch(text["text"]) else None)
    try:
        files = sorted(path for path in folder.iterdir() if _LICENSE_FILE.fullmatch(path.name))
    except OSError:
        return None
    texts = map(text_of, files[:_MOST_FILES])
    known = sorted({name for text in texts if text and (name := license_of_text(text))})
    return " OR ".join(known) or None
