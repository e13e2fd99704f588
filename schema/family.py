"""The declaration of a family (one kind of example), and the columns that are computed for every family.

A family is data, pure functions, and the names of its parts in the other packages. The shared columns (an example's id,
its split) and its route are computed here only, so that a file written with `--out` and a topic agree.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import dataframely as dy
import numpy as np
import numpy.typing as npt
import polars as pl
import polars_hash as plh
from polars.datatypes import DataTypeClass

from schema.axes import Axis, Quota
from schema.settings import Settings

CELL_AXIS = "cell"
CELL_SEPARATOR = "|"
SPLITS = ("train", "val", "test")
# Of 1,000 buckets 900 are train, 50 val and 50 test.
_SPLIT_EDGES = (900, 950)

# Columns that every example has in addition to its family's own.
ENVELOPE: Mapping[str, pl.DataType] = {
    "example_id": pl.UInt64(),
    "split": pl.String(),
    "augmented_from": pl.UInt64(),
}


class Example(dy.Schema):
    """Columns and rules that every family's schema inherits; `record` numbers the raw records of a refined group."""

    record = dy.UInt32(nullable=False)
    example_id = dy.UInt64(nullable=False)
    split = dy.String(nullable=False)
    augmented_from = dy.UInt64(nullable=True)


@dataclass(frozen=True, kw_only=True)
class Parts:
    """Where the parts of a family are, each as "module:object"; `schema.parts.load_part` imports one on first use.

    Attributes:
        producer: the class of its producer runs, a `producers.run.ProducerRun`.
        tensor_form: its `consumers.tensor_form.TensorForm`; the module must not import torch.
        commands: its commands by what a user types after `feedmill`, e.g. {"produce reduction": ...}.
        samples: for tests: `count` -> that many different valid rows, identified, in wire columns.
        filling: (cells, seed, number of the first row) -> one identified row for each cell; for `produce --follow`.
        augmentation: clean rows -> new rows, as `streams.augmentation` describes.
    """

    producer: str
    tensor_form: str
    commands: Mapping[str, str]
    samples: str
    filling: str | None = None
    augmentation: str | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Family:
    """One kind of example.

    Attributes:
        name: the name in topic names and on the command line.
        version: the version of the column layout; the N of `feedmill.<family>.<stage>.v<N>`.
        columns: the family's own columns in a record, by name; the `ENVELOPE` columns are added.
        rules: the dataframely schema; the names of its rules are the reason codes.
        decisive: names of rules that hide all others: a row that breaks one reports no other reason.
        filters: settings -> {reason: expression over the wire columns, true for a row that passes}. A valid row that
            does not pass a filter is rejected with the filter's reason.
        derive: adds the recomputed columns that `rules` compares with and that a record does not hold.
        axes: coverage axes over a derived, valid frame.
        cell_axes: names of the axes whose full cross product makes the cells.
        cell_possible: whether a cell ({axis: bin}) can exist; an impossible cell is never a gap.
        cell_minimum: the rows that each possible cell should have; fewer is a gap.
        cell_room: the most rows that can be requested for a cell, because it may have few different examples.
        identity: a Utf8 expression, the canonical content that `example_id` hashes.
        group: a Utf8 expression; rows with the same value are all in one of train, val and test.
        route: a UInt64 expression over a frame with `example_id`; a row belongs in partition `route mod partitions`.
        text: a Utf8 expression, a row's prose, used for near duplicates and for variety; None for a family without
            prose, whose rows have exact duplicates only.
        response: name of the column with a row's response, whose variety `schema.response_measures` measures by itself;
            None for a family without responses. `response_label` is the column that a response's first words should
            not give away.
        shingle_words: consecutive words of `text` in a shingle, by which texts are compared. A `route` by the smallest
            shingle has the same width.
        near_duplicate_threshold: the Jaccard similarity of two texts' shingles from which they are near duplicates,
            unless the setting of that name gives another for all families; 1 keeps all.
        flatten: one JSON object of the family's JSON form -> {column: value}; raises nothing, unknown keys are kept.
        nest: a frame of columns -> a frame in the family's JSON form.
        cell_view: name of a view in the coverage store with one line per cell, or None. Its columns are the cell axes,
            `generated_count`, `first_generated` and `last_generated`.
        parts: where the family's producer, tensor form, commands and other parts are.
    """

    name: str
    version: int
    columns: Mapping[str, pl.DataType]
    rules: type[Example]
    derive: Callable[[pl.DataFrame], pl.DataFrame]
    axes: tuple[Axis, ...]
    cell_axes: tuple[str, ...]
    cell_possible: Callable[[Mapping[str, str]], bool] = lambda cell: True
    cell_minimum: int = 1
    cell_room: Callable[[Mapping[str, str]], int] = lambda cell: sys.maxsize
    quotas: tuple[Quota, ...]
    identity: pl.Expr
    group: pl.Expr
    route: pl.Expr = field(default_factory=lambda: pl.col("example_id"))
    text: pl.Expr | None = None
    response: str | None = None
    response_label: str | None = None
    shingle_words: int = 3
    near_duplicate_threshold: float = 0.8
    decisive: tuple[str, ...] = ()
    filters: Callable[[Settings], Mapping[str, pl.Expr]] = lambda settings: {}
    flatten: Callable[[dict[str, Any]], dict[str, Any]] = lambda document: document
    nest: Callable[[pl.DataFrame], pl.DataFrame] = lambda frame: frame
    cell_view: str | None = None
    parts: Parts

    @property
    def wire(self) -> dict[str, pl.DataType]:
        """All columns of a raw or clean record, in order: the family's own, then `ENVELOPE`."""
        return {**self.columns, **ENVELOPE}

    @property
    def gates(self) -> tuple[Quota, ...]:
        """The `max_share` quotas, which reject rows, in declared order."""
        return tuple(quota for quota in self.quotas if quota.kind == "max_share")

    def near_threshold(self, setting: float | None) -> float:
        """Return the setting `near_duplicate_threshold`, or the family's own threshold if it is not set."""
        return self.near_duplicate_threshold if setting is None else setting

    def axis(self, name: str) -> Axis:
        """Return the axis of that name.

        Raises:
            KeyError: the family has no such axis.
        """
        return {axis.name: axis for axis in self.axes}[name]

    def minimum_of(self, cell: Mapping[str, str]) -> int:
        """Return the number of rows that `cell` should have."""
        return min(self.cell_minimum, self.cell_room(cell)) if self.cell_possible(cell) else 0

    def cells(self) -> Iterator[dict[str, str]]:
        """Yield every cell as {axis: bin}, in row-major order of `cell_axes`."""
        for bins in product(*(self.axis(name).bins for name in self.cell_axes)):
            yield dict(zip(self.cell_axes, bins, strict=True))


def instance(dtype: pl.DataType | DataTypeClass) -> pl.DataType:
    """Return `dtype` as an instance, because Polars also accepts a class as an inner type."""
    return dtype if isinstance(dtype, pl.DataType) else dtype()


def axis_codes(frame: pl.DataFrame, axes: Iterable[Axis]) -> pl.DataFrame:
    """Return the bin of each row of a derived frame on each of `axes` (Int64; -1 if the row is not counted)."""
    return frame.select(axis.code.cast(pl.Int64).fill_null(-1).alias(axis.name) for axis in axes)


def cell_codes(codes: pl.DataFrame, family: Family) -> npt.NDArray[np.int64]:
    """Return the number of each row's cell, in the order of `Family.cells`, from the result of `axis_codes`.

    A row that one of the cell axes does not count has the number -1.
    """
    cell = np.zeros(codes.height, dtype=np.int64)
    for name in family.cell_axes:
        code = codes[name].to_numpy()
        cell = np.where((cell < 0) | (code < 0), -1, cell * len(family.axis(name).bins) + code)
    return cell


def cell_label(cell: Mapping[str, str]) -> str:
    """Return the bin label of a cell on the pseudo-axis `cell`, e.g. "80-89|4-7|0"."""
    return CELL_SEPARATOR.join(cell.values())


def identify(frame: pl.DataFrame, family: Family) -> pl.DataFrame:
    """Return `frame` with `example_id` and `split` computed from its content, and `augmented_from` present.

    `example_id` is xxh3-64 of `family.identity`; `split` comes from xxh3-64 of `family.group`, never from position.
    Null content gives a null id, which the `example_id|nullability` rule rejects.
    """
    if "augmented_from" not in frame.columns:
        frame = frame.with_columns(augmented_from=pl.lit(None, dtype=pl.UInt64))
    return (
        frame.with_columns(_identity=family.identity, _group=family.group)
        .with_columns(example_id=plh.col("_identity").nchash.xxh3_64(), split=split_of("_group"))
        .drop("_identity", "_group")
    )


def split_of(column: str) -> pl.Expr:
    """Return an expression for the split of each group in a Utf8 column (String, null for null).

    >>> pl.DataFrame({"group": ["json", "heapq"]}).select(split_of("group")).to_series().to_list()
    ['train', 'train']
    """
    bucket = plh.col(column).nchash.xxh3_64() % 1000
    return (
        pl.when(bucket < _SPLIT_EDGES[0])
        .then(pl.lit(SPLITS[0]))
        .when(bucket < _SPLIT_EDGES[1])
        .then(pl.lit(SPLITS[1]))
        .when(bucket.is_not_null())
        .then(pl.lit(SPLITS[2]))
    )


def partition_of(family: Family, partitions: int) -> pl.Expr:
    """Return an expression for the partition of each row of an identified frame (Int32, null if unknown)."""
    return (family.route % partitions).cast(pl.Int32).alias("partition")
