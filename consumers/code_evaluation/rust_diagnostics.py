"""Errors and warnings in the JSON lines that rustc and clippy-driver write.

Only a diagnostic with a code counts as a warning. The compiler's own summaries, such as `3 warnings emitted`, have no
code, so they are never counted.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field

from consumers.code_evaluation.verdicts import CRASH, UNCODED

_CLIPPY = "clippy::"
_SUMMARY = "aborting due to "
_FAULT = "internal compiler error"


@dataclass(frozen=True)
class Diagnostics:
    """Counts of diagnostics.

    Attributes:
        errors: errors of the compiler by code, or `uncoded`; an error in the compiler itself is `compiler_crash`.
        denied: clippy's lints that the source makes errors, by name.
        warnings: warnings of clippy, by lint.
    """

    errors: Counter[str] = field(default_factory=Counter)
    denied: Counter[str] = field(default_factory=Counter)
    warnings: Counter[str] = field(default_factory=Counter)


def diagnostics_of(lines: bytes) -> Diagnostics:
    """Return the counts of what a compiler wrote with `--error-format=json`; other lines are ignored.

    >>> diagnostics_of(b'{"level": "error", "code": {"code": "E0308"}, "message": "mismatched types"}').errors
    Counter({'E0308': 1})
    """
    counts = Diagnostics()
    for line in lines.splitlines():
        if not line.startswith(b"{"):
            continue
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(entry, dict):
            _count(entry, counts)
    return counts


def _count(entry: dict[str, object], counts: Diagnostics) -> None:
    level, message, code = str(entry.get("level")), str(entry.get("message")), entry.get("code")
    name = str(code.get("code")) if isinstance(code, dict) else ""
    if _FAULT in level:
        counts.errors[CRASH] += 1
    elif level == "error" and name.startswith(_CLIPPY):
        counts.denied[name] += 1
    elif level == "error" and (name or not message.startswith(_SUMMARY)):
        counts.errors[name or UNCODED] += 1
    elif level == "warning" and name.startswith(_CLIPPY):
        counts.warnings[name] += 1
