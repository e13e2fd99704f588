"""Cut a group of raw records into pieces by the memory that their rows will take.

The size of a group is limited only by its number of records, and one record may hold a thousand rows or a million. A
piece is one transaction; a record that alone exceeds the limit is a piece of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from schema.decoded_size import STREAM_MARK, declared_bytes
from streams.refine.decode import RawRecord

# An ordinary group of 60 micro-batches of reductions holds some 45 MB of rows.
PIECE_BYTES = 96 * 1024 * 1024
# JSON is first parsed to Python objects, which take this many times as much memory.
_JSON_FACTOR = 8


def pieces(records: Sequence[RawRecord], row_bytes: int, limit_bytes: int = PIECE_BYTES) -> Iterator[list[RawRecord]]:
    """Yield `records` in order, in lists whose rows take at most `limit_bytes` of memory, by the sizes they declare.

    `row_bytes` is the memory that any row takes at least.
    """
    piece: list[RawRecord] = []
    size = 0
    for record in records:
        value = record.value or b""
        factor = 1 if value.startswith(STREAM_MARK) else _JSON_FACTOR
        weight = factor * declared_bytes(value, row_bytes)
        if piece and size + weight > limit_bytes:
            yield piece
            piece, size = [], 0
        piece.append(record)
        size += weight
    if piece:
        yield piece
