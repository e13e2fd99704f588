"""Marks of documents, taken in a child process: tree-sitter can crash on invalid text, or never end.

The parser is C code. Invalid C or Java such as 60 kB of `xxxxxxxxxxxxx=>` ends the process that parses it, and one
document must not end a refine worker. So every document is parsed in a child process, one after the other:

1. This process writes the number of the language and the length of the source, then the source.
2. The child (`marks_process`) answers with the numbers of the document's `Marks`.
3. If the child crashes, or takes over `LIMIT_CPU_S` seconds for one document, the document is `UNPARSABLE`. A new child
   does the rest.

A child that does not answer for `LIMIT_WAIT_S` seconds, e.g. because somebody stopped it, is killed, and a new child
takes the document. The child ends when its standard input ends, so it never outlives this process. It costs some 50 us
a document.
"""

from __future__ import annotations

import atexit
import os
import select
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
# A child that works answers after `LIMIT_CPU_S` seconds of CPU time, which take longer on a busy machine.
LIMIT_WAIT_S = 60.0
ASKED, ANSWER = struct.Struct("<BI"), struct.Struct("<II?II?")
READY = b"\n"
# How a child ends that cannot go on with its document.
_CRASHES = {-signal.SIGSEGV, -signal.SIGABRT, -signal.SIGBUS, -signal.SIGILL, -signal.SIGFPE, -signal.SIGXCPU}
_START_WAIT_S, _END_WAIT_S = 120.0, 5.0
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
        except (BrokenPipeError, EOFError, TimeoutError):
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
        # A write must return if the child does not read.
        os.set_blocking(self._asked.fileno(), False)
        try:
            ready = self._read(len(READY), _START_WAIT_S)
        except (EOFError, TimeoutError):
            ready = b""
        if ready != READY:
            raise ConfigError(
                f"the process that parses documents ended at once, with status {self.close()}: see stderr"
            )

    def marks(self, source: bytes, language: str) -> Marks:
        """Return the marks of a source.

        Raises:
            BrokenPipeError, EOFError: the child has ended.
            TimeoutError: it does not answer.
        """
        rest = memoryview(ASKED.pack(LANGUAGES.index(language), len(source)) + source)
        while rest:
            _wait(self._asked, select.POLLOUT, LIMIT_WAIT_S)
            rest = rest[os.write(self._asked.fileno(), rest) :]
        return Marks(*ANSWER.unpack(self._read(ANSWER.size, LIMIT_WAIT_S)))

    def _read(self, size: int, limit_s: float) -> bytes:
        """Return `size` bytes of the child's answers; raises EOFError and TimeoutError."""
        value = b""
        while len(value) < size:
            _wait(self._answers, select.POLLIN, limit_s)
            more = os.read(self._answers.fileno(), size - len(value))
            if not more:
                raise EOFError
            value += more
        return value

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


def _wait(stream: IO[bytes], event: int, limit_s: float) -> None:
    """Return when a pipe can be read or written, or has ended.

    Raises:
        TimeoutError: neither happened within `limit_s` seconds.
    """
    poll = select.poll()
    poll.register(stream.fileno(), event)
    if not poll.poll(limit_s * 1000):
        raise TimeoutError("the process that parses documents does not answer")


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
