"""Detect the kind of a file by its first bytes, and refuse unreadable kinds with a line of advice.

Takes the first bytes and a name for messages; returns a `Kind` or raises `UsageError`.
"""

from __future__ import annotations

import codecs
import json
import re
from enum import Enum

from schema.errors import UsageError

# A tar archive has its mark at offset 257; more bytes show enough lines to distinguish CSV from JSON.
HEAD_BYTES = 4096
_SHOWN_CHARS = 60
_TAR_MARK_AT = 257
_JSON_LINE = re.compile(rb"^(\xef\xbb\xbf)?\s*[{\[][^\n]*\n", re.MULTILINE)


class Kind(Enum):
    """The kinds of files that can be read."""

    JSON = "JSON"
    GZIP = "gzip"
    BZIP2 = "bzip2"
    XZ = "xz"
    ZSTD = "zstd"
    LZ4 = "lz4"
    PARQUET = "Parquet"
    ARROW_FILE = "Arrow file"
    ARROW_STREAM = "Arrow stream"
    EMPTY = "empty"

    @property
    def is_compressed(self) -> bool:
        """Whether the file's content is inside a compressed stream."""
        return self in (Kind.GZIP, Kind.BZIP2, Kind.XZ, Kind.ZSTD, Kind.LZ4)

    @property
    def needs_seeking(self) -> bool:
        """Whether the file is read from its end, so that it cannot come from a pipe."""
        return self in (Kind.PARQUET, Kind.ARROW_FILE)


_READABLE: tuple[tuple[bytes, Kind], ...] = (
    (b"\x1f\x8b", Kind.GZIP),
    (b"BZh", Kind.BZIP2),
    (b"\xfd7zXZ\x00", Kind.XZ),
    (b"\x28\xb5\x2f\xfd", Kind.ZSTD),
    (b"\x04\x22\x4d\x18", Kind.LZ4),
    (b"PAR1", Kind.PARQUET),
    (b"ARROW1", Kind.ARROW_FILE),
    (b"\xff\xff\xff\xff", Kind.ARROW_STREAM),
)

_MARKS = tuple(mark for mark, _ in _READABLE)

_TO_JSON_LINES = "convert it to JSON lines or Parquet, then ingest that"
_TO_UTF_8 = "convert it to UTF-8 (iconv -f UTF-16 -t UTF-8), then ingest that"
_UNPACK = "unpack it, then ingest the JSON lines or Parquet files in it"
_DECOMPRESS = "decompress it, or compress it with gzip or zstd, then ingest that"
# (mark, kind of file, advice). A longer mark precedes its own prefix: UTF-32's mark begins with that of UTF-16.
_REFUSED: tuple[tuple[bytes, str, str], ...] = (
    (codecs.BOM_UTF32_LE, "UTF-32 text", _TO_UTF_8.replace("16", "32")),
    (codecs.BOM_UTF32_BE, "UTF-32 text", _TO_UTF_8.replace("16", "32")),
    (codecs.BOM_UTF16_LE, "UTF-16 text", _TO_UTF_8),
    (codecs.BOM_UTF16_BE, "UTF-16 text", _TO_UTF_8),
    (b"PK\x03\x04", "a zip archive (.zip, .xlsx, .npz, .pt)", _UNPACK),
    (b"PK\x05\x06", "an empty zip archive", _UNPACK),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", _UNPACK),
    (b"Rar!", "a rar archive", _UNPACK),
    (b"SQLite format 3\x00", "an SQLite database", "export the table as JSON lines or Parquet, then ingest that"),
    (b"\x80\x02", "a Python pickle", "load it where it was made, and write JSON lines there to ingest"),
    (b"\x80\x03", "a Python pickle", "load it where it was made, and write JSON lines there to ingest"),
    (b"\x80\x04", "a Python pickle", "load it where it was made, and write JSON lines there to ingest"),
    (b"\x80\x05", "a Python pickle", "load it where it was made, and write JSON lines there to ingest"),
    (b"\x89HDF", "an HDF5 file", _TO_JSON_LINES),
    (b"\x93NUMPY", "a NumPy array", _TO_JSON_LINES),
    (b"ORC", "an ORC file", _TO_JSON_LINES),
    (b"Obj\x01", "an Avro file", _TO_JSON_LINES),
    (b"FEA1", "a Feather file of version 1", "write it again as Arrow IPC or Parquet, then ingest that"),
    (b"PARE", "an encrypted Parquet file", "decrypt it, then ingest that"),
    (b"\x1f\x9d", "a file compressed with compress (.Z)", _DECOMPRESS),
    (b"\xff\x06\x00\x00sNaPpY", "a file compressed with snappy", _DECOMPRESS),
    (b"\x78\x01", "a zlib stream", _DECOMPRESS),
    (b"\x78\x9c", "a zlib stream", _DECOMPRESS),
    (b"\x78\xda", "a zlib stream", _DECOMPRESS),
    (b"\x5d\x00\x00", "an old .lzma file", _DECOMPRESS),
    (b"GGUF", "the weights of a model", "ingest takes examples: name a file of them"),
    (b"%PDF", "a PDF document", "ingest takes examples: name a file of them"),
    (b"\x89PNG", "a PNG image", "ingest takes examples: name a file of them"),
    (b"\xff\xd8\xff", "a JPEG image", "ingest takes examples: name a file of them"),
    (b"GIF8", "a GIF image", "ingest takes examples: name a file of them"),
    (b"RIFF", "an image or a sound (RIFF)", "ingest takes examples: name a file of them"),
    (b"\x7fELF", "a program", "ingest takes examples: name a file of them"),
)


def enough(head: bytes) -> bool:
    """Return whether these first bytes determine the kind of a file, so that no more need to be read from a pipe."""
    # A mark decides, and so does one whole line of JSON, because no file has its mark after such a line.
    return len(head) >= HEAD_BYTES or head.startswith(_MARKS) or _JSON_LINE.search(head) is not None


def kind_of(head: bytes, name: str) -> Kind:
    """Return the kind of a file that begins with `head`; messages call the file `name`.

    Raises:
        UsageError: such a file cannot be read; the message names its apparent kind and the next step.
    """
    if not head:
        return Kind.EMPTY
    for mark, kind in _READABLE:
        if head.startswith(mark):
            return kind
    for mark, looks_like, advice in _REFUSED:
        if head.startswith(mark):
            raise _refused(name, looks_like, advice)
    if head[_TAR_MARK_AT : _TAR_MARK_AT + 5] == b"ustar":
        raise _refused(name, "a tar archive", _UNPACK)
    if head[8:12] == b"DUCK":
        raise _refused(name, "a DuckDB database", "export the table as JSON lines or Parquet, then ingest that")
    if b"\x00" in head:
        raise _refused(name, *_binary(head))
    _check_text(head, name)
    return Kind.JSON


def _refused(name: str, looks_like: str, advice: str) -> UsageError:
    return UsageError(f"{name} looks like {looks_like}, which cannot be ingested: {advice}")


def _binary(head: bytes) -> tuple[str, str]:
    """Return (kind, advice) for a file with NUL bytes; UTF-16 and UTF-32 text have NULs in nearly every character."""
    zeros = head.count(0) / len(head)
    if zeros > 0.6:
        return "UTF-32 text", _TO_UTF_8.replace("16", "32")
    if zeros > 0.3 and (not any(head[0:64:2]) or not any(head[1:64:2])):
        return "UTF-16 text", _TO_UTF_8
    return "binary data of an unknown kind", _TO_JSON_LINES


def _check_text(head: bytes, name: str) -> None:
    """Refuse text in which no line could be JSON; if one could be, the other lines become rejected rows.

    Raises:
        UsageError: the text looks like CSV or like another text format.
    """
    lines = [line for line in head.removeprefix(codecs.BOM_UTF8).splitlines() if line.strip()]
    if not lines or any(line.lstrip()[:1] in (b"{", b"[") for line in lines) or _is_json(lines[0], head):
        return
    first = lines[0].decode("utf-8", "replace")
    shown = first[:_SHOWN_CHARS] + ("..." if len(first) > _SHOWN_CHARS else "")
    for delimiter in ",\t;|":
        columns = first.count(delimiter)
        if columns and (len(lines) == 1 or lines[1].count(delimiter.encode()) >= columns):
            raise _refused(
                name,
                f"CSV (its first line is {shown!r})",
                "convert it, e.g. python -c \"import polars; polars.read_csv('a.csv').write_ndjson('a.jsonl')\", "
                "then ingest that",
            )
    raise _refused(name, f"text that is not JSON (its first line is {shown!r})", _TO_JSON_LINES)


def _is_json(line: bytes, head: bytes) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        # The end of a JSON string longer than the head is not visible here.
        return len(head) >= HEAD_BYTES and b"\n" not in head and line[:1] == b'"'
    return True
