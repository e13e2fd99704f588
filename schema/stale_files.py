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

from schema.errors import UsageError


def in_making(path: Path, ending: str) -> Path:
    """Return the path for this process's unfinished file `path`, and remove those of dead processes.

    Raises:
        UsageError: `path` is a device, a pipe, a folder or a standard stream. A file that is renamed to that name would
            take its place: as root, `--out /dev/null` would end with an ordinary file of that name.

    >>> in_making(Path("rows.jsonl"), "part").name == f".rows.jsonl.{os.getpid()}.part"
    True
    """
    # A place that cannot be looked at is the error of the caller, who writes there.
    with suppress(OSError):
        is_stream = path.is_symlink() and path.readlink().is_relative_to("/proc")
        if is_stream or (path.exists() and not path.is_file()):
            raise UsageError(f"{path} is not an ordinary file: name one that may be written or replaced")
    name = re.compile(rf"\.{re.escape(path.name)}\.(\d+)\.{re.escape(ending)}")
    with suppress(OSError):
        for file in path.parent.iterdir():
            match = name.fullmatch(file.name)
            if match and not psutil.pid_exists(int(match[1])):
                file.unlink(missing_ok=True)
    return path.with_name(f".{path.name}.{os.getpid()}.{ending}")
