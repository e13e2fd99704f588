"""Foreign lines on their way into raw: each one sent, none judged."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.clients import Connection
from producers.ingest import batches, ingest, ingest_stream, read_lines
from schema.errors import UsageError
from schema.record import JSON, ForeignHeaders
from schema.reduction import FAMILY
from tests.producers.test_sink import read_raw


@given(st.lists(st.binary(max_size=40).map(lambda line: line.replace(b"\n", b"")), max_size=30), st.booleans())
def test_every_line_that_is_not_blank_is_read_in_order(lines: list[bytes], ended: bool) -> None:
    stream = io.BytesIO(b"\n".join(lines) + (b"\n" if ended else b""))
    wanted = [line.strip() for line in lines]
    if wanted:
        wanted[0] = lines[0].removeprefix(b"\xef\xbb\xbf").strip()
    assert list(read_lines(stream, 1000)) == [line for line in wanted if line]


@given(st.lists(st.binary(min_size=1, max_size=50), max_size=40), st.integers(1, 6), st.integers(10, 100))
def test_batches_hold_all_lines_within_their_limits(lines: list[bytes], max_lines: int, max_bytes: int) -> None:
    cut = list(batches(iter(lines), max_lines, max_bytes))
    assert [line for batch in cut for line in batch] == lines
    for batch in cut:
        assert 1 <= len(batch) <= max_lines
        assert len(batch) == 1 or len(b"\n".join(batch)) <= max_bytes


def test_a_line_over_the_limit_is_refused_with_its_number() -> None:
    lines = read_lines(io.BytesIO(b"1\n\n" + b"x" * 100 + b"\n" + b"y" * 101 + b"\n"), 100)
    assert [next(lines), next(lines)] == [b"1", b"x" * 100]
    with pytest.raises(UsageError, match="line 4 has over 100 bytes"):
        next(lines)


def test_lines_stand_in_raw_as_they_came(connection: Connection) -> None:
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


def test_all_lines_before_one_that_is_too_long_are_in_raw(connection: Connection) -> None:
    limit = connection.settings.raw_record_max_bytes
    lines = [b"%d" % number for number in range(3000)]
    with pytest.raises(UsageError, match="line 3001"):
        ingest_stream(connection, FAMILY, io.BytesIO(b"\n".join([*lines, b"x" * (limit + 1), b"after"])), "long")
    sent = [line for record in read_raw(connection) for line in record.value.split(b"\n")]
    assert sorted(sent) == sorted(lines)


def test_a_line_of_exactly_the_limit_passes(connection: Connection) -> None:
    limit = connection.settings.raw_record_max_bytes
    assert ingest_stream(connection, FAMILY, io.BytesIO(b"x" * limit + b"\n")).rows == 1
    assert len(read_raw(connection)[0].value) == limit


def test_an_empty_stream_sends_nothing(connection: Connection) -> None:
    report = ingest_stream(connection, FAMILY, io.BytesIO(b"\n \n"))
    assert (report.rows, report.records) == (0, 0)
    assert report.run.startswith("ingest-")


def test_a_file_is_read_and_its_lines_counted(connection: Connection, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a": 1}\n\n{"a": 2}\n')
    assert ingest(connection, FAMILY, str(path)) == 2
    assert [record.value for record in read_raw(connection)] == [b'{"a": 1}\n{"a": 2}']


def test_standard_input_is_read_for_a_dash(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"1\n2\n3")))
    assert ingest(connection, FAMILY, "-") == 3


def test_a_file_that_cannot_be_read_is_told(connection: Connection, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        ingest(connection, FAMILY, str(tmp_path / "absent"))
    with pytest.raises(UsageError, match="cannot be read"):
        ingest(connection, FAMILY, str(tmp_path))
