"""Remove the unfinished files of killed processes, which are found by the process id in their names.

An unfinished file is named `.NAME.PID.ENDING`, in the folder of the finished one. A process cannot clean up after
`kill -9`, so the next process that makes a file of that name does it.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path

import psutil


def in_making(path: Path, ending: str) -> Path:
    """Return the path for this process's unfinished file `path`, and remove those of dead processes.

    >>> in_making(Path("rows.jsonl"), "part").name == f".rows.jsonl.{os.getpid()}.part"
    True
    """
    name = re.compile(rf"\.{re.escape(path.name)}\.(\d+)\.{re.escape(ending)}")
    with suppress(OSError):
        for file in path.parent.iterdir():
            match = name.fullmatch(file.name)
            if match and not psutil.pid_exists(int(match[1])):
                file.unlink(missing_ok=True)
    return path.with_name(f".{path.name}.{os.getpid()}.{ending}")
