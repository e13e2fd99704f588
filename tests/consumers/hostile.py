"""Texts that once ran code: serialized Polars expressions that hide a pickled call."""

from __future__ import annotations

import json
import os
import pickle
import sys
from pathlib import Path
from typing import Any


class Touch:
    """Makes a file when it is unpickled, like an attacker's pickle."""

    def __init__(self, path: Path) -> None:
        self._command = f"touch {path}"

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self._command,)


def serialized_call(path: Path) -> dict[str, Any]:
    """A Polars `AnonymousFunction` whose evaluation makes the file `path`, as Polars itself writes it."""
    # Polars' header: PLPYFN, the return type in MessagePack, then the Python version that pickled the function.
    header = b"PLPYFN\x94\x81\xa7Literal\xa5Int64\xc0\xc2\xc2" + bytes([1, *sys.version_info[1:3]])
    return {
        "AnonymousFunction": {
            "input": [{"Column": "size"}],
            "function": list(header + pickle.dumps(Touch(path))),
            "options": {"check_lengths": True, "flags": "OPTIONAL_RE_ENTRANT"},
        }
    }


def serialized_filters(path: Path) -> dict[str, str]:
    """Polars' JSON of filters that make the file `path`, by where they hide the call."""
    call = serialized_call(path)
    three: dict[str, Any] = {"Literal": {"Dyn": {"Int": 3}}}
    hidden = {
        "operand": call,
        "cast": {"Cast": {"expr": {"Column": "size"}, "dtype": {"OfExpr": call}, "options": "Strict"}},
    }
    return {
        name: json.dumps({"BinaryExpr": {"left": part, "op": "Gt", "right": three}}, separators=(",", ":"))
        for name, part in hidden.items()
    }
