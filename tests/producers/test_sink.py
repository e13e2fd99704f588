"""The sink writes every row to the raw topic once, in its own partition, in records of the right form and size."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice

import polars as pl
import pytest
from kafka.consumer.fetcher import ConsumerRecord

from broker.clients import Connection
from producers.reduction.run import ReductionRun
from producers.run import generate, produce
from producers.sink import EncodedRecord, RecordLayout, RecordSender, encode_block, gathered, raw_layout, send_frames
from schema.errors import DeliveryError, UsageError
from schema.family import partition_of
from schema.record import ARROW_STREAM, RAW, ForeignHeaders, decode
from schema.reduction import FAMILY
from tests.topic_records import all_records

RUN = ReductionRun(30_000, 7, run="sink")
LAYOUT = RecordLayout(partitions=4, rows_per_record=2048, record_max_bytes=1_000_000)


def read_raw(connection: Connection) -> list[ConsumerRecord]:
    """Return all records of the reduction family's raw topic, by partition and offset."""
    return all_records(connection, FAMILY, RAW)


def rows_of(record: ConsumerRecord | EncodedRecord) -> pl.DataFrame:
    value = record.data if isinstance(record, EncodedRecord) else record.value
    return decode(value, FAMILY.wire, 1_000_000)


def in_order(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.sort("chunk", "trace_id", "step_k")


@pytest.mark.parametrize("workers", [1, 2])
def test_a_topic_holds_the_rows_that_a_file_would(workers: int, connection: Connection) -> None:
    done: list[int] = []
    report = produce(connection, replace(RUN, workers=workers), done.append)
    records = read_raw(connection)
    rows = pl.concat(map(rows_of, records))
    assert in_order(rows).equals(in_order(pl.concat(generate(RUN))))
    assert (report.rows, report.records, report.seed, report.run) == (RUN.count, len(records), 7, "sink")
    assert report.bytes == sum(len(record.value) for record in records)
    assert done == sorted(done)
    assert done[-1] == RUN.count


def test_each_record_has_complete_headers_and_only_rows_of_its_partition(connection: Connection) -> None:
    produce(connection, RUN)
    ids = set()
    for record in read_raw(connection):
        rows = rows_of(record)
        headers = {name: value.decode() for name, value in record.headers}
        assert set(rows.select(partition_of(FAMILY, 4)).to_series()) == {record.partition}
        assert headers["feedmill-rows"] == str(rows.height)
        assert headers["feedmill-chunk"] == str(rows["chunk"].min())
        assert headers["ce_type"] == "feedmill.reduction.raw.v1"
        parsed = ForeignHeaders.parse(record.headers)
        assert (parsed.content_type, parsed.run, parsed.chunk) == (ARROW_STREAM, "sink", rows["chunk"][0])
        assert headers["ce_id"].startswith(f"sink/{rows['chunk'][0]}/")
        assert record.key is None
        ids.add(headers["ce_id"])
        assert 1 <= rows.height <= 2048
        assert len(record.value) < 1_000_000
    assert len(ids) == len(read_raw(connection))


def test_no_rows_are_sent_for_a_count_of_zero(connection: Connection) -> None:
    report = produce(connection, replace(RUN, count=0, workers=2))
    assert (report.rows, report.records) == (0, 0)
    assert read_raw(connection) == []


def test_encoding_a_frame_twice_gives_the_same_records() -> None:
    frame = next(generate(replace(RUN, count=9000)))
    assert encode_block(frame, FAMILY, LAYOUT) == encode_block(frame.clone(), FAMILY, LAYOUT)


@pytest.mark.slow
@pytest.mark.parametrize("limit", [4_000, 40_000])
def test_records_stay_under_the_limit_of_bytes(limit: int) -> None:
    frame = next(generate(replace(RUN, count=3000)))
    records = encode_block(frame, FAMILY, replace(LAYOUT, record_max_bytes=limit))
    assert max(len(record.data) for record in records) <= limit
    assert in_order(pl.concat(map(rows_of, records))).equals(in_order(frame))
    assert len({(record.chunk, record.part) for record in records}) == len(records)


def test_a_row_too_large_for_a_record_is_refused() -> None:
    frame = next(generate(replace(RUN, count=1))).with_columns(trace_id=pl.lit(str(range(10**6)) * 5))
    with pytest.raises(UsageError, match="one row"):
        encode_block(frame, FAMILY, replace(LAYOUT, record_max_bytes=1024))


def test_a_partitions_rows_are_divided_evenly_over_records() -> None:
    frame = next(generate(replace(RUN, count=20_000)))
    heights = [record.rows for record in encode_block(frame, FAMILY, replace(LAYOUT, partitions=1))]
    assert sum(heights) == frame.height
    assert max(heights) <= 2048
    assert max(heights) - min(heights) < len(heights)


def test_rows_without_a_chunk_get_the_number_of_their_block() -> None:
    frame = next(generate(RUN)).with_columns(chunk=pl.lit(None, dtype=FAMILY.columns["chunk"]))
    assert {record.chunk for record in encode_block(frame, FAMILY, LAYOUT, block=5)} == {5}


def test_small_frames_are_gathered_into_whole_records(connection: Connection) -> None:
    frame = pl.concat(generate(replace(RUN, count=20_000)))
    report = send_frames(connection, FAMILY, "small", frame.iter_slices(7))
    assert report.rows == frame.height
    assert report.records < 40
    assert in_order(pl.concat(map(rows_of, read_raw(connection)))).equals(in_order(frame))


@pytest.mark.parametrize("heights", [[], [0], [3, 0, 4, 9], [1] * 20, [50]])
def test_gathering_keeps_rows_and_their_order(heights: list[int]) -> None:
    numbers = iter(range(1000))
    frames = [pl.DataFrame({"x": list(islice(numbers, height))}, schema={"x": pl.Int64}) for height in heights]
    whole = list(gathered(frames, 8))
    assert [x for frame in whole for x in frame["x"]] == list(range(sum(heights)))
    assert all(frame.height >= 8 for frame in whole[:-1])
    assert all(frame.height for frame in whole)


def test_a_record_that_the_broker_refuses_is_reported(connection: Connection) -> None:
    raw_layout(connection, FAMILY)
    roomier = replace(
        connection,
        settings=connection.settings.model_copy(update={"raw_record_max_bytes": 64 * 1024 * 1024}),
    )
    with pytest.raises(DeliveryError, match="did not accept a record"), RecordSender(roomier, FAMILY, "big") as sender:
        sender.send(b"x" * 12_000_000, [], 0, 1)


def test_leaving_a_sender_by_an_exception_does_not_wait(connection: Connection) -> None:
    raw_layout(connection, FAMILY)
    with pytest.raises(ZeroDivisionError), RecordSender(connection, FAMILY, "left") as sender:
        sender.send(b"x", [], 0, 1)
        raise ZeroDivisionError
