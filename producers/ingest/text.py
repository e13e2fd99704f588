"""Read JSON text as rows: JSON lines, arrays, and objects on several lines.

Takes a stream; yields lists of `Row` as the text arrives. A row is one line of JSON with the line number at which it
begins. Rows are not validated: broken text becomes rows too, and the refine stage rejects them. Memory is bounded by
the longest row.

The first line decides how the text is read:

- If it is a complete JSON value but not an array, or not JSON at all, each line is a row.
- If it begins an array, or an object that continues on the next line, the text is a sequence of values. Each value is a
  row, and each item of an outer array is its own row.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import BinaryIO

from producers.ingest.batches import Row
from producers.ingest.streams import some
from schema.errors import UsageError

_SPACE = b" \t\r\n\x0b\x0c"
# A tab between values is space. Inside a string a tab is as invalid as the line end that it replaces, so joining lines
# does not repair a broken row.
_ONE_LINE = bytes.maketrans(b"\r\n", b"\t\t")
_TOKEN = re.compile(rb'\\.?|["{}\[\]\n]', re.DOTALL)
# A value that is not a string, list or object ends with its line, or before the next object.
_BARE_END = re.compile(rb"[\n{]")
_BARE_END_IN_ARRAY = re.compile(rb"[\n{\[\],]")
_GAP = re.compile(rb"\s*")
_GAP_IN_ARRAY = re.compile(rb"[\s,]*")
_BACKSLASH, _QUOTE, _LINE_END = b'\\"\n'


def read_text(stream: BinaryIO, limit_bytes: int) -> Iterator[list[Row]]:
    """Yield the rows of JSON text as they arrive.

    Raises:
        UsageError: a row has over `limit_bytes` bytes, or an array does not end.
        ReadingStopped: the reading was stopped.
        Exception: any error of reading `stream`.
    """
    text, line = _begin(stream, limit_bytes)
    chunks = chain([text], iter(lambda: some(stream), b""))
    if _are_lines(text.partition(b"\n")[0]):
        yield from read_lines(chunks, limit_bytes, line)
    else:
        yield from read_values(chunks, limit_bytes, line)


def _begin(stream: BinaryIO, limit_bytes: int) -> tuple[bytes, int]:
    """Read the first line that is not blank; return the text read, from this line on, and the line's number.

    Blank text before it is dropped as it arrives, because compressed blank text can be very long.
    """
    text = some(stream)
    # The byte order mark may arrive in pieces.
    while len(text) < len(codecs.BOM_UTF8) and codecs.BOM_UTF8.startswith(text) and (more := some(stream)):
        text += more
    text = text.removeprefix(codecs.BOM_UTF8)
    line = 1
    while True:
        begun = text.lstrip()
        line += text.count(b"\n", 0, len(text) - len(begun))
        text = begun
        if b"\n" in text or len(text) > limit_bytes or not (more := some(stream)):
            return text, line
        text += more


def _are_lines(line: bytes) -> bool:
    if line.startswith(b"["):
        return False
    if not line.startswith(b"{"):
        return True
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def read_lines(chunks: Iterable[bytes], limit_bytes: int, first_line: int = 1) -> Iterator[list[Row]]:
    """Yield the non-blank lines, stripped, of a text that arrives in pieces and begins at line `first_line`.

    Raises:
        UsageError: a line has over `limit_bytes` bytes; the lines before it were yielded.
    """
    number = first_line
    pieces: list[bytes] = []
    size = 0
    for chunk in chunks:
        *whole, rest = chunk.split(b"\n")
        rows: list[Row] = []
        for line in whole:
            text = b"".join((*pieces, line)).strip() if pieces else line.strip()
            pieces, size = [], 0
            if len(text) > limit_bytes:
                yield rows
                raise _too_long(number, limit_bytes)
            if text:
                rows.append((number, text))
            number += 1
        if rows:
            yield rows
        if rest:
            pieces.append(rest)
            size += len(rest)
        # Up to 3 bytes of surrounding space and line end are not counted.
        if size > limit_bytes + 3:
            raise _too_long(number, limit_bytes)
    text = b"".join(pieces).strip()
    if len(text) > limit_bytes:
        raise _too_long(number, limit_bytes)
    if text:
        yield [(number, text)]


def read_values(chunks: Iterable[bytes], limit_bytes: int, first_line: int = 1) -> Iterator[list[Row]]:
    """Yield the JSON values of a text that arrives in pieces, each as one line; an outer array is split into its items.

    Line numbers count from `first_line`.

    Raises:
        UsageError: a value has over `limit_bytes` bytes, or an array does not end; the rows before it were yielded.
    """
    values = _Values(limit_bytes, first_line)
    for chunk in chunks:
        rows: list[Row] = []
        try:
            values.take(chunk, rows)
        finally:
            if rows:
                yield rows
    if rest := values.last():
        yield [rest]
    if values.in_array:
        raise UsageError(
            f"the JSON array does not end by the last line ({values.line}), so the file is cut off: ingest the "
            "complete file"
        )


class _Values:
    """Splits text into JSON values by brackets and quotes only, and recovers after a broken value.

    A value is broken if a line ends inside a string, or if a line begins with an object that is not allowed there. The
    broken value becomes a row unchanged, and the text after it starts the next row.

    Attributes:
        in_array: whether an outer array has begun and not ended.
        line: the current line number.
    """

    def __init__(self, limit_bytes: int, first_line: int) -> None:
        self.in_array = False
        self.line = first_line
        self._limit_bytes = limit_bytes
        self._text = b""  # from the beginning of the current value
        self._looked_at = 0  # bytes of `_text`
        self._begin_line = first_line
        self._is_bare = False  # a number, a word, or not JSON
        self._open = bytearray()  # open brackets of the current value
        self._in_string = False

    def take(self, chunk: bytes, rows: list[Row]) -> None:
        """Append to `rows` the values that end in `chunk`.

        Raises:
            UsageError: a value is too long.
        """
        begin: int | None = 0 if self._text else None
        text, place = self._text + chunk, self._looked_at
        while True:
            if begin is None:
                begin = place = self._next_value(text, place)
                if begin == len(text):
                    break
            end, place = self._bare_end(text, place) if self._is_bare else self._end(text, place)
            if end is None:
                break
            self._check(end - begin)
            rows.append((self._begin_line, text[begin:end].translate(_ONE_LINE).strip()))
            begin = None
        self._text = text[begin:]
        self._looked_at = place - begin
        self._check(len(self._text))

    def last(self) -> Row | None:
        """Return the unfinished value at the end of the text, or None."""
        text = self._text.translate(_ONE_LINE).strip()
        return (self._begin_line, text) if text else None

    def _check(self, size: int) -> None:
        if size > self._limit_bytes:
            raise _too_long(self._begin_line, self._limit_bytes)

    def _next_value(self, text: bytes, place: int) -> int:
        """Return the start of the next value, or the text's end; skips outer brackets, commas and space."""
        while True:
            gap = (_GAP_IN_ARRAY if self.in_array else _GAP).match(text, place)
            assert gap is not None  # noqa: S101 - the pattern also matches an empty string
            self.line += text.count(b"\n", place, gap.end())
            place = gap.end()
            bracket = text[place : place + 1]
            if bracket != (b"]" if self.in_array else b"["):
                break
            self.in_array = not self.in_array
            place += 1
        self._begin_line = self.line
        self._is_bare = bracket not in (b"{", b"[", b'"')
        self._open.clear()
        self._in_string = False
        return place

    def _bare_end(self, text: bytes, place: int) -> tuple[int | None, int]:
        end = (_BARE_END_IN_ARRAY if self.in_array else _BARE_END).search(text, max(place, 1))
        return (end.start(), end.start()) if end else (None, len(text))

    def _end(self, text: bytes, place: int) -> tuple[int | None, int]:
        """Return (the end of the current value or None, the offset up to which the text was scanned)."""
        for token in _TOKEN.finditer(text, place):
            at = token.start()
            mark = text[at]
            if mark == _BACKSLASH:
                if token.end() == at + 1:
                    # The escaped character has not arrived yet.
                    return None, at
            elif self._in_string:
                if mark == _QUOTE:
                    self._in_string = False
                    if not self._open:
                        return token.end(), token.end()
                elif mark == _LINE_END:
                    return at, at
            elif mark == _QUOTE:
                self._in_string = True
            elif mark == _LINE_END:
                self.line += 1
            elif mark in b"{[":
                if self._open and mark == ord("{") and self._is_misplaced(text, at):
                    return at, at
                self._open.append(mark)
            else:
                del self._open[-1:]
                if not self._open:
                    return token.end(), token.end()
        return None, len(text)

    def _is_misplaced(self, text: bytes, at: int) -> bool:
        """Whether the object at `at` begins a line where neither a key's value nor a list item is allowed."""
        before = at - 1
        while text[before] in _SPACE:
            before -= 1
        allowed = b":" if self._open[-1] == ord("{") else b"[,"
        return text[before] not in allowed and b"\n" in text[before:at]


def _too_long(line: int, limit_bytes: int) -> UsageError:
    return UsageError(
        f"line {line} has over {limit_bytes} bytes (raw_record_max_bytes); the lines before it were sent: shorten it, "
        "then ingest the file from this line on"
    )
