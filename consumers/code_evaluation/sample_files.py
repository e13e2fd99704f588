"""Code samples of a file of JSON lines; lines that are no sample are counted by reason."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from consumers.code_evaluation.samples import CodeSample, sample_of
from schema.errors import RecordError, UsageError

# Eight times the largest source that is compiled, so that such a line still gets a verdict.
LINE_MAX_BYTES = 8 * 1024 * 1024
_PLACES_KEPT = 100


class SampleFile:
    """The samples of a JSON lines file, in order.

    Attributes:
        bad_lines: how many lines were no sample, by reason: `not_json`, `not_an_object`, `wrong_type`, `no_code`,
            `too_long`.
        bad_places: the numbers of the first 100 such lines, with their reasons.

    Args:
        path: the file.
        language: the language of all samples.
        programs: every sample must have a `main`.
    """

    def __init__(self, path: Path, language: str, *, programs: bool = False) -> None:
        self._path, self._language, self._programs = path, language, programs
        self.bad_lines: Counter[str] = Counter()
        self.bad_places: list[tuple[int, str]] = []

    def check(self) -> None:
        """Check that the file can be read, before other work begins.

        Raises:
            UsageError: it cannot.
        """
        # What is written to a pipe can be read only once.
        if not self._path.is_fifo():
            try:
                self._path.open("rb").close()
            except OSError as error:
                raise self._unreadable(error) from error

    def __iter__(self) -> Iterator[CodeSample]:
        """Yield the samples.

        Raises:
            UsageError: the file cannot be read.
        """
        try:
            with self._path.open("rb") as stream:
                for number, line in _lines(stream):
                    try:
                        yield self._sample(number, line)
                    except RecordError as error:
                        self.bad_lines[error.reason] += 1
                        if len(self.bad_places) < _PLACES_KEPT:
                            self.bad_places.append((number, error.reason))
        except OSError as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: OSError) -> UsageError:
        return UsageError(f"{self._path} cannot be read ({error.strerror}): give a file of JSON lines")

    def _sample(self, number: int, line: bytes | None) -> CodeSample:
        if line is None:
            raise RecordError("too_long", f"over {LINE_MAX_BYTES:,} bytes")
        try:
            # Bytes that are not UTF-8 stay in the sample, and the compiler refuses them.
            row = json.loads(line.decode("utf-8", "surrogateescape"))
        except (ValueError, RecursionError) as error:
            raise RecordError("not_json", str(error)) from error
        if not isinstance(row, dict):
            raise RecordError("not_an_object", f"a JSON {type(row).__name__} instead of an object")
        return sample_of(row, self._language, f"line {number}", programs=self._programs)


def _lines(stream: BinaryIO) -> Iterator[tuple[int, bytes | None]]:
    """Yield (number from 1, bytes) of each line that is not blank; None instead of bytes over the limit."""
    number = 0
    while line := stream.readline(LINE_MAX_BYTES + 1):
        number += 1
        is_long = len(line) > LINE_MAX_BYTES
        while len(line) > LINE_MAX_BYTES and not line.endswith(b"\n"):
            line = stream.readline(LINE_MAX_BYTES + 1)
        if is_long:
            yield number, None
        elif line.strip():
            yield number, line
