"""What a command meets before it does anything: closed or full outputs, narrow terminals, warnings made errors.

`prepare` is called once, first of all; `broken_output` says, after an error, whether standard output was at fault.
"""

from __future__ import annotations

import errno
import io
import os
import sys
import warnings
from contextlib import suppress
from pathlib import Path

# A disk, a quota or a size limit that is used up, and a file system that takes no writing.
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def prepare() -> None:
    """Make the process fit for work wherever it was started.

    1. A closed stdin, stdout or stderr is replaced by the null device: the next file that is opened would get its
       number, and a print meant for stderr would go to stdout. `sys.stdin` stays None, so that readers can say so.
    2. Characters that a terminal's encoding lacks are written as escapes.
    3. Warnings that the environment made errors are warnings again: those of libraries are no reason to end.
    """
    for number in range(3):  # 1
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    if sys.stdout is None:
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):  # 2
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if any(action == "error" for action, *_ in warnings.filters) and sys.warnoptions:  # 3
        sys.warnoptions.clear()
        os.environ.pop("PYTHONWARNINGS", None)
        warnings.resetwarnings()
        for category in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
            warnings.simplefilter("ignore", category)


def broken_output() -> OSError | None:
    """Flush standard output and return why that fails, if it does; what it held is then given up."""
    try:
        sys.stdout.flush()
    except OSError as error:
        null = os.open(os.devnull, os.O_WRONLY)
        # The interpreter flushes once more as it ends.
        with suppress(OSError, ValueError):
            os.dup2(null, sys.stdout.fileno())
            sys.stdout.flush()
        os.close(null)
        return error
    except ValueError:  # a stream that was closed
        return None
    return None


def is_full(error: OSError) -> bool:
    """Return whether there was no room left for what was written."""
    return error.errno in _NO_ROOM


def full_line(error: OSError) -> str:
    """Return the line that tells a user of a full disk."""
    where = f" at {error.filename}" if error.filename else ""
    return (
        f"no room is left{where} ({error.strerror}): free some, or set data_dir, TMPDIR or the command's "
        "own output to a larger disk"
    )
