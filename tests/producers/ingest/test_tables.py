"""Parquet and Arrow files are read as rows by column name; an odd value affects only its own row."""

from __future__ import annotations

import datetime
import io
import json
import math
from decimal import Decimal
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from producers.ingest.kinds import Kind
from producers.ingest.tables import json_rows, read_tables
from schema.errors import UsageError
from schema.family import identify
from schema.json_form import json_form
from schema.json_rows import read_lines
from schema.registry import FAMILIES
from tests import reductions, scenarios

FAMILY = FAMILIES["reduction"]
FORMS = [Kind.PARQUET, Kind.ARROW_FILE, Kind.ARROW_STREAM]


def written(table: pa.Table, kind: Kind, rows_at_once: int = 70) -> io.BytesIO:
    stream = io.BytesIO()
    if kind is Kind.PARQUET:
        pq.write_table(table, stream, row_group_size=rows_at_once)
    else:
        opened = pa.ipc.new_file if kind is Kind.ARROW_FILE else pa.ipc.new_stream
        with opened(stream, table.schema) as writer:
            writer.write_table(table, max_chunksize=rows_at_once)
    stream.seek(0)
    return stream


def rows_of(table: pa.Table, kind: Kind = Kind.ARROW_STREAM, family: str = "reduction") -> list[tuple[int, bytes]]:
    batches = read_tables(written(table, kind), kind, FAMILIES[family], "x")
    return [row for rows in batches for row in rows]


@pytest.mark.parametrize("kind", FORMS)
@pytest.mark.parametrize("family", ["reduction", "scenario"])
@pytest.mark.parametrize("nested", [False, True])
def test_rows_keep_their_content_and_so_their_ids(kind: Kind, family: str, nested: bool) -> None:
    declared = FAMILIES[family]
    frame = reductions.valid(300) if family == "reduction" else scenarios.valid_rows(300)
    frame = frame.with_columns(augmented_from=pl.Series([None, 2**64 - 1] * 150, dtype=pl.UInt64))
    table = (json_form(frame, declared) if nested else frame).to_arrow(compat_level=pl.CompatLevel.oldest())
    rows = rows_of(table, kind, family)
    assert [number for number, _ in rows] == list(range(1, 301))
    read, others = read_lines([line for _, line in rows], declared)
    assert others == []
    assert identify(read, declared).select(frame.columns).equals(frame)


@pytest.mark.parametrize(
    ("term", "kept"),
    [
        (pa.array(["(\\.0)0", None]), ["(\\.0)0", None]),
        (pa.array(["(\\.0)0", None]).dictionary_encode(), ["(\\.0)0", None]),
        (pa.array(["(\\.0)0", "x"], pa.large_string()), ["(\\.0)0", "x"]),
        (pa.array(["(\\.0)0", "x"], pa.string_view()), ["(\\.0)0", "x"]),
        (pa.array([1, 2]), [1, 2]),
        (pa.array([Decimal("1.5"), None]), [1.5, None]),
        (pa.array([b"a", b"\xff"]), [{"type": "bytes"}, {"type": "bytes"}]),
        (pa.array([datetime.date(1960, 1, 1), None]), [{"type": "date"}, None]),
        (pa.array([[("a", 1)], None], pa.map_(pa.string(), pa.int64())), [[["a", 1]], None]),
        (pa.array([10**18 + 1, None], pa.timestamp("ns")), [{"unreadable": "timestamp[ns]"}, None]),
        (pa.StringArray.from_buffers(2, *pa.array([b"ok", b"\xff"]).buffers()[1:]), ["ok", {"unreadable": "string"}]),
    ],
)
def test_a_value_of_any_type_becomes_a_row(term: pa.Array, kept: list[Any]) -> None:
    rows = rows_of(pa.table({"term": term, "size": [1, 2]}))
    assert [json.loads(line) for _, line in rows] == [
        {"term": value, "size": number} for number, value in enumerate(kept, 1)
    ]


def test_a_number_that_is_not_finite_is_kept_instead_of_null() -> None:
    rows = rows_of(pa.table({"growth": [1.0, math.nan, math.inf]}))
    assert [line for _, line in rows] == [b'{"growth": 1.0}', b'{"growth": NaN}', b'{"growth": Infinity}']
    _, others = read_lines([line for _, line in rows], FAMILY)
    assert len(others) == 2


LEAVES = st.sampled_from(
    [pa.string(), pa.int8(), pa.uint64(), pa.float32(), pa.bool_(), pa.binary(), pa.date32(), pa.duration("s")]
)
TYPES = st.recursive(
    LEAVES,
    lambda inner: st.builds(pa.list_, inner) | inner.map(lambda kind: pa.struct([("a", kind)])),
    max_leaves=3,
)


@settings(max_examples=60)
@given(TYPES, st.integers(0, 5))
def test_a_column_of_any_type_gives_as_many_rows(kind: pa.DataType, height: int) -> None:
    batch = pa.record_batch({"term": pa.nulls(height, kind), "size": pa.array(range(height), pa.int64())})
    assert [json.loads(line)["size"] for line in json_rows(batch)] == list(range(height))


def test_a_file_without_a_column_of_the_family_is_refused() -> None:
    with pytest.raises(UsageError, match=r"no column of reduction \(its columns are a, b\): rename them to term"):
        rows_of(pa.table({"a": [1], "b": [2]}))


def test_two_columns_of_one_name_are_refused() -> None:
    with pytest.raises(UsageError, match="two columns of one name"):
        rows_of(pa.table([pa.array([1]), pa.array([2])], names=["term", "term"]))


@pytest.mark.parametrize("kind", FORMS)
@pytest.mark.parametrize("share", [0.3, 0.7, 0.97])
def test_a_truncated_file_is_reported_in_one_line(kind: Kind, share: float) -> None:
    data = written(reductions.valid(400).to_arrow(), kind).getvalue()
    with pytest.raises(UsageError, match=f"x cannot be read as {kind.value} after row") as caught:
        for _ in read_tables(io.BytesIO(data[: int(len(data) * share)]), kind, FAMILY, "x"):
            pass
    assert "\n" not in str(caught.value)


def test_offsets_outside_the_batch_are_an_error() -> None:
    offsets = pa.py_buffer(b"".join(n.to_bytes(4, "little", signed=True) for n in (0, 10**9, 4)))
    term = pa.StringArray.from_buffers(2, offsets, pa.py_buffer(b"abcd"))
    with pytest.raises(pa.ArrowInvalid):
        json_rows(pa.record_batch({"term": term}))


@pytest.mark.parametrize("kind", FORMS)
def test_a_long_text_that_a_dictionary_repeats_is_read_in_small_parts(kind: Kind) -> None:
    repeated = pa.DictionaryArray.from_arrays(pa.array([0] * 3000, pa.int32()), pa.array(["x" * 100_000]))
    file = written(pa.table({"term": repeated, "step_k": pa.array(range(3000))}), kind, rows_at_once=3000)
    parts = [(len(part), sum(len(line) for _, line in part)) for part in read_tables(file, kind, FAMILY, "x")]
    assert sum(count for count, _ in parts) == 3000
    assert max(size for _, size in parts) < 17 * 1024 * 1024
