"""The list of contenders: the feed and its peers, in the two orders that they are compared in.

A contender gives rows either in stored order, or shuffled in windows of the size of the feed and bucketed by length.
It is compared with the feed in the same order only, because batches of similar lengths have almost no padding.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bench.feed import peers
from bench.feed.peers import Passes, Prepare
from bench.feed.tensors import Tensors
from schema.settings import load_settings

Order = Literal["shuffled", "stored"]

_SEED = 7


@dataclass(frozen=True)
class Contender:
    """One way from stored rows to tensors.

    Attributes:
        key: its name for `bench.feed.measuring`.
        name: its name in the figures.
        prepare: stores the rows in its own form and returns its passes.
        order: the order of the rows that it gives.
        needs: distributions of the extra `bench` that it uses.
    """

    key: str
    name: str
    prepare: Prepare
    order: Order
    needs: tuple[str, ...] = ()


def _feed(shuffle_seed: int | None) -> Prepare:
    def prepare(rows: Path, batch_size: int) -> Passes:
        from consumers.feed import Feed, FeedOptions

        feed: Any = Feed(
            load_settings(),
            "reduction",
            split=None,
            batch_size=batch_size,
            shuffle_seed=shuffle_seed,
            # On one core, a thread that prepares batches cannot overlap with anything.
            options=FeedOptions(bucket=shuffle_seed is not None, prefetch=0),
        )

        def one_pass() -> Iterator[Tensors]:
            for batch in feed:
                yield Tensors(
                    batch.tokens,
                    batch.attention_mask,
                    batch.span,
                    batch.is_normal_form,
                    batch.size,
                    batch.depth,
                    batch.example_id,
                )

        return one_pass

    return prepare


FEED = Contender(
    "feed", "feed: clean topic to padded int64 tensors, one core, shuffled and bucketed", _feed(_SEED), "shuffled"
)
TOPIC_ORDER = Contender("topic-order", "feed in the order of the topic", _feed(None), "stored")

_DATASETS, _MOSAICML = ("datasets",), ("mosaicml-streaming",)
PEERS = (
    Contender(
        "datasets-arrow",
        "Hugging Face datasets, streaming Parquet, Arrow format, the feed's planner and encoder",
        peers.hugging_face_arrow(_SEED),
        "shuffled",
        _DATASETS,
    ),
    Contender("pyarrow", "pyarrow, Parquet, the feed's planner and encoder", peers.pyarrow_parquet(_SEED), "shuffled"),
    Contender("polars", "Polars, Parquet, the feed's planner and encoder", peers.polars_parquet(_SEED), "shuffled"),
    Contender(
        "datasets-arrow-stored",
        "Hugging Face datasets, streaming Parquet, Arrow format, the feed's encoder",
        peers.hugging_face_arrow(None),
        "stored",
        _DATASETS,
    ),
    Contender("pyarrow-stored", "pyarrow, Parquet, the feed's encoder", peers.pyarrow_parquet(None), "stored"),
    Contender(
        "datasets-lists",
        "Hugging Face datasets, streaming Parquet, Python lists, tokens made by batch",
        peers.hugging_face_lists,
        "stored",
        _DATASETS,
    ),
    Contender(
        "datasets-map",
        "Hugging Face datasets, streaming Parquet, map, torch format, DataLoader",
        peers.hugging_face_map,
        "stored",
        _DATASETS,
    ),
    Contender(
        "mosaicml",
        "MosaicML StreamingDataset, local MDS shards, tokens made by row",
        peers.mosaicml(in_batches=False),
        "stored",
        _MOSAICML,
    ),
    Contender(
        "mosaicml-batches",
        "MosaicML StreamingDataset, local MDS shards, tokens made by batch",
        peers.mosaicml(in_batches=True),
        "stored",
        _MOSAICML,
    ),
    Contender("json", "kafka-python and json, a JSON row to a record", peers.json_records, "stored"),
)
CONTENDERS = {contender.key: contender for contender in (FEED, TOPIC_ORDER, *PEERS)}
