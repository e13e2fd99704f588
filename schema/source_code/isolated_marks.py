"""Marks of documents, taken in a child process: tree-sitter can crash on invalid text, or never end.

The parser is C code. Invalid C or Java such as 60 kB of `xxxxxxxxxxxxx=>` ends the process that parses it, and one
document must not end a refine worker. So every document is parsed in a child process, one after the other:

1. This process writes the number of the language and the length of the source, then the source.
2. The child (`marks_process`) answers with the numbers of the document's `Marks`.
3. If the child crashes, or takes over `LIMIT_CPU_S` seconds for one document, the document is `UNPARSABLE`. A new child
   does the rest.

The child ends when its standard input ends, so it never outlives this process. It costs some 50 us a document.
"""

from __future__ import annotations

import atexit
import os
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Iterable
from typing import IO

from schema.errors import ConfigError
from schema.source_code.grammar import LANGUAGES
from schema.source_code.syntax_marks import NO_MARKS, UNPARSABLE, Marks

# The largest rows take a tenth of a second; the system counts in whole seconds.
LIMIT_CPU_S = 2
ASKED, ANSWER = struct.Struct("<BI"), struct.Struct("<II?II?")
READY = b"\n"
# How a child ends that cannot go on with its document.
_CRASHES = {-signal.SIGSEGV, -signal.SIGABRT, -signal.SIGBUS, -signal.SIGILL, -signal.SIGFPE, -signal.SIGXCPU}
_END_WAIT_S = 5.0
_SHORT_BYTES = 65_536


def isolated_marks(documents: Iterable[tuple[bytes, str | None]]) -> list[Marks]:
    """Return the marks of documents, each a source in UTF-8 and its language; the same as those of `marks_of`.

    A document that crashes the parser is `UNPARSABLE`.

    Raises:
        ConfigError: the child process cannot be started.
        MemoryError: the child process was killed, which the system does if memory is short.

    >>> [marks.parses for marks in isolated_marks([(b"x = 1", "python"), (b"x = = 1", "python")])]
    [True, False]
    """
    with _lock:
        return [NO_MARKS if language not in LANGUAGES else _marks(source, language) for source, language in documents]


def is_parsed_in_time(source: bytes, language: str) -> bool:
    """Whether this process may parse a source of Python or Rust itself: it is short, or the child parsed it in time.

    The time of the slowest texts grows with the square of their length: 590 kB of `:[` and tabs in Python take 19 s. A
    text of up to `_SHORT_BYTES` takes less than 2 seconds.
    """
    return len(source) <= _SHORT_BYTES or isolated_marks([(source, language)])[0] != UNPARSABLE


def _marks(source: bytes, language: str) -> Marks:
    for _ in range(2):
        child = _child()
        try:
            return child.marks(source, language)
        except (BrokenPipeError, EOFError):
            status = child.close()
        if status in _CRASHES:
            return UNPARSABLE
    raise MemoryError(f"the process that parses documents ended with status {status}: free some memory")


class _Child:
    """A child process that parses documents; it is ready when this returns."""

    def __init__(self) -> None:
        command = [sys.executable, "-P", "-m", "schema.source_code.marks_process"]
        # A session of its own keeps Ctrl-C away from it.
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, start_new_session=True
        )
        assert self._process.stdin is not None  # noqa: S101  # pipes were asked for; for the type checker
        assert self._process.stdout is not None  # noqa: S101
        self._asked: IO[bytes] = self._process.stdin
        self._answers: IO[bytes] = self._process.stdout
        if self._answers.read(1) != READY:
            raise ConfigError(
                f"the process that parses documents ended at once, with status {self.close()}: see stderr"
            )

    def marks(self, source: bytes, language: str) -> Marks:
        """Return the marks of a source.

        Raises:
            BrokenPipeError, EOFError: the child has ended.
        """
        _write(self._asked, ASKED.pack(LANGUAGES.index(language), len(source)) + source)
        return Marks(*ANSWER.unpack(read_whole(self._answers, ANSWER.size)))

    def close(self) -> int:
        """End the child and return its exit status."""
        global _own
        _own = None
        self._asked.close()
        try:
            return self._process.wait(_END_WAIT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()
        finally:
            self._answers.close()


# The child of the process with this id, and not that of the process that it was forked from.
_own: tuple[int, _Child] | None = None
_lock = threading.Lock()


def _child() -> _Child:
    global _own
    if _own is None or _own[0] != os.getpid():
        _own = os.getpid(), _Child()
    return _own[1]


@atexit.register
def _close() -> None:
    if _own is not None and _own[0] == os.getpid():
        _own[1].close()


def _write(stream: IO[bytes], value: bytes) -> None:
    rest = memoryview(value)
    while rest:
        rest = rest[stream.write(rest) :]


def read_whole(stream: IO[bytes], size: int) -> bytes:
    """Return `size` bytes.

    Raises:
        EOFError: the stream ends before.
    """
    value = b""
    while len(value) < size:
        more = stream.read(size - len(value))
        if not more:
            raise EOFError
        value += more
    return value
