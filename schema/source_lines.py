"""The source of a raw record's rows: two headers that name a file and the numbers of its lines.

- `feedmill-source-file`: the file's name, at most 256 characters. It is for people: no program opens it as a path.
- `feedmill-lines`: the line numbers of the record's rows, in order, as ranges such as `1-500,502-900`. Lines count from
  1, and `7x3` means three rows of line 7. In a Parquet or Arrow file a line is a row. A JSON object on several lines
  has the number of its first line.

Any program can write these headers, so a reader ignores malformed ones.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import PurePath

SOURCE_FILE_HEADER = "feedmill-source-file"
LINES_HEADER = "feedmill-lines"

# Enough for the names of any file system; a header of megabytes must not be copied to other topics.
FILE_NAME_MAX_CHARS = 256
# With two numbers of 20 digits in each range the header takes at most 10 KB of the 64 KB for a record's headers.
RANGES_MAX = 256
_HEADER_MAX_CHARS = RANGES_MAX * 42
_LARGEST_LINE = 2**63 - 1
_RANGE = re.compile(r"([0-9]{1,19})(?:-([0-9]{1,19})|x([0-9]{1,19}))?")


def source_headers(file: str, lines: LineRanges | Iterable[int]) -> list[tuple[str, bytes]]:
    """Return the two headers for rows of `file` with these line numbers, in order.

    >>> source_headers("/data/a.jsonl", [1, 2, 3, 7])
    [('feedmill-source-file', b'a.jsonl'), ('feedmill-lines', b'1-3,7')]
    """
    if not isinstance(lines, LineRanges):
        lines = LineRanges(lines)
    return [(SOURCE_FILE_HEADER, file_name(file).encode()), (LINES_HEADER, str(lines).encode())]


def file_name(file: str) -> str:
    """Return the name of `file` without its folders, printable, and cut to 256 characters."""
    name = PurePath(file).name.encode("utf-8", "replace").decode()
    return "".join(character if character.isprintable() else "?" for character in name)[:FILE_NAME_MAX_CHARS]


class LineRanges:
    """Ascending line numbers of rows, which may repeat, stored as ranges.

    >>> str(LineRanges([1, 2, 3, 7, 9, 9, 9, 10]))
    '1-3,7,9x3,10'
    """

    def __init__(self, numbers: Iterable[int] = ()) -> None:
        # [first, last, times]: several lines once, or one line several times.
        self._ranges: list[list[int]] = []
        for number in numbers:
            self.add(number)

    def __len__(self) -> int:
        return len(self._ranges)

    def __str__(self) -> str:
        return ",".join(
            f"{first}x{times}" if times > 1 else f"{first}-{last}" if last > first else str(first)
            for first, last, times in self._ranges
        )

    def fits(self, number: int) -> bool:
        """Return whether there are at most 256 ranges after `number` is added."""
        return len(self._ranges) < RANGES_MAX or self._continues(number) or self._repeats(number)

    def add(self, number: int) -> None:
        """Append a line number."""
        if self._continues(number):
            self._ranges[-1][1] = number
        elif self._repeats(number):
            self._ranges[-1][2] += 1
        else:
            self._ranges.append([number, number, 1])

    def _continues(self, number: int) -> bool:
        return bool(self._ranges) and self._ranges[-1][2] == 1 and self._ranges[-1][1] + 1 == number

    def _repeats(self, number: int) -> bool:
        return bool(self._ranges) and self._ranges[-1][0] == self._ranges[-1][1] == number


def line_ranges(numbers: Iterable[int]) -> str:
    """Return ascending line numbers, which may repeat, as the text of ranges."""
    return str(LineRanges(numbers))


def parse_line_ranges(text: str, rows: int) -> list[int] | None:
    """Return the line number of each of a record's `rows` rows; None if `text` does not give exactly `rows` numbers.

    Text with more than 256 ranges or with another count is refused before a list is made.

    >>> parse_line_ranges("1-3,7x2", 5)
    [1, 2, 3, 7, 7]
    >>> parse_line_ranges("1-3,7", 5) is None
    True
    """
    if len(text) > _HEADER_MAX_CHARS:
        return None
    ranges: list[tuple[int, int, int]] = []
    for part in text.split(","):
        match = _RANGE.fullmatch(part)
        if match is None:
            return None
        first = int(match[1])
        last, times = int(match[2] or first), int(match[3] or 1)
        if not 1 <= first <= last <= _LARGEST_LINE or times < 1 or (ranges and first < ranges[-1][1]):
            return None
        ranges.append((first, last, times))
    if len(ranges) > RANGES_MAX or sum((last - first + 1) * times for first, last, times in ranges) != rows:
        return None
    return [number for first, last, times in ranges for number in range(first, last + 1) for _ in range(times)]
