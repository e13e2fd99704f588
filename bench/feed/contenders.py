"""The feed and its peers: each stores rows in its own form and then gives passes over them as `Tensors`.

A peer is written as a user who knows its library would: local files without compression, nothing shuffled, only the
columns that are needed, and the fastest encoder we found for what it hands over.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from bench.feed.tensors import Tensors, batch_of, row_of, stacked
from broker.clients import connect
from schema.settings import load_settings

COLUMNS = ("term", "span_start", "span_end", "example_id")

# What a contender gives: each call is one pass.
Passes = Callable[[], Iterator[Tensors]]


@dataclass(frozen=True)
class Contender:
    """One way from stored rows to tensors.

    Attributes:
        key: its name for `bench.feed.measuring`.
        name: as shown.
        prepare: (Parquet file of the rows, rows to a batch) -> passes; stores the rows in its own form first.
        rows_at_most: so that the slow ones take seconds; None is all.
        needs: the distributions of the extra `bench` that it uses.
    """

    key: str
    name: str
    prepare: Callable[[Path, int], Passes]
    rows_at_most: int | None = None
    needs: tuple[str, ...] = ()


def _feed(shuffle_seed: int | None, bucket: bool) -> Callable[[Path, int], Passes]:
    def prepare(rows: Path, batch_size: int) -> Passes:
        from consumers.feed import Feed, FeedOptions

        feed: Any = Feed(
            load_settings(),
            "reduction",
            split=None,
            batch_size=batch_size,
            shuffle_seed=shuffle_seed,
            # On one core there is nothing that making batches ahead could overlap with.
            options=FeedOptions(bucket=bucket, prefetch=0),
        )
        return lambda: (Tensors(made.tokens, made.attention_mask, made.span, made.example_id) for made in feed)

    return prepare


def _mosaicml(in_batches: bool) -> Callable[[Path, int], Passes]:
    """Return how to prepare it with tokens made row by row, as its documentation does, or batch by batch."""

    def prepare(rows: Path, batch_size: int) -> Passes:
        from streaming import MDSWriter, StreamingDataset
        from torch.utils.data import DataLoader

        class Tokenised(StreamingDataset):  # type: ignore[misc]  # its types are not known here
            def __getitem__(self, index: int) -> Any:
                sample = super().__getitem__(index)
                return row_of(*(sample[name] for name in COLUMNS))

        def collate(samples: list[dict[str, Any]]) -> Tensors:
            terms, starts, ends, ids = ([sample[name] for sample in samples] for name in COLUMNS)
            return batch_of(terms, starts, ends, ids)

        shards = str(rows.with_suffix(".mds"))
        kinds = {"term": "str", "span_start": "int32", "span_end": "int32", "example_id": "uint64"}
        if not Path(shards).exists():
            with MDSWriter(out=shards, columns=kinds) as writer:
                for row in pl.read_parquet(rows).iter_rows(named=True):
                    writer.write(row)
        form = StreamingDataset if in_batches else Tokenised
        dataset = form(local=shards, batch_size=batch_size, shuffle=False)
        loader = DataLoader(dataset, batch_size=batch_size, collate_fn=collate if in_batches else stacked)
        return lambda: iter(loader)

    return prepare


def _hugging_face(rows: Path, batch_size: int) -> Passes:
    from datasets import load_dataset

    dataset = load_dataset("parquet", data_files=str(rows), split="train", streaming=True, columns=list(COLUMNS))
    return lambda: (batch_of(*(made[name] for name in COLUMNS)) for made in dataset.iter(batch_size=batch_size))


def _json_records(rows: Path, batch_size: int) -> Passes:
    from kafka import TopicPartition

    connection = connect(load_settings())
    topic = f"{connection.settings.namespace}.json-rows"
    admin = connection.admin()
    admin.create_topics({topic: {"num_partitions": 1, "replication_factor": connection.settings.replication_factor}})
    admin.wait_for_topics([topic])
    admin.close()
    frame = pl.read_parquet(rows)
    producer = connection.producer(value_serializer=lambda row: json.dumps(row).encode())
    for row in frame.iter_rows(named=True):
        producer.send(topic, row)
    producer.flush()
    producer.close()

    consumer = connection.consumer(value_deserializer=json.loads)
    partition = TopicPartition(topic, 0)
    consumer.assign([partition])

    def one_pass() -> Iterator[Tensors]:
        consumer.seek(partition, 0)
        left = frame.height
        while left:
            held: list[dict[str, Any]] = []
            while len(held) < min(batch_size, left):
                polled = consumer.poll(timeout_ms=1000, max_records=min(batch_size, left) - len(held))
                held.extend(record.value for records in polled.values() for record in records)
            left -= len(held)
            terms, starts, ends, ids = ([row[name] for row in held] for name in COLUMNS)
            yield batch_of(terms, starts, ends, ids)

    return one_pass


FEED = Contender("feed", "feed: clean topic to padded int64 tensors, one core, shuffled and bucketed", _feed(7, True))
TOPIC_ORDER = Contender("topic-order", "feed in the order of the topic", _feed(None, False))
PEERS = (
    Contender(
        "mosaicml",
        "MosaicML StreamingDataset, local MDS shards, tokens made by row",
        _mosaicml(in_batches=False),
        rows_at_most=60_000,
        needs=("mosaicml-streaming",),
    ),
    Contender(
        "mosaicml-batches",
        "MosaicML StreamingDataset, local MDS shards, tokens made by batch",
        _mosaicml(in_batches=True),
        rows_at_most=60_000,
        needs=("mosaicml-streaming",),
    ),
    Contender(
        "datasets",
        "Hugging Face datasets, streaming from Parquet",
        _hugging_face,
        rows_at_most=300_000,
        needs=("datasets",),
    ),
    Contender("json", "kafka-python and json, a JSON row to a record", _json_records, rows_at_most=60_000),
)
CONTENDERS = {contender.key: contender for contender in (FEED, TOPIC_ORDER, *PEERS)}
