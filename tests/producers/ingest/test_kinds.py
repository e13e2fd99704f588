"""The kind of a file is detected by its first bytes: it is either read, or refused with one line of advice."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import pickle
import sqlite3
import tarfile
import zipfile
import zlib
from pathlib import Path

import lz4.frame
import numpy as np
import polars as pl
import pytest
import zstandard

from producers.ingest.kinds import HEAD_BYTES, Kind, enough, kind_of
from schema.errors import UsageError

ROWS = [{"term": f"\\.{number}", "size": number} for number in range(400)]
LINES = "\n".join(map(json.dumps, ROWS)).encode()
FRAME = pl.DataFrame(ROWS)


def archive(kind: str) -> bytes:
    buffer = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(buffer, "w") as packed:
            packed.writestr("a.jsonl", LINES)
    else:
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            entry = tarfile.TarInfo("a.jsonl")
            entry.size = len(LINES)
            tar.addfile(entry, io.BytesIO(LINES))
    return buffer.getvalue()


def written(kind: str) -> bytes:
    buffer = io.BytesIO()
    match kind:
        case "parquet":
            FRAME.write_parquet(buffer)
        case "file":
            FRAME.write_ipc(buffer)
        case "stream":
            FRAME.write_ipc_stream(buffer)
        case "csv":
            FRAME.write_csv(buffer)
        case "npy":
            np.save(buffer, np.arange(9))
    return buffer.getvalue()


def sqlite(folder: Path) -> bytes:
    with sqlite3.connect(folder / "a.db") as database:
        database.execute("CREATE TABLE a (b)")
    return (folder / "a.db").read_bytes()


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", Kind.EMPTY),
        (LINES, Kind.JSON),
        (b"\xef\xbb\xbf" + LINES, Kind.JSON),
        (b"\n \n" + LINES, Kind.JSON),
        (b"not json\n" + LINES, Kind.JSON),
        (b'{"a": "\xe9"}\n', Kind.JSON),
        (b"17\n18\n", Kind.JSON),
        (b'"' + b"x" * 9000 + b'"', Kind.JSON),
        (gzip.compress(LINES), Kind.GZIP),
        (bz2.compress(LINES), Kind.BZIP2),
        (lzma.compress(LINES), Kind.XZ),
        (zstandard.compress(LINES), Kind.ZSTD),
        (lz4.frame.compress(LINES), Kind.LZ4),
        (written("parquet"), Kind.PARQUET),
        (written("file"), Kind.ARROW_FILE),
        (written("stream"), Kind.ARROW_STREAM),
    ],
)
def test_a_readable_file_is_detected_by_its_first_bytes(data: bytes, kind: Kind) -> None:
    assert kind_of(data[:HEAD_BYTES], "x") is kind


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (written("csv"), "CSV"),
        (b"term;size\n1;2\n", "CSV"),
        (b'"term","size"\n"a","b"\n', "CSV"),
        (LINES.decode().encode("utf-16"), "UTF-16"),
        (LINES.decode().encode("utf-16-le"), "UTF-16"),
        (LINES.decode().encode("utf-16-be"), "UTF-16"),
        (LINES.decode().encode("utf-32"), "UTF-32"),
        (LINES.decode().encode("utf-32-le"), "UTF-32"),
        (archive("zip"), "zip"),
        (archive("tar"), "tar"),
        (pickle.dumps(ROWS), "pickle"),
        (pickle.dumps(ROWS, protocol=2), "pickle"),
        (written("npy"), "NumPy"),
        (zlib.compress(LINES), "zlib"),
        (b"\x89PNG\r\n\x1a\n" + bytes(40), "PNG"),
        (b"\x7fELF" + bytes(40), "program"),
        (bytes(range(256)), "binary data"),
        (b"<html>\n<body>\n", "not JSON"),
        (b"term: abc\nsize: 3\n", "not JSON"),
    ],
)
def test_an_unreadable_file_is_refused_in_one_line(data: bytes, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        kind_of(data[:HEAD_BYTES], "rows.dat")
    line = str(caught.value)
    assert line.startswith("rows.dat looks like")
    assert "\n" not in line
    assert "ingest" in line.split(": ", 1)[1]


def test_a_sqlite_database_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="SQLite"):
        kind_of(sqlite(tmp_path), "a.db")


def test_one_line_of_json_is_enough_to_detect_the_kind() -> None:
    assert enough(b'{"a": 1}\n')
    assert enough(b'a log line\n{"a": 1}\n')
    assert not enough(b'{"a": 1}')
    assert not enough(LINES.decode().encode("utf-16")[:20])
    assert enough(bytes(HEAD_BYTES))
