"""Read a JSON file that anyone may have written: limited in bytes and in nesting."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

# The state of a feed takes some kilobytes, and a manifest holds one.
LIMIT_BYTES = 16 * 1024 * 1024


def read_json_file(path: Path, limit_bytes: int = LIMIT_BYTES) -> Any:
    """Return the value in a UTF-8 file.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not JSON, has over `limit_bytes` bytes, or is nested too deeply.
    """
    with path.open("rb") as stream:
        text = stream.read(limit_bytes + 1)
    if len(text) > limit_bytes:
        raise ValueError(f"it has over {limit_bytes:,} bytes")
    try:
        return json.loads(text.decode())
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
