"""JSON text of any layout is read as one row per value, with the line number at which the value begins."""

from __future__ import annotations

import io
import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producers.ingest.batches import Row
from producers.ingest.text import read_lines, read_text, read_values
from schema.errors import UsageError

LIMIT = 1000
# No value that hypothesis makes is as long: an astral character alone takes 12 bytes as an escape.
ROOM = 100_000
VALUES = st.recursive(
    st.none() | st.integers(-9, 9) | st.text(max_size=8) | st.sampled_from(['"', "\\", "{", "]", "\n"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.lists(st.dictionaries(st.text(max_size=4), VALUES, max_size=4), min_size=1, max_size=6)
CUTS = st.integers(1, 60)


def pieces(text: bytes, size: int) -> list[bytes]:
    return [text[begin : begin + size] for begin in range(0, len(text), size)]


def values(text: bytes, size: int = 7) -> list[Row]:
    return [row for rows in read_values(pieces(text, size), ROOM) for row in rows]


@given(st.lists(st.binary(max_size=40).map(lambda line: line.replace(b"\n", b"")), max_size=30), st.booleans(), CUTS)
def test_every_line_that_is_not_blank_is_read_with_its_number(lines: list[bytes], ended: bool, size: int) -> None:
    text = b"\n".join(lines) + (b"\n" if ended else b"")
    numbered = [row for rows in read_lines(pieces(text, size), LIMIT) for row in rows]
    assert numbered == [(number, line.strip()) for number, line in enumerate(lines, 1) if line.strip()]


@given(OBJECTS, st.sampled_from([None, 0, 1, 4]), CUTS, st.booleans())
def test_objects_on_any_number_of_lines_come_back(
    objects: list[dict[str, Any]], indent: int | None, size: int, as_array: bool
) -> None:
    text = json.dumps(objects, indent=indent) if as_array else "\n".join(json.dumps(o, indent=indent) for o in objects)
    rows = values(text.encode(), size)
    assert [json.loads(line) for _, line in rows] == objects
    assert all(b"\n" not in line and b"\r" not in line for _, line in rows)
    for number, line in rows:
        assert text.splitlines()[number - 1].lstrip(" [,")[:1].encode() == line[:1]


@given(st.text(alphabet='{}[]":,\\\n\t 1a\r', max_size=80), CUTS)
def test_no_byte_of_broken_text_is_lost(text: str, size: int) -> None:
    try:
        rows = values(text.encode(), size)
    except UsageError as error:
        assert "does not end" in str(error)
        return
    joined = b"".join(line for _, line in rows)
    space = b" \t\r\n,[]"
    assert joined.translate(None, space) == text.encode().translate(None, space)
    assert [number for number, _ in rows] == sorted(number for number, _ in rows)


def test_values_after_a_broken_object_are_read() -> None:
    text = b'{"a": 1\n{"a": 2}\n{"a": "x\n{"a": 3}\n junk here\n{"a": [1}\n{"a": 4} {"a": 5}\n[6, "x", null, [7]]'
    assert [(number, line.decode()) for number, line in values(text)] == [
        (1, '{"a": 1'),
        (2, '{"a": 2}'),
        (3, '{"a": "x'),
        (4, '{"a": 3}'),
        (5, "junk here"),
        (6, '{"a": [1}'),
        (7, '{"a": 4}'),
        (7, '{"a": 5}'),
        (8, "6"),
        (8, '"x"'),
        (8, "null"),
        (8, "[7]"),
    ]


def test_a_line_end_inside_a_string_ends_the_broken_value() -> None:
    (number, line), *_ = values(b'{\n"a": "one\n", "b": 1}')
    assert number == 1
    with pytest.raises(ValueError, match="Unterminated"):
        json.loads(line)


@pytest.mark.parametrize(
    "text",
    [
        b'{"a": 1}\n{"a": 2}\n',
        b'{"a": 1}\r\n\r\n{"a": 2}',
        b'\n\n{"a": 1}\n{"a": 2}',
        b'\xef\xbb\xbf{"a": 1}\n{"a": 2}',
        b'\xef\xbb\xbf[{"a": 1},\n{"a": 2}]',
        b'[{"a": 1}, {"a": 2}]',
        b'{\n  "a": 1\n}\n{\n  "a": 2\n}',
        b'{\r\n  "a": 1\r\n}\r\n{\r\n  "a": 2\r\n}',
        b'{"a": 1}{"a": 2}',
        b'[{"a": 1}]\n[{"a": 2}]',
    ],
)
def test_the_layout_of_json_is_detected_by_its_first_line(text: bytes) -> None:
    numbered = [row for rows in read_text(io.BytesIO(text), LIMIT) for row in rows]
    assert [json.loads(line) for _, line in numbered] == [{"a": 1}, {"a": 2}]


class BlankThenText(io.RawIOBase):
    """A stream of `blank` equal pieces and then a text."""

    def __init__(self, piece: bytes, blank: int, text: bytes) -> None:
        self._pieces = [text, *[piece] * blank]

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        piece = self._pieces.pop() if self._pieces else b""
        buffer[: len(piece)] = piece
        return len(piece)


@pytest.mark.parametrize("text", [b'{"a": 1}\n{"a": 2}\n', b'[{"a": 1},\n{"a": 2}]'])
@pytest.mark.parametrize("piece", [b" " * 65536, b"\n" * 65536])
def test_blank_text_before_the_first_row_takes_no_memory(piece: bytes, text: bytes) -> None:
    tracemalloc.start()
    numbered = [row for rows in read_text(BlankThenText(piece, 300, text), LIMIT) for row in rows]  # type: ignore[arg-type]
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    before = 300 * piece.count(b"\n")
    assert [(number - before, json.loads(line)) for number, line in numbered] == [(1, {"a": 1}), (2, {"a": 2})]
    assert most < 20 * len(piece)


@pytest.mark.parametrize("read", [read_lines, read_values])
def test_a_row_over_the_limit_is_refused_with_its_line_number(read: Any) -> None:
    yielded: list[Row] = []
    text = b'"1"\n\n' + b'"' + b"x" * (LIMIT - 2) + b'"' + b"\n" + b'"' + b"y" * LIMIT + b'"\n"z"'
    with pytest.raises(UsageError, match=f"line 4 has over {LIMIT} bytes"):
        for rows in read(pieces(text, 333), LIMIT):
            yielded.extend(rows)
    assert [number for number, _ in yielded] == [1, 3]


def test_a_truncated_array_is_reported_after_its_complete_items() -> None:
    yielded: list[Row] = []
    with pytest.raises(UsageError, match="does not end"):
        for rows in read_values([b'[{"a": 1}, {"a": 2}'], LIMIT):
            yielded.extend(rows)
    assert len(yielded) == 2
