"""Where the rows of a raw record came from: two headers that name a file and the numbers of its lines.

Takes a file's name and line numbers; gives Kafka headers, and reads them back:

- `feedmill-source-file`: the file's name, 256 characters at most. It is for people: nothing ever opens it as a path.
- `feedmill-lines`: the line numbers of the record's rows, in order, as ranges such as `1-500,502-900`. Lines count from
  1. In a Parquet or Arrow file a line is a row; a JSON object on several lines has the number of its first line.

Both are claims by whoever wrote the record. A reader that finds them malformed ignores them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import PurePath

SOURCE_FILE_HEADER = "feedmill-source-file"
LINES_HEADER = "feedmill-lines"

# Enough for any file system's names; a foreign header of megabytes must not travel on.
FILE_NAME_MAX_CHARS = 256
# Two numbers of 20 digits in each range: 10 KB of headers at most, against the 64 KB that a record has room for.
RANGES_MAX = 256
_HEADER_MAX_CHARS = RANGES_MAX * 42
_LARGEST_LINE = 2**63 - 1
_RANGE = re.compile(r"([0-9]{1,19})(?:-([0-9]{1,19}))?")


def source_headers(file: str, numbers: Iterable[int]) -> list[tuple[str, bytes]]:
    """Return the two headers for rows of `file` that came from these line numbers, in order.

    >>> source_headers("/data/a.jsonl", [1, 2, 3, 7])
    [('feedmill-source-file', b'a.jsonl'), ('feedmill-lines', b'1-3,7')]
    """
    return [(SOURCE_FILE_HEADER, file_name(file).encode()), (LINES_HEADER, line_ranges(numbers).encode())]


def file_name(file: str) -> str:
    """Return the name of `file` without its folders, printable, and cut to 256 characters."""
    name = PurePath(file).name.encode("utf-8", "replace").decode()
    return "".join(character if character.isprintable() else "?" for character in name)[:FILE_NAME_MAX_CHARS]


def line_ranges(numbers: Iterable[int]) -> str:
    """Return ascending line numbers as ranges.

    >>> line_ranges([1, 2, 3, 7, 9, 10])
    '1-3,7,9-10'
    """
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges)


def parse_line_ranges(text: str, rows: int) -> Sequence[int] | None:
    """Return the line number of each of a record's `rows` rows; None if `text` does not give exactly that many.

    The numbers are unlimited in size but the work is not: text of over 256 ranges, and counts that differ, are refused
    before any list is made.

    >>> parse_line_ranges("1-3,7", 4)
    [1, 2, 3, 7]
    >>> parse_line_ranges("1-3,7", 5) is None
    True
    """
    if len(text) > _HEADER_MAX_CHARS:
        return None
    ranges: list[range] = []
    for part in text.split(","):
        match = _RANGE.fullmatch(part)
        if match is None:
            return None
        first, last = int(match[1]), int(match[2] or match[1])
        if not 1 <= first <= last <= _LARGEST_LINE or (ranges and first < ranges[-1].stop):
            return None
        ranges.append(range(first, last + 1))
    # `len` refuses ranges beyond sys.maxsize; the difference does not.
    if len(ranges) > RANGES_MAX or sum(each.stop - each.start for each in ranges) != rows:
        return None
    return [number for each in ranges for number in each]
