"""One source's rows in reading order, from any place on: those that belong to the feed, with lineage columns.

`Selection` decides which rows belong. `SourceStream` reads blocks, round after round if the source repeats. It always
knows its `Place`, from which another stream continues with the very next row.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from types import TracebackType

import numpy as np
import numpy.typing as npt
import polars as pl

from broker.clients import Connection
from consumers.reading import Record, TopicReader
from consumers.sequence.blocks import reading_order
from consumers.sequence.cursor import Place
from consumers.sequence.lineage import LINEAGE, OFFSET, PARTITION, ROW, SOURCE, TOKENS
from consumers.sequence.retracted import RetractedRows
from consumers.sequence.spec import FeedSpec
from consumers.sequence.weights import copies, draws
from consumers.tensor_form import PART, Expansion, TensorForm
from schema.decoding import decode_records
from schema.errors import FeedError
from schema.record import CLEAN
from schema.registry import family_named

# Records are decoded together up to this many bytes, because small batches cost more per record.
_DECODE_BYTES = 1024 * 1024
# The most bytes of one block that are decoded at once; a block may be larger than measured.
_SEGMENT_BYTES = 4 * 1024 * 1024
_JUMP_FETCH_BYTES = 256 * 1024
_BLOCK = "_block"


@dataclass(frozen=True)
class Piece:
    """Rows of one block, or of a segment of it; `too_long` more rows were left out because of their length."""

    block: int
    rows: pl.DataFrame
    too_long: int


@dataclass(frozen=True)
class KeptColumns:
    """The columns of a feed's rows.

    Attributes:
        names: the family's columns to keep.
        tokens: an integer expression: the length of a row, or of a sequence, in tokens.
        expand: turns rows into sequences, which take the place of rows; None if a row is one.
    """

    names: tuple[str, ...]
    tokens: pl.Expr
    expand: Expansion | None = None

    @classmethod
    def of(cls, form: TensorForm, names: Iterable[str]) -> KeptColumns:
        """Return what is kept for a tensor form, with the family's columns `names`."""
        return cls(tuple(names), form.tokens, form.expand)


class Selection:
    """Decides which rows of a source belong to a feed, in one phase of its curriculum.

    Args:
        spec: the feed's spec.
        epoch: number of the pass.
        phase: number of the curriculum's phase.
        share: (index, count): only the rows with `example_id mod count == index`.
        kept: the columns to keep, the length of a row in tokens, and how rows become sequences.
        retracted: the rows that do not belong because they are retracted.

    Raises:
        FeedError: the spec's filter is not a condition, or a Polars expression that this program has not passed.
    """

    def __init__(
        self,
        spec: FeedSpec,
        epoch: int,
        phase: int,
        share: tuple[int, int],
        kept: KeptColumns,
        retracted: RetractedRows,
    ) -> None:
        family = family_named(spec.family)
        self._kind = (family.name, CLEAN, spec.schema_version)
        tests = [pl.col("split") == spec.split] if spec.split is not None else []
        if spec.curriculum is not None:
            tests.append(_in_phase(spec, phase))
        if share[1] > 1:
            tests.append(pl.col("example_id") % share[1] == share[0])
        self._belongs = pl.all_horizontal(tests) if tests else None
        self._where = None if spec.where is None else spec.where.test(family.wire)
        self._tokens, self._max_tokens = kept.tokens, spec.max_tokens
        self._expand, self._weight = kept.expand, spec.weight_column
        self._seed, self._epoch = spec.shuffle_seed or 0, epoch
        self._retracted = retracted
        needed = {*kept.names, *retracted.columns}
        needed.update(kept.tokens.meta.root_names() if kept.expand is None else (*kept.expand.columns, "example_id"))
        if self._weight is not None:
            needed.update((self._weight, "example_id"))
        for test in tests:
            needed.update(test.meta.root_names())
        if self._where is not None:
            needed.update(self._where.columns)
        self._columns = {name: kind for name, kind in family.wire.items() if name in needed}
        row_schema = {name: family.wire[name] for name in kept.names} | LINEAGE | retracted.schema
        # What a sequence takes from its row.
        also = [] if self._weight is None else [self._weight, "example_id"]
        self._carried = list(dict.fromkeys([*row_schema, *also]))
        made = {} if kept.expand is None else {PART: pl.Int32(), **kept.expand.schema}
        self.schema = row_schema | made | {TOKENS: pl.Int64()}
        # Bytes of a row per token, for the bound of a window.
        self.token_bytes = 1 if kept.expand is None else kept.expand.token_bytes

    def of(self, records: Sequence[tuple[int, Record]], topic: str, source: int) -> Iterator[Piece]:
        """Yield, for each block of the records, the rows that belong to the feed, with lineage.

        Args:
            records: (number of the block, record), in reading order; at least one.
            topic: the topic they were read from.
            source: the source's number in the feed.

        Raises:
            FeedError: a record cannot be decoded, has another type or version, or holds a value on which the filter
                fails.
        """
        read = [record for _, record in records]
        frame, counts = decode_records(read, topic, self._kind, self._columns, FeedError)
        blocks = pl.Series(_BLOCK, np.repeat([number for number, _ in records], counts), dtype=pl.Int64())
        tokens = [] if self._expand is not None else [self._tokens.alias(TOKENS)]
        chosen = frame.with_columns(*_lineage(read, counts, source), *tokens, blocks)
        chosen = self._retracted.without(chosen, source)
        if self._belongs is not None:
            chosen = chosen.filter(self._belongs)
        if self._where is not None:
            chosen = chosen.filter(self._where.mask(chosen))
        numbers = list(dict.fromkeys(number for number, _ in records))
        if self._expand is not None:
            for number, (begin, end) in zip(numbers, _cuts(chosen[_BLOCK], numbers), strict=True):
                yield from self._expanded(self._expand, chosen[begin:end], number)
            return
        rows = self._short(chosen)
        kept, all_chosen = (_cuts(each[_BLOCK], numbers) for each in (rows, chosen))
        left_out = [(d - c) - (b - a) for (a, b), (c, d) in zip(kept, all_chosen, strict=True)]
        if self._weight is not None:
            rows = self._weighted(rows)
            kept = _cuts(rows[_BLOCK], numbers)
        rows = rows[list(self.schema)]
        for number, (begin, end), too_long in zip(numbers, kept, left_out, strict=True):
            yield Piece(number, rows[begin:end], too_long)

    def _expanded(self, expand: Expansion, rows: pl.DataFrame, number: int) -> Iterator[Piece]:
        """Yield the sequences of one block's rows, piece by piece."""
        carried = rows[self._carried]
        for parents, made in expand.sequences(rows, self._seed, self._epoch):
            sequences = made.hstack(carried[parents].get_columns()).with_columns(self._tokens.alias(TOKENS))
            kept = self._short(sequences)
            too_long = sequences.height - kept.height
            yield Piece(number, self._weighted(kept)[list(self.schema)], too_long)

    def _short(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Return the rows that are not too long."""
        # Most blocks hold no row that is too long, and a filter costs as much as all other steps.
        if rows[TOKENS].to_numpy().max(initial=0) > self._max_tokens:
            return rows.filter(pl.col(TOKENS) <= self._max_tokens)
        return rows

    def _weighted(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Return the rows, each as often as this pass takes it."""
        if self._weight is None:
            return rows
        first = np.zeros(rows.height, dtype=np.int64)
        parts = first if self._expand is None else rows[PART].to_numpy().astype(np.int64)
        drawn = draws(rows["example_id"].to_numpy(), parts, self._seed, self._epoch)
        weights = rows[self._weight].cast(pl.Float64).fill_null(math.nan).to_numpy()
        return rows[np.repeat(np.arange(rows.height), copies(weights, drawn))]


def _cuts(blocks: pl.Series, numbers: Sequence[int]) -> list[tuple[int, int]]:
    """Return the begin and end of each numbered block's rows in the ascending column of block numbers."""
    column = blocks.to_numpy()
    begins, ends = (np.searchsorted(column, numbers, side).tolist() for side in ("left", "right"))
    return list(zip(begins, ends, strict=True))


def _lineage(records: Sequence[Record], counts: npt.NDArray[np.int64], source: int) -> list[pl.Series]:
    """Return the lineage columns of the records' rows, one record after the other."""
    total = int(counts.sum())
    columns = {
        SOURCE: np.full(total, source),
        PARTITION: np.repeat([record.partition for record in records], counts),
        OFFSET: np.repeat([record.offset for record in records], counts),
        ROW: np.arange(total) - np.repeat(np.cumsum(counts) - counts, counts),
    }
    return [pl.Series(name, values, dtype=LINEAGE[name]) for name, values in columns.items()]


def _in_phase(spec: FeedSpec, phase: int) -> pl.Expr:
    curriculum = spec.curriculum
    assert curriculum is not None  # noqa: S101  # the caller checked it; for the type checker
    column, edges = pl.col(curriculum.column), curriculum.edges
    above = pl.lit(True) if phase == 0 or curriculum.cumulative else column >= edges[phase - 1]
    below = column < edges[phase] if phase < len(edges) else pl.lit(True)
    return above & below


class SourceStream:
    """A source's rows from a place on; a context manager.

    Args:
        connection: the broker to read from.
        spec: the feed's spec.
        number: the source's number in the spec.
        epoch: number of the pass.
        phase: number of the curriculum's phase.
        place: where to begin.
        selection: decides which rows belong.

    Raises:
        FeedError: while iterating: the topic no longer holds an offset, a record cannot be decoded, or a source that
            repeats has no rows.
    """

    def __init__(
        self,
        connection: Connection,
        spec: FeedSpec,
        number: int,
        epoch: int,
        phase: int,
        place: Place,
        selection: Selection,
    ) -> None:
        self._connection, self._spec, self._number = connection, spec, number
        self._source = spec.sources[number]
        self._epoch, self._phase = epoch, phase
        self._selection = selection
        self._place = place
        self._too_long = place.too_long
        # A shuffled feed seeks from block to block, so records fetched beyond a block are thrown away.
        self._fetch_bytes = None if spec.shuffle_seed is None else _JUMP_FETCH_BYTES
        self._pending = pl.DataFrame(schema=selection.schema)
        self._pieces = self._read(place)

    def __enter__(self) -> SourceStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pieces.close()

    @property
    def place(self) -> Place:
        """Where the next row comes from."""
        return self._place

    @property
    def too_long(self) -> int:
        """Rows that were left out because of their length, in the part of the pass that was read."""
        return self._too_long

    def take(self, rows: int) -> list[pl.DataFrame]:
        """Return the next `rows` rows as pieces; fewer if the source ends and does not repeat."""
        taken = []
        while rows:
            if not self._pending.height:
                piece = next(self._pieces, None)
                if piece is None:
                    break
                self._pending = piece
            part = self._pending[:rows]
            self._pending = self._pending[part.height :]
            at = self._place
            self._place = Place(at.round, at.block, at.row + part.height, at.too_long)
            rows -= part.height
            taken.append(part)
        return taken

    def _read(self, place: Place) -> Generator[pl.DataFrame, None, None]:
        """Yield rows, block by block; at each yield `_place` is the place of the first row."""
        for number in count(place.round):
            at = Place(number, *((place.block, place.row) if number == place.round else (0, 0)), self._too_long)
            some = False
            for piece in self._read_round(at):
                some = True
                yield piece
            if not self._source.repeat:
                return
            if not some and at.block == 0 and at.row == 0:
                raise FeedError(
                    f"{self._source.topic} must repeat, but has no rows that belong to the feed: "
                    "widen the filter or the split, or leave this source out"
                )

    def _read_round(self, at: Place) -> Iterator[pl.DataFrame]:
        order = reading_order(self._spec, self._number, self._epoch, self._phase, at)[at.block :]
        skipped = at.row
        # The block being read, how many of its rows were yielded, and how many were left out before it.
        here, behind, too_long = -1, 0, self._too_long
        with TopicReader(self._connection, self._source.topic, FeedError, fetch_bytes=self._fetch_bytes) as reader:
            for records in _gathered(reader.records(order)):
                for piece in self._selection.of(records, self._source.topic, self._number):
                    if piece.block != here:
                        here, behind, too_long = piece.block, 0, self._too_long
                    self._too_long += piece.too_long
                    rows = piece.rows
                    if here == 0 and skipped > behind:
                        rows = rows[skipped - behind :]
                    if rows.height:
                        # A stream that begins with this block needs the count of rows left out before it.
                        begin = behind + piece.rows.height - rows.height
                        self._place = Place(at.round, at.block + here, begin, too_long)
                        yield rows
                    behind += piece.rows.height


def _gathered(numbered: Iterator[tuple[int, Record]]) -> Iterator[list[tuple[int, Record]]]:
    """Yield (number of the block, record) in lists that are large enough to decode together.

    A list ends with a block, or with a segment of one. The block alone decides where its segments end; the place where
    reading began does not matter.
    """
    gathered: list[tuple[int, Record]] = []
    gathered_bytes = segment_bytes = 0
    for number, record in numbered:
        if gathered and gathered[-1][0] != number:
            segment_bytes = 0
            if gathered_bytes >= _DECODE_BYTES:
                yield gathered
                gathered, gathered_bytes = [], 0
        elif segment_bytes >= _SEGMENT_BYTES:
            yield gathered
            gathered, gathered_bytes, segment_bytes = [], 0, 0
        gathered.append((number, record))
        gathered_bytes += len(record.value)
        segment_bytes += len(record.value)
    if gathered:
        yield gathered
