"""A record's declared size is read without decoding, limits the memory of decoding, and is checked against the data."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schema.decoded_size import DeclaredSize, check_stream, declared_bytes, declared_size, row_width
from schema.errors import RecordError
from schema.record import decode, encode, encode_parts, to_table
from schema.reduction import FAMILY
from tests import reductions

MIB = 1024 * 1024
NUMBER: dict[str, pl.DataType] = {"number": pl.Int64()}
TEXT: dict[str, pl.DataType] = {"text": pl.String()}

row = st.tuples(
    st.none() | st.text(max_size=200),
    st.none() | st.integers(-(2**31), 2**31 - 1),
    st.none() | st.lists(st.text(max_size=30), max_size=6),
    st.none() | st.lists(st.fixed_dictionaries({"name": st.text(max_size=9), "effect": st.floats()}), max_size=4),
)
SCHEMA = {
    "text": pl.String(),
    "number": pl.Int32(),
    "names": pl.List(pl.String()),
    "factors": pl.List(pl.Struct({"name": pl.String(), "effect": pl.Float64()})),
}


def stream(
    table: pa.Table, codec: str | None = "zstd", version: pa.MetadataVersion = pa.ipc.MetadataVersion.V5
) -> bytes:
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression=codec, use_threads=False, metadata_version=version)
    with pa.ipc.new_stream(sink, table.schema, options=options) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def refused(value: bytes, columns: dict[str, pl.DataType], max_bytes: int = 4 * MIB, max_rows: int = 10**6) -> str:
    with pytest.raises(RecordError) as caught:
        decode(value, columns, max_rows, max_bytes=max_bytes)
    return caught.value.reason


@given(st.lists(row, min_size=1, max_size=60), st.sampled_from([None, "zstd", "lz4"]))
def test_a_stream_declares_at_least_the_memory_of_decoding(rows: list[tuple[object, ...]], codec: str | None) -> None:
    frame = pl.DataFrame(rows, schema=SCHEMA, orient="row")
    value = stream(to_table(frame), codec)
    declared = declared_size(value)
    allocated = sum(batch.get_total_buffer_size() for batch in pa.ipc.open_stream(value))
    assert declared.rows == frame.height
    assert allocated <= declared.bytes <= 2 * allocated + 64 * 1024
    assert declared_bytes(value) == declared.bytes


def test_dictionaries_and_every_batch_count() -> None:
    column = pa.chunked_array([pa.array(["a" * 1000, "b"] * 50).dictionary_encode() for _ in range(3)])
    declared = declared_size(stream(pa.table({"text": column})))
    assert declared.rows == 300
    assert declared.bytes >= 1000 + 3 * 100 * 4


def test_rows_count_for_their_width_and_lines_for_rows() -> None:
    value = encode(pl.DataFrame({"number": [1, 2, 3]}))
    assert declared_size(value, row_bytes=10_000) == DeclaredSize(3, 30_000)
    assert declared_size(b"{}\n{}\r\n{}", row_bytes=100).bytes >= 300
    assert declared_size(None) == DeclaredSize(1, 0)
    assert row_width(FAMILY.wire.values()) > 100


WHOLE = encode(reductions.valid(20))


@given(st.integers(0, len(WHOLE) - 1), st.integers(1, 255), st.integers(0, len(WHOLE)))
def test_a_damaged_stream_raises_only_a_record_error(position: int, change: int, cut: int) -> None:
    damaged = bytearray(WHOLE)
    damaged[position] ^= change
    for value in (bytes(damaged), bytes(damaged)[:cut], bytes(damaged)[cut:]):
        assert declared_size(value).bytes >= 0
        try:
            check_stream(value, 10**6, 64 * MIB)
        except RecordError as error:
            assert error.reason in ("garbage", "too_many_rows", "too_many_bytes")


def test_a_small_record_of_many_bytes_is_refused_before_it_is_decoded() -> None:
    value = stream(pa.table({"number": pa.array([0] * 1_000_000, pa.int64())}))
    assert len(value) < 20_000
    before = pa.total_allocated_bytes()
    assert refused(value, NUMBER) == "too_many_bytes"
    # Columns that were not asked for count too.
    assert refused(value, TEXT) == "too_many_bytes"
    assert pa.total_allocated_bytes() - before < MIB
    assert decode(value, NUMBER, 10**6, max_bytes=9 * MIB).height == 1_000_000


@pytest.mark.parametrize(("change", "reason"), [(-8, "garbage"), (8, "garbage"), (2**40, "too_many_bytes")])
def test_a_wrong_declared_length_is_refused(change: int, reason: str) -> None:
    value = stream(pa.table({"number": pa.array([7] * 100_000, pa.int64())}))
    length_bytes = (800_000).to_bytes(8, "little")
    assert value.count(length_bytes) == 1
    assert refused(value.replace(length_bytes, (800_000 + change).to_bytes(8, "little")), NUMBER) == reason


def _nested(child: pa.Array) -> pa.Table:
    return pa.table({"text": pa.LargeListArray.from_arrays(pa.array([0, len(child)], pa.int64()), child)})


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: pa.table({"text": pa.nulls(10**8)}), "too_many_rows"),
        (lambda: _nested(pa.nulls(2**30)), "too_many_bytes"),
        (lambda: _nested(pa.StructArray.from_arrays([pa.nulls(10**7)], ["a"])), "too_many_bytes"),
        (lambda: pa.table({"text": pa.DictionaryArray.from_arrays([0] * 100, ["x" * 100_000])}), "too_many_bytes"),
        (lambda: pa.table({"text": pa.RunEndEncodedArray.from_arrays([10**6], ["x"])}), "wrong_type"),
        (lambda: pa.table({"text": pa.array([["x"]], pa.list_view(pa.string()))}), "wrong_type"),
        (lambda: _nested(pa.DictionaryArray.from_arrays([0] * 100, ["x" * 100_000])), "wrong_type"),
        (
            lambda: pl.select(text=pl.Series(["x" * 100_000]).gather([0] * 100)).to_arrow(
                compat_level=pl.CompatLevel.newest()
            ),
            "too_many_bytes",
        ),
    ],
    ids=["nulls", "nulls in a list", "structs in a list", "dictionary", "runs", "list views", "nested", "views"],
)
def test_forms_that_grow_when_written_out_are_refused(make: Callable[[], pa.Table], reason: str) -> None:
    value = stream(make())
    assert len(value) < 200_000
    assert refused(value, TEXT) == reason


def test_dictionaries_and_views_within_the_limit_are_read_as_texts() -> None:
    texts = ["one", "two", None, "one"]
    for column in (pa.array(texts).dictionary_encode(), pa.array(texts, pa.string_view())):
        assert decode(stream(pa.table({"text": column})), TEXT, 10)["text"].to_list() == texts
    numbers = pa.array([5, None, 5]).dictionary_encode()
    assert decode(stream(pa.table({"number": numbers})), NUMBER, 10)["number"].to_list() == [5, None, 5]


def test_a_record_with_older_metadata_is_counted_and_read() -> None:
    table = pa.table({"number": pa.array([0] * 100_000, pa.int64())})
    plain = stream(table, None, pa.ipc.MetadataVersion.V4)
    assert declared_size(plain).bytes >= 800_000
    assert decode(plain, NUMBER, 10**6).height == 100_000


def test_written_records_are_small_enough_to_be_read() -> None:
    frame = pl.DataFrame({"text": ["x" * 100_000] * 100})
    parts = list(encode_parts(to_table(frame), 2048, MIB, max_decoded_bytes=MIB))
    assert all(declared_bytes(value) <= MIB + 4096 for _, value in parts)
    assert pl.concat([decode(value, TEXT, 100) for _, value in parts]).equals(frame)


_READS_A_BOMB = """
import resource, sys
from pathlib import Path
import polars as pl
from schema.errors import RecordError
from schema.record import decode, encode
columns = {"number": pl.Int64()}
decode(encode(pl.DataFrame({"number": [1]})), columns, 10)
now = next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmSize"))
resource.setrlimit(resource.RLIMIT_AS, (now + int(sys.argv[2]), now + int(sys.argv[2])))
try:
    decode(Path(sys.argv[1]).read_bytes(), columns, 10**9, max_bytes=64 * 2**20)
except RecordError as error:
    print(error.reason)
"""


@pytest.mark.slow
def test_a_compression_bomb_is_refused_in_a_process_without_memory_for_it(tmp_path: Path) -> None:
    bomb = tmp_path / "bomb"
    bomb.write_bytes(stream(pa.table({"number": pa.array([0], pa.int64()).take(pa.array([0] * 2**24, pa.int32()))})))
    assert bomb.stat().st_size < 64 * 1024
    done = subprocess.run(
        [sys.executable, "-c", _READS_A_BOMB, str(bomb), str(64 * MIB)], capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "too_many_bytes", done.stderr
