"""One source's rows in reading order, from any place in it: what belongs to the feed, with its lineage.

`Selection` says which rows belong; `SourceStream` reads blocks, round after round where the source repeats, and always
knows its `Place`, from which another stream goes on with the very next row.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from types import TracebackType

import numpy as np
import numpy.typing as npt
import polars as pl

from broker.clients import Connection
from consumers.decoding import decode_records
from consumers.forms import form_of
from consumers.reading import Record, TopicReader
from consumers.sequence.blocks import reading_order
from consumers.sequence.cursor import Place
from consumers.sequence.lineage import LINEAGE, OFFSET, PARTITION, ROW, SOURCE, TOKENS
from consumers.sequence.spec import FeedSpec
from schema.errors import FeedError
from schema.record import CLEAN
from schema.registry import family_named

# Records are decoded together until they have so many bytes: fewer at a time cost more each.
_DECODE_BYTES = 1024 * 1024
# So many bytes of one block are decoded at once, at most; a block that was measured as smaller may be larger.
_SEGMENT_BYTES = 4 * 1024 * 1024
_JUMP_FETCH_BYTES = 256 * 1024
_BLOCK = "_block"


@dataclass(frozen=True)
class Piece:
    """Rows of one block, or of a segment of it; `too_long` more were left out for their length."""

    block: int
    rows: pl.DataFrame
    too_long: int


class Selection:
    """Which rows of a source belong to a feed, in one phase of it.

    Args:
        spec: the feed's.
        phase: of its curriculum.
        share: (index, count): only the rows with `example_id mod count == index`.
        columns: the columns to give; None gives those of the tensor form.

    Raises:
        FeedError: the spec's filter is no condition, or a Polars expression that this program has not passed.
    """

    def __init__(self, spec: FeedSpec, phase: int, share: tuple[int, int], columns: tuple[str, ...] | None) -> None:
        family, form = family_named(spec.family), form_of(spec.family)
        self._kind = (family.name, CLEAN, spec.schema_version)
        tests = [pl.col("split") == spec.split] if spec.split is not None else []
        if spec.curriculum is not None:
            tests.append(_in_phase(spec, phase))
        if share[1] > 1:
            tests.append(pl.col("example_id") % share[1] == share[0])
        self._belongs = pl.all_horizontal(tests) if tests else None
        self._where = None if spec.where is None else spec.where.test(family.wire)
        self._tokens, self._max_tokens = form.tokens, spec.max_tokens
        given = (*form.columns, "example_id") if columns is None else columns
        needed = {*given, *form.tokens.meta.root_names()}
        for test in tests:
            needed.update(test.meta.root_names())
        if self._where is not None:
            needed.update(self._where.columns)
        self._columns = {name: kind for name, kind in family.wire.items() if name in needed}
        self.schema = {name: family.wire[name] for name in given} | LINEAGE | {TOKENS: pl.Int64()}

    def of(self, records: Sequence[tuple[int, Record]], topic: str, source: int) -> Iterator[Piece]:
        """Yield the rows that belong, with lineage, of each block that has records here.

        Args:
            records: (number of the block, record), in reading order; at least one.
            topic: that they were read from.
            source: number of it in the feed.

        Raises:
            FeedError: a record cannot be decoded, is of another type or version, or holds a value for which the filter
                fails.
        """
        read = [record for _, record in records]
        frame, counts = decode_records(read, topic, self._kind, self._columns, FeedError)
        blocks = pl.Series(_BLOCK, np.repeat([number for number, _ in records], counts), dtype=pl.Int64())
        chosen = frame.with_columns(*_lineage(read, counts, source), self._tokens.alias(TOKENS), blocks)
        if self._belongs is not None:
            chosen = chosen.filter(self._belongs)
        if self._where is not None:
            chosen = chosen.filter(self._where.mask(chosen))
        rows = chosen
        # Most blocks hold none that is too long, and a filter costs as much as all the rest.
        if chosen[TOKENS].to_numpy().max(initial=0) > self._max_tokens:
            rows = chosen.filter(pl.col(TOKENS) <= self._max_tokens)
        numbers = list(dict.fromkeys(number for number, _ in records))
        kept, all_chosen = (_cuts(each[_BLOCK], numbers) for each in (rows, chosen))
        rows = rows[list(self.schema)]
        for index, number in enumerate(numbers):
            (begin, end), (first, last) = kept[index], all_chosen[index]
            yield Piece(number, rows[begin:end], (last - first) - (end - begin))


def _cuts(blocks: pl.Series, numbers: Sequence[int]) -> list[tuple[int, int]]:
    """Return where the rows of each numbered block begin and end in the ascending column of block numbers."""
    column = blocks.to_numpy()
    begins, ends = (np.searchsorted(column, numbers, side).tolist() for side in ("left", "right"))
    return list(zip(begins, ends, strict=True))


def _lineage(records: Sequence[Record], counts: npt.NDArray[np.int64], source: int) -> list[pl.Series]:
    """Return the lineage columns of the records' rows, one record after the other."""
    total = int(counts.sum())
    found = {
        SOURCE: np.full(total, source),
        PARTITION: np.repeat([record.partition for record in records], counts),
        OFFSET: np.repeat([record.offset for record in records], counts),
        ROW: np.arange(total) - np.repeat(np.cumsum(counts) - counts, counts),
    }
    return [pl.Series(name, values, dtype=LINEAGE[name]) for name, values in found.items()]


def _in_phase(spec: FeedSpec, phase: int) -> pl.Expr:
    curriculum = spec.curriculum
    assert curriculum is not None  # noqa: S101  # told by the caller; for the type checker
    column, edges = pl.col(curriculum.column), curriculum.edges
    above = pl.lit(True) if phase == 0 or curriculum.cumulative else column >= edges[phase - 1]
    below = column < edges[phase] if phase < len(edges) else pl.lit(True)
    return above & below


class SourceStream:
    """A source's rows from a place on; a context manager.

    Args:
        connection: the broker to read from.
        spec: the feed's.
        number: of the source in the spec.
        epoch: of the pass.
        phase: of the curriculum.
        place: where to begin.
        selection: which rows belong.

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
        # A shuffled feed jumps from block to block, and what a fetch brings beyond one is thrown away.
        self._fetch_bytes = None if spec.shuffle_seed is None else _JUMP_FETCH_BYTES
        self._held = pl.DataFrame(schema=selection.schema)
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
        """Rows left out for their length in the pass, in what was read so far."""
        return self._too_long

    def take(self, rows: int) -> list[pl.DataFrame]:
        """Return the next `rows` rows as pieces; fewer where the source ends and does not repeat."""
        taken = []
        while rows:
            if not self._held.height:
                piece = next(self._pieces, None)
                if piece is None:
                    break
                self._held = piece
            part = self._held[:rows]
            self._held = self._held[part.height :]
            at = self._place
            self._place = Place(at.round, at.block, at.row + part.height, at.too_long)
            rows -= part.height
            taken.append(part)
        return taken

    def _read(self, place: Place) -> Generator[pl.DataFrame, None, None]:
        """Yield rows, block by block; `_place` is then at the first of them."""
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
                    f"{self._source.topic} is to repeat and has no rows that belong to the feed: "
                    "widen the filter or the split, or leave this source out"
                )

    def _read_round(self, at: Place) -> Iterator[pl.DataFrame]:
        order = reading_order(self._spec, self._number, self._epoch, self._phase, at)[at.block :]
        skipped = at.row
        # The block that is being read, how many of its rows were yielded, and what was left out before it.
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
                        # What stands before a block is what a stream that begins with it has to be told.
                        begin = behind + piece.rows.height - rows.height
                        self._place = Place(at.round, at.block + here, begin, too_long)
                        yield rows
                    behind += piece.rows.height


def _gathered(numbered: Iterator[tuple[int, Record]]) -> Iterator[list[tuple[int, Record]]]:
    """Yield (number of the block, record) in lists that are worth decoding together.

    A list ends with a block, or with a segment of one. Where segments end follows from the block alone, and not from
    where reading began.
    """
    found: list[tuple[int, Record]] = []
    found_bytes = segment_bytes = 0
    for number, record in numbered:
        if found and found[-1][0] != number:
            segment_bytes = 0
            if found_bytes >= _DECODE_BYTES:
                yield found
                found, found_bytes = [], 0
        elif segment_bytes >= _SEGMENT_BYTES:
            yield found
            found, found_bytes, segment_bytes = [], 0, 0
        found.append((number, record))
        found_bytes += len(record.value)
        segment_bytes += len(record.value)
    if found:
        yield found
