"""Encoding and decoding are inverse, parts keep to the size limits, and ids are xxh3 hashes on every platform."""

from __future__ import annotations

import random
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from schema.errors import RecordError, UsageError
from schema.family import SPLITS, identify
from schema.record import Envelope, ForeignHeaders, decode, encode, encode_parts, to_table
from schema.reduction import FAMILY
from tests import reductions

COLUMNS: dict[str, pl.DataType] = {
    "text": pl.String(),
    "number": pl.Int32(),
    "big": pl.UInt64(),
    "share": pl.Float32(),
    "names": pl.List(pl.String()),
}
row = st.tuples(
    st.none() | st.text(max_size=20),
    st.none() | st.integers(-(2**31), 2**31 - 1),
    st.none() | st.integers(0, 2**64 - 1),
    st.none() | st.floats(width=32, allow_nan=False),
    st.none() | st.lists(st.text(max_size=5), max_size=3),
)


@given(st.lists(row, min_size=1, max_size=30))
def test_decode_is_the_inverse_of_encode(rows: list[tuple[object, ...]]) -> None:
    frame = pl.DataFrame(rows, schema=COLUMNS, orient="row")
    assert decode(encode(frame), COLUMNS, max_rows=100).equals(frame)


def _noise(length: int) -> str:
    """Return a text of random hex digits, which hardly compresses."""
    return random.Random(length).randbytes(length // 2 + 1).hex()[:length]


@given(st.lists(st.integers(0, 4_000), min_size=1, max_size=40), st.integers(1, 20))
def test_parts_keep_every_row_in_order_within_the_limits(lengths: list[int], max_rows: int) -> None:
    texts = [_noise(n) for n in lengths]
    frame = pl.DataFrame({"text": texts})
    limit = 6_000
    parts = list(encode_parts(to_table(frame), max_rows, limit))
    assert all(rows <= max_rows and len(data) <= limit for rows, data in parts)
    back = pl.concat([decode(data, {"text": pl.String()}, 1000) for _, data in parts])
    assert back["text"].to_list() == texts
    assert [rows for rows, _ in parts] == [decode(data, {"text": pl.String()}, 1000).height for _, data in parts]


def test_a_row_that_fits_no_record_is_an_error() -> None:
    with pytest.raises(UsageError, match="one row takes"):
        list(encode_parts(to_table(pl.DataFrame({"text": ["short", _noise(32_000)]})), 10, 2_000))


def test_too_many_rows_are_refused() -> None:
    with pytest.raises(RecordError) as caught:
        decode(encode(reductions.valid(11)), FAMILY.wire, max_rows=10)
    assert caught.value.reason == "too_many_rows"


def test_a_narrower_integer_is_widened_and_a_text_is_never_a_number() -> None:
    narrow = encode(pl.DataFrame({"number": [1, 2]}, schema={"number": pl.Int8}))
    assert decode(narrow, {"number": pl.Int32()}, 10).schema == {"number": pl.Int32()}
    with pytest.raises(RecordError) as caught:
        decode(encode(pl.DataFrame({"number": ["1"]})), {"number": pl.Int32()}, 10)
    assert caught.value.reason == "wrong_type"


def test_headers_hold_the_values_of_the_envelope() -> None:
    headers = Envelope("reduction", "raw", 3, "run-1", 12, 4, 2048, source="t/0/5").headers()
    texts = {name: value.decode() for name, value in headers}
    assert texts["ce_id"] == "run-1/12/4"
    assert texts["ce_type"] == "feedmill.reduction.raw.v3"
    assert texts["ce_specversion"] == "1.0"
    assert texts["content-type"] == "application/vnd.apache.arrow.stream"
    assert (texts["feedmill-rows"], texts["feedmill-source"]) == ("2048", "t/0/5")
    read = ForeignHeaders.parse(headers)
    assert (read.ce_type, read.run, read.chunk) == (("reduction", "raw", 3), "run-1", 12)


@given(
    st.lists(st.tuples(st.sampled_from(["ce_type", "content-type", "feedmill-chunk", "x"]), st.binary()), max_size=5)
)
def test_no_headers_break_the_reader(headers: list[tuple[str, bytes]]) -> None:
    try:
        ForeignHeaders.parse(headers)
    except RecordError as error:
        assert error.reason == "malformed_ce_type"


def _identified(rows: list[dict[str, Any]]) -> pl.DataFrame:
    return identify(
        pl.DataFrame({name: [r.get(name) for r in rows] for name in FAMILY.columns}, FAMILY.columns), FAMILY
    )


@given(st.lists(st.text(alphabet="\\.()0123ab", max_size=400), min_size=1, max_size=20))
def test_example_ids_are_xxh3_of_the_term(terms: list[str]) -> None:
    rows = [reductions.row(0, term=term, trace_id=f"t{len(term)}") for term in terms]
    frame = identify(
        pl.DataFrame([{name: r.get(name) for name in FAMILY.columns} for r in rows], FAMILY.columns), FAMILY
    )
    assert frame["example_id"].to_list() == [xxhash.xxh3_64_intdigest(term.encode()) for term in terms]
    assert set(frame["split"]) <= set(SPLITS)


def test_a_trace_is_never_split_and_splits_have_their_shares() -> None:
    rows = [reductions.row(number % 2000, trace_id=f"t{number // 3}") for number in range(30_000)]
    frame = identify(
        pl.DataFrame({name: [r.get(name) for r in rows] for name in FAMILY.columns}, FAMILY.columns), FAMILY
    )
    assert frame.group_by("trace_id").agg(pl.col("split").n_unique())["split"].max() == 1
    shares = {split: (frame["split"] == split).mean() for split in SPLITS}
    assert 0.88 < shares["train"] < 0.92
    assert 0.04 < shares["val"] < 0.06


def test_ids_never_change() -> None:
    frame = reductions.frame([reductions.row(3)])
    assert frame["example_id"][0] == xxhash.xxh3_64_intdigest(b"\\.\\.\\.(\\.0)(\\.0)") == 0x0FA3D0A054F2035E


def test_a_process_short_of_memory_does_not_blame_the_record(monkeypatch: pytest.MonkeyPatch) -> None:
    def short(*_: Any, **__: Any) -> Any:
        raise pa.ArrowMemoryError("malloc of size 370944 failed")

    data = encode(pl.DataFrame({"a": [1]}))
    monkeypatch.setattr(pa.ipc, "open_stream", short)
    with pytest.raises(MemoryError):
        decode(data, {"a": pl.Int64()}, max_rows=10)
