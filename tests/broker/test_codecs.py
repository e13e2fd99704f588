"""Both clients read compressed batches, and refuse those above the limit."""

from __future__ import annotations

from contextlib import closing

import aiokafka.codec
import kafka.codec
import pytest
from aiokafka.record._crecords import default_records as compiled
from hypothesis import given
from hypothesis import strategies as st
from kafka import TopicPartition
from kafka.record import default_records

from broker import codecs
from broker.clients import Connection
from broker.codecs import BatchTooLargeError, bound_aiokafka, bound_kafka_python
from broker.topics import ensure_topics, topic_name
from consumers.reading import OffsetBlock, TopicReader
from schema.errors import BrokerError, ReplayError
from schema.record import CLEAN

NAMES = ("gzip", "snappy", "lz4", "zstd")

bound_kafka_python()
bound_aiokafka()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("encoders", [kafka.codec, aiokafka.codec])
@pytest.mark.parametrize("decoders", [default_records, compiled])
@given(data=st.binary(min_size=1, max_size=3000) | st.integers(1, 200_000).map(lambda size: b"x" * size))
def test_decoders_restore_what_any_client_compressed(
    name: str, encoders: object, decoders: object, data: bytes
) -> None:
    packed = getattr(encoders, f"{name}_encode")(data)
    assert getattr(decoders, f"{name}_decode")(memoryview(packed) if name == "gzip" else packed) == data


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("decoders", [default_records, compiled])
def test_a_batch_above_the_limit_is_refused(name: str, decoders: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codecs, "BATCH_LIMIT_BYTES", 100_000)
    decode = getattr(decoders, f"{name}_decode")
    encode = getattr(kafka.codec, f"{name}_encode")
    assert len(decode(encode(b"x" * 100_000))) == 100_000
    for size in (100_001, 5_000_000):
        with pytest.raises(BatchTooLargeError):
            decode(encode(b"x" * size))


@pytest.mark.parametrize("name", ["gzip", "lz4"])
def test_a_batch_that_is_cut_off_is_refused(name: str) -> None:
    packed = getattr(kafka.codec, f"{name}_encode")(bytes(range(256)) * 40)
    with pytest.raises((EOFError, RuntimeError)):
        getattr(default_records, f"{name}_decode")(packed[: len(packed) // 2])


def test_a_reader_names_the_batch_above_the_limit(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    ensure_topics(connection, ["reduction"])
    topic = topic_name(connection.settings, "reduction", CLEAN)
    with closing(connection.producer(compression_type="zstd")) as producer:
        producer.send(topic, b"small", partition=0).get(30)
        producer.send(topic, b"x" * 900_000, partition=0).get(30)
    monkeypatch.setattr(codecs, "BATCH_LIMIT_BYTES", 100_000)
    with TopicReader(connection, topic, ReplayError) as reader:
        records = reader.records([OffsetBlock(0, 0, 2)])
        assert next(records)[1].value == b"small"
        with pytest.raises(BrokerError, match=r"clean.*the batch at offset 1: over 100000 bytes"):
            next(records)


@pytest.mark.parametrize("name", NAMES)
def test_each_codec_goes_through_kafka(connection: Connection, name: str) -> None:
    ensure_topics(connection, ["reduction"])
    topic = topic_name(connection.settings, "reduction", CLEAN)
    with closing(connection.producer(compression_type=name)) as producer:
        for number in range(3):
            producer.send(topic, b"%d" % number * 5000, partition=0)
        producer.flush()
    with closing(connection.consumer()) as consumer:
        consumer.assign([TopicPartition(topic, 0)])
        consumer.seek_to_beginning()
        values: list[bytes] = []
        while len(values) < 3:
            for records in consumer.poll(timeout_ms=500).values():
                values += [record.value for record in records]
    assert values == [b"%d" % number * 5000 for number in range(3)]
