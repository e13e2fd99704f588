"""Files that a killed process left half written: found by the process id in their names, and removed.

A file in the making is named `.NAME.PID.ENDING` beside its place. No process can tidy up after `kill -9`, so whoever
next makes a file of that name does.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path

import psutil


def in_making(path: Path, ending: str) -> Path:
    """Return where this process makes the file `path`, and remove what dead processes left of it.

    >>> in_making(Path("rows.jsonl"), "part").name == f".rows.jsonl.{os.getpid()}.part"
    True
    """
    name = re.compile(rf"\.{re.escape(path.name)}\.(\d+)\.{re.escape(ending)}")
    with suppress(OSError):
        for found in path.parent.iterdir():
            match = name.fullmatch(found.name)
            if match and not psutil.pid_exists(int(match[1])):
                found.unlink(missing_ok=True)
    return path.with_name(f".{path.name}.{os.getpid()}.{ending}")
