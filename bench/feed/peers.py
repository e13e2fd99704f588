"""The peers of the feed: readers of Parquet files, of MosaicML shards, and of JSON in a topic.

Each is written as an expert user of its library would write it: local files, only the needed columns, and the fastest
encoder that we found for its values.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl

from bench.feed.tensors import COLUMNS, Tensors, batch_of, row_of, stacked
from broker.clients import connect
from schema.settings import load_settings

# A contender's passes: each call is one pass over all rows.
Passes = Callable[[], Iterator[Tensors]]
# (Parquet file of the rows, rows to a batch) -> passes; it first stores the rows in its own form.
Prepare = Callable[[Path, int], Passes]


def hugging_face_arrow(shuffle_seed: int | None) -> Prepare:
    """Hugging Face datasets, streaming Parquet as Arrow tables; a table is a window of the feed's size."""

    def prepare(rows: Path, batch_size: int) -> Passes:
        from bench.feed.arrow_rows import WINDOW_ROWS, batches_of

        tables = _stream(rows).with_format("arrow")
        return lambda: batches_of(tables.iter(batch_size=WINDOW_ROWS), batch_size, shuffle_seed)

    return prepare


def pyarrow_parquet(shuffle_seed: int | None) -> Prepare:
    """pyarrow, reading record batches of a window's size from Parquet."""

    def prepare(rows: Path, batch_size: int) -> Passes:
        import pyarrow as pa
        import pyarrow.parquet as pq

        from bench.feed.arrow_rows import WINDOW_ROWS, batches_of

        def tables() -> Iterator[pa.Table]:
            with pq.ParquetFile(rows) as file:
                for batch in file.iter_batches(WINDOW_ROWS, columns=list(COLUMNS), use_threads=False):
                    yield pa.Table.from_batches([batch])

        return lambda: batches_of(tables(), batch_size, shuffle_seed)

    return prepare


def polars_parquet(shuffle_seed: int | None) -> Prepare:
    """Polars, scanning Parquet a window at a time."""

    def prepare(rows: Path, batch_size: int) -> Passes:
        import pyarrow as pa

        from bench.feed.arrow_rows import WINDOW_ROWS, batches_of

        height = pl.scan_parquet(rows).select(pl.len()).collect().item()

        def tables() -> Iterator[pa.Table]:
            for begin in range(0, height, WINDOW_ROWS):
                window = pl.scan_parquet(rows).select(COLUMNS).slice(begin, WINDOW_ROWS).collect()
                yield window.to_arrow(compat_level=pl.CompatLevel.oldest())

        return lambda: batches_of(tables(), batch_size, shuffle_seed)

    return prepare


def hugging_face_lists(rows: Path, batch_size: int) -> Passes:
    """Hugging Face datasets, streaming Parquet as Python lists; tokens are made batch by batch."""
    dataset = _stream(rows)
    return lambda: (batch_of(*(batch[name] for name in COLUMNS)) for batch in dataset.iter(batch_size=batch_size))


def hugging_face_map(rows: Path, batch_size: int) -> Passes:
    """Hugging Face datasets as its guide shows: `map` makes tokens, `with_format("torch")`, and torch's DataLoader."""
    import torch
    from torch.utils.data import DataLoader

    def tokenised(row: dict[str, Any]) -> dict[str, Any]:
        # The torch format takes no number from 2^63 on.
        signed = (row["example_id"] ^ 1 << 63) - (1 << 63)
        return {"tokens": row_of(row["term"])[0].numpy(), "example_id": signed}

    def collate(samples: list[dict[str, Any]]) -> Tensors:
        numbers = ([int(sample[name]) for name in COLUMNS[1:-1]] for sample in samples)
        ids = [int(sample["example_id"]) % 2**64 for sample in samples]
        return stacked(
            [
                (torch.as_tensor(sample["tokens"]), (*values, example_id))
                for sample, values, example_id in zip(samples, numbers, ids, strict=True)
            ]
        )

    dataset = _stream(rows).map(tokenised, remove_columns=["term"]).with_format("torch")
    loader: Any = DataLoader(dataset, batch_size=batch_size, collate_fn=collate)
    return lambda: iter(loader)


def _stream(rows: Path) -> Any:
    from datasets import load_dataset

    return load_dataset("parquet", data_files=str(rows), split="train", streaming=True, columns=list(COLUMNS))


def mosaicml(in_batches: bool) -> Prepare:
    """MosaicML StreamingDataset over local shards; tokens are made row by row, as in its guide, or batch by batch."""

    def prepare(rows: Path, batch_size: int) -> Passes:
        from streaming import MDSWriter, StreamingDataset
        from torch.utils.data import DataLoader

        class Tokenised(StreamingDataset):  # type: ignore[misc]  # its types are not known here
            def __getitem__(self, index: int) -> Any:
                sample = super().__getitem__(index)
                return row_of(*(sample[name] for name in COLUMNS))

        def collate(samples: list[dict[str, Any]]) -> Tensors:
            return batch_of(*([sample[name] for sample in samples] for name in COLUMNS))

        shards = str(rows.with_suffix(".batches.mds" if in_batches else ".mds"))
        kinds = dict.fromkeys(COLUMNS[1:-1], "int32")
        with MDSWriter(out=shards, columns={"term": "str", **kinds, "example_id": "uint64"}) as writer:
            for row in pl.read_parquet(rows).iter_rows(named=True):
                writer.write(row)
        form = StreamingDataset if in_batches else Tokenised
        dataset = form(local=shards, batch_size=batch_size, shuffle=False)
        loader = DataLoader(dataset, batch_size=batch_size, collate_fn=collate if in_batches else stacked)
        return lambda: iter(loader)

    return prepare


def json_records(rows: Path, batch_size: int) -> Passes:
    """kafka-python and json: a topic with one JSON row in each record."""
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
            values: list[dict[str, Any]] = []
            while len(values) < min(batch_size, left):
                polled = consumer.poll(timeout_ms=1000, max_records=min(batch_size, left) - len(values))
                values.extend(record.value for records in polled.values() for record in records)
            left -= len(values)
            yield batch_of(*([row[name] for row in values] for name in COLUMNS))

    return one_pass
