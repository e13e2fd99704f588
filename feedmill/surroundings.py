"""Prepares a process for bad surroundings: closed or full outputs, ASCII terminals, warnings turned into errors.

The command line calls `prepare` first. After an error, `broken_output` shows whether standard output caused it.
"""

from __future__ import annotations

import errno
import io
import os
import sys
import warnings
from contextlib import suppress
from pathlib import Path

# The disk, a quota or a limit on file sizes is used up.
_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_LEAST_COLUMNS = 10


def prepare() -> None:
    """Make the process work in bad surroundings.

    1. A closed stdin, stdout or stderr is replaced by the null device. Otherwise the next file opened would get its
       number, and receive the prints meant for it. `sys.stdin` stays None, so that readers can report it.
    2. Characters that a terminal's encoding lacks are written as escapes.
    3. A terminal width below 10 in the environment is ignored, because the tables would be empty.
    4. Warnings that the environment turned into errors are warnings again, because libraries raise some.
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
    columns = os.environ.get("COLUMNS", "")
    if columns.isdecimal() and int(columns) < _LEAST_COLUMNS:  # 3
        del os.environ["COLUMNS"]
    if any(action == "error" for action, *_ in warnings.filters) and sys.warnoptions:  # 4
        sys.warnoptions.clear()
        os.environ.pop("PYTHONWARNINGS", None)
        warnings.resetwarnings()
        for category in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
            warnings.simplefilter("ignore", category)


def broken_output() -> OSError | None:
    """Flush standard output. If that fails, discard the unwritten text and return the error."""
    try:
        sys.stdout.flush()
    except OSError as error:
        null = os.open(os.devnull, os.O_WRONLY)
        # The interpreter flushes once more when it ends.
        with suppress(OSError, ValueError):
            os.dup2(null, sys.stdout.fileno())
            sys.stdout.flush()
        os.close(null)
        return error
    except ValueError:  # a stream that was closed
        return None
    return None


def is_full(error: OSError) -> bool:
    """Return whether a write failed because no space was left."""
    return error.errno in _NO_SPACE


def full_line(error: OSError) -> str:
    """Return the error line for a full disk."""
    where = f" at {error.filename}" if error.filename else ""
    return (
        f"no space is left{where} ({error.strerror}): free some, or move FEEDMILL_DATA_DIR, TMPDIR or the command's "
        "output file to a larger disk"
    )
