"""Ingest sends every foreign row to the raw topic, without validating it."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import random
import resource
from collections.abc import Callable
from pathlib import Path

import lz4.frame
import polars as pl
import pytest
import zstandard

from broker.clients import Connection
from consumers.replay.topic_range import replay
from producers.ingest import ingest, ingest_stream
from schema import json_rows
from schema.errors import UsageError
from schema.family import identify
from schema.record import JSON, ForeignHeaders
from schema.reduction import FAMILY
from schema.source_lines import parse_line_ranges
from tests import reductions
from tests.consumers.records import write
from tests.producers.test_sink import read_raw


def test_lines_are_sent_to_raw_unchanged(connection: Connection) -> None:
    long = b'{"term": "' + b"0" * 3_000_000 + b'"}'
    lines = [b'{"a": %d}' % number for number in range(5000)] + [long, b"not json", b"\xff\xfe"]
    done: list[int] = []
    report = ingest_stream(connection, FAMILY, io.BytesIO(b"\r\n \r\n".join(lines)), "by-hand", done.append)
    records = sorted(read_raw(connection), key=lambda record: int(dict(record.headers)["feedmill-chunk"]))
    assert [line for record in records for line in record.value.split(b"\n")] == lines
    assert (report.rows, report.records, report.run) == (len(lines), len(records), "by-hand")
    assert done[-1] == len(lines)
    assert len({record.partition for record in records}) == 4
    for number, record in enumerate(records):
        headers = ForeignHeaders.parse(record.headers)
        assert (headers.content_type, headers.run, headers.chunk) == (JSON, "by-hand", number)
        assert dict(record.headers)["feedmill-rows"] == b"%d" % (record.value.count(b"\n") + 1)


def test_all_lines_before_a_too_long_one_are_sent(connection: Connection) -> None:
    limit = connection.settings.raw_record_max_bytes
    lines = [b"%d" % number for number in range(3000)]
    with pytest.raises(UsageError, match="line 3001"):
        ingest_stream(connection, FAMILY, io.BytesIO(b"\n".join([*lines, b"x" * (limit + 1), b"after"])), "long")
    sent = [line for record in read_raw(connection) for line in record.value.split(b"\n")]
    assert sorted(sent) == sorted(lines)


def test_array_without_an_end_is_reported_with_the_name_of_its_file(connection: Connection, tmp_path: Path) -> None:
    path = tmp_path / "truncated.json"
    path.write_bytes(b'[{"a": 1}, {"a": 2}')
    with pytest.raises(UsageError, match=r"truncated\.json: the JSON array does not end"):
        ingest(connection, FAMILY, str(path))


def test_a_line_of_exactly_the_limit_passes(connection: Connection) -> None:
    limit = connection.settings.raw_record_max_bytes
    assert ingest_stream(connection, FAMILY, io.BytesIO(b'"' + b"x" * (limit - 2) + b'"\n')).rows == 1
    assert len(read_raw(connection)[0].value) == limit


def test_an_empty_stream_sends_nothing(connection: Connection) -> None:
    report = ingest_stream(connection, FAMILY, io.BytesIO(b"\n \n"))
    assert (report.rows, report.records) == (0, 0)
    assert report.run.startswith("ingest-")


def test_a_file_is_read_and_its_lines_counted(connection: Connection, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a": 1}\n\n{"a": 2}\n')
    assert ingest(connection, FAMILY, str(path)).rows == 2
    assert [record.value for record in read_raw(connection)] == [b'{"a": 1}\n{"a": 2}']


def test_standard_input_is_read_for_a_dash(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"1\n2\n3")))
    assert ingest(connection, FAMILY, "-").rows == 3


def test_a_file_that_cannot_be_read_is_refused(connection: Connection, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        ingest(connection, FAMILY, str(tmp_path / "absent"))
    with pytest.raises(UsageError, match="cannot be read"):
        ingest(connection, FAMILY, str(tmp_path))


def compressions() -> dict[str, Callable[[bytes], bytes]]:
    return {
        "gzip": gzip.compress,
        "bzip2": bz2.compress,
        "xz": lzma.compress,
        "zstd": zstandard.compress,
        "lz4": lz4.frame.compress,
    }


@pytest.mark.parametrize("name", compressions())
def test_compressed_lines_are_read_member_after_member(connection: Connection, name: str, tmp_path: Path) -> None:
    compress = compressions()[name]
    lines = [b'{"a": %d}' % number for number in range(5000)]
    half = b"\n".join(lines[:2500]) + b"\n"
    path = tmp_path / "a.jsonl.packed"
    path.write_bytes(compress(half) + compress(b"\n".join(lines[2500:])))
    assert ingest(connection, FAMILY, str(path)).rows == len(lines)
    records = read_raw(connection)
    assert sorted(line for record in records for line in record.value.split(b"\n")) == sorted(lines)
    assert {dict(record.headers)["feedmill-source-file"] for record in records} == {b"a.jsonl.packed"}


@pytest.mark.parametrize("name", compressions())
def test_a_truncated_compressed_file_is_reported(connection: Connection, name: str) -> None:
    noise = random.Random(7)
    lines = [b'{"a": "%016x"}' % noise.getrandbits(64) for _ in range(40_000)]
    packed = compressions()[name](b"\n".join(lines))
    with pytest.raises(UsageError, match=r"the rest of a\.gz cannot be read") as caught:
        ingest_stream(connection, FAMILY, io.BytesIO(packed[: len(packed) * 9 // 10]), name="a.gz")
    sent = sorted(line for record in read_raw(connection) for line in record.value.split(b"\n"))
    assert set(sent) <= set(lines)
    assert f"{len(sent):,} rows were sent" in str(caught.value) or not sent


def test_a_decompression_bomb_takes_no_more_memory_than_a_line_may(connection: Connection) -> None:
    # 200 MB in 200 kB, and as much in 20 kB of zstd.
    packed = gzip.compress(b'{"a": "' + b"x" * 200_000_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UsageError, match="has over"):
        ingest_stream(connection, FAMILY, io.BytesIO(packed))
    frame = zstandard.compress(b'{"a": "' + b"x" * 200_000_000)
    assert len(frame) < 50_000
    with pytest.raises(UsageError, match="has over"):
        ingest_stream(connection, FAMILY, io.BytesIO(frame))
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 < 150


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (gzip.compress(gzip.compress(b'{"a": 1}')), "itself gzip"),
        (gzip.compress(b"PAR1" + bytes(100)), "itself Parquet"),
        (gzip.compress(bytes(257) + b"ustar" + bytes(100)), "tar archive"),
        (b"a,b\n1,2\n", "CSV"),
    ],
)
def test_an_unreadable_file_is_refused_before_a_row_is_sent(
    connection: Connection, content: bytes, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        ingest_stream(connection, FAMILY, io.BytesIO(content))
    assert read_raw(connection) == []


@pytest.mark.parametrize("indent", [None, 2])
def test_arrays_and_objects_on_several_lines_are_rows_with_their_lines(
    connection: Connection, indent: int | None
) -> None:
    objects = [{"a": number, "b": {"c": [number]}} for number in range(1000)]
    ingest_stream(connection, FAMILY, io.BytesIO(json.dumps(objects, indent=indent).encode()))
    records = read_raw(connection)
    rows = [json.loads(line) for record in records for line in record.value.split(b"\n")]
    assert sorted(rows, key=lambda row: row["a"]) == objects
    text = [dict(record.headers)["feedmill-lines"].decode() for record in records]
    numbers = [
        parse_line_ranges(ranges, record.value.count(b"\n") + 1) for ranges, record in zip(text, records, strict=True)
    ]
    lines = {row["a"]: line for row, line in zip(rows, [n for each in numbers for n in each or ()], strict=True)}
    assert lines == {number: 1 if indent is None else 2 + number * 8 for number in range(1000)}


@pytest.mark.parametrize("ending", ["jsonl", "parquet", "arrow"])
def test_a_replayed_file_can_be_ingested_with_the_same_ids(connection: Connection, tmp_path: Path, ending: str) -> None:
    frame = reductions.valid(300).with_columns(augmented_from=pl.Series([None, 2**64 - 1] * 150, dtype=pl.UInt64))
    write(connection, frame)
    out = tmp_path / f"rows.{ending}"
    replay(connection, "reduction", out)
    report = ingest(connection, FAMILY, str(out))
    assert report.rows == 300
    rows, others = json_rows.read_lines(
        [line for record in read_raw(connection) for line in record.value.split(b"\n")], FAMILY
    )
    assert others == []
    back = identify(rows, FAMILY).select(frame.columns)
    assert back.sort("example_id").equals(frame.sort("example_id"))


@pytest.mark.parametrize("ending", ["parquet", "arrow"])
def test_a_file_that_is_read_from_its_end_is_refused_on_a_pipe(connection: Connection, ending: str) -> None:
    buffer = io.BytesIO()
    if ending == "parquet":
        pl.DataFrame({"term": ["x"]}).write_parquet(buffer)
    else:
        pl.DataFrame({"term": ["x"]}).write_ipc(buffer)
    reading, writing = os.pipe()
    os.write(writing, buffer.getvalue())
    os.close(writing)
    with os.fdopen(reading, "rb", buffering=0) as pipe, pytest.raises(UsageError, match="save it as a file first"):
        ingest_stream(connection, FAMILY, pipe)


def test_an_arrow_stream_is_read_from_a_pipe_and_compressed(connection: Connection) -> None:
    buffer = io.BytesIO()
    reductions.valid(100).write_ipc_stream(buffer, compat_level=pl.CompatLevel.oldest())
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb", buffering=0) as pipe:
        with os.fdopen(writing, "wb") as writer:
            writer.write(buffer.getvalue())
        assert ingest_stream(connection, FAMILY, pipe).rows == 100
    assert ingest_stream(connection, FAMILY, io.BytesIO(zstandard.compress(buffer.getvalue()))).rows == 100
