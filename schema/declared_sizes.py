"""Read the declared size of an Arrow IPC stream without decompressing it (compiled).

An IPC stream is a sequence of messages. A message is a mark, the length of its metadata, the metadata (a flatbuffer)
and a body. The metadata of a batch lists its field nodes (lengths of arrays) and its buffers (offset and length in the
body). A compressed buffer begins with its uncompressed length. Arrow allocates exactly that length and refuses a buffer
that yields more or less. So decoding allocates the sum of those lengths.

The layout is that of `Message.fbs` and `Schema.fbs` of the Arrow format, metadata version V5.
"""

from __future__ import annotations

import numpy as np

from schema.compiled import compiled

# Sums stop at this number, far above any limit, so that no declared length can overflow them.
MOST = np.int64(1 << 50)
# The most memory that an item of a nested array takes beside its buffers: a string view.
_ITEM_BYTES = np.int64(16)
_MARK = 0xFFFFFFFF
# Message.fbs: MessageHeader and MetadataVersion.
_SCHEMA, _DICTIONARY, _RECORD_BATCH = 1, 2, 3
_V5 = 4


@compiled
def stream_sizes(data):  # type: ignore[no-untyped-def] # pragma: no cover
    """Return (is_sound, rows, bytes) of an Arrow IPC stream, `data` (N,) uint8; sums stop at `MOST`.

    `is_sound` is false if a message that was read does not follow the Arrow format.
    """
    at = np.int64(0)
    rows = np.int64(0)
    total = np.int64(0)
    while at < data.size:
        if data.size - at >= 4 and _unsigned(data, at, 4) == 0:
            break
        if data.size - at < 8 or _unsigned(data, at, 4) != _MARK:
            return False, rows, total
        length = _unsigned(data, at + 4, 4)
        if length == 0:
            break
        begin = at + 8
        end = begin + length
        if end > data.size:
            return False, rows, total
        message = _table(data, begin, begin, end)
        kind_at = _field(data, message, 1, begin, end)
        header = _child(data, message, 2, begin, end)
        if message < 0 or kind_at < 0 or header < 0:
            return False, rows, total
        version_at = _field(data, message, 0, begin, end)
        version = _unsigned(data, version_at, 2) if version_at >= 0 else 0
        # Before V5 a stream could use an experimental compression, which its custom metadata named.
        if version > _V5 or (version < _V5 and _field(data, message, 4, begin, end) >= 0):
            return False, rows, total
        body_at = _field(data, message, 3, begin, end)
        body = _signed(data, body_at) if body_at >= 0 and body_at + 8 <= end else np.int64(0)
        if body < 0 or body > data.size - end:
            return False, rows, total
        kind = data[kind_at]
        if kind == _DICTIONARY:
            header = _child(data, header, 1, begin, end)
        if kind == _RECORD_BATCH or kind == _DICTIONARY:  # noqa: SIM109 - compiled code would make a tuple
            is_sound, height, size = _batch_sizes(data, header, begin, end, body, kind == _RECORD_BATCH)
            if not is_sound:
                return False, rows, total
            total = min(total + size, MOST)
            if kind == _RECORD_BATCH:
                rows = min(rows + height, MOST)
        elif kind != _SCHEMA:
            return False, rows, total
        at = end + body
    return True, rows, total


@compiled
def _batch_sizes(data, table, begin, end, body, is_rows):  # type: ignore[no-untyped-def] # pragma: no cover
    """Return (is_sound, rows, bytes) of the RecordBatch table at `table`, whose body of `body` bytes is at `end`."""
    height = np.int64(0)
    total = np.int64(0)
    if table < 0:
        return False, height, total
    length_at = _field(data, table, 0, begin, end)
    if length_at >= 0:
        if length_at + 8 > end:
            return False, height, total
        height = _signed(data, length_at)
    if height < 0:
        return False, height, total
    height = min(height, MOST)
    nodes, count = _vector(data, table, 1, begin, end)
    if count < 0:
        return False, height, total
    for node in range(count):
        # Arrays of nulls or of empty structs have a length and no buffers.
        beyond = _signed(data, nodes + node * 16) - (height if is_rows else 0)
        if beyond > 0:
            total = min(total + min(beyond, MOST) * _ITEM_BYTES, MOST)
    is_compressed = _field(data, table, 3, begin, end) >= 0
    buffers, count = _vector(data, table, 2, begin, end)
    if count < 0:
        return False, height, total
    for buffer in range(count):
        offset = _signed(data, buffers + buffer * 16)
        size = _signed(data, buffers + buffer * 16 + 8)
        if offset < 0 or size < 0 or offset > body or size > body - offset:
            return False, height, total
        if is_compressed and size > 0:
            if size < 8:
                return False, height, total
            declared = _signed(data, end + offset)
            # -1: this buffer is not compressed.
            if declared < -1:
                return False, height, total
            size = size - 8 if declared == -1 else declared
        total = min(total + min(size, MOST), MOST)
    return True, height, total


@compiled
def _table(data, at, begin, end):  # type: ignore[no-untyped-def] # pragma: no cover
    """Return the position of the table that the offset at `at` refers to; -1 if it is outside [begin, end)."""
    if at < begin or at + 4 > end:
        return np.int64(-1)
    table = at + _unsigned(data, at, 4)
    return table if table + 4 <= end else np.int64(-1)


@compiled
def _field(data, table, number, begin, end):  # type: ignore[no-untyped-def] # pragma: no cover
    """Return the position of field `number` of a table; -1 if the field is missing or the table is malformed."""
    if table < begin or table + 4 > end:
        return np.int64(-1)
    back = _unsigned(data, table, 4)
    # The offset to a table's list of fields is signed.
    entries = table - (back if back < (1 << 31) else back - (1 << 32))
    if entries < begin or entries + 4 > end:
        return np.int64(-1)
    entry = entries + 4 + 2 * number
    if 4 + 2 * number + 2 > _unsigned(data, entries, 2) or entry + 2 > end:
        return np.int64(-1)
    offset = _unsigned(data, entry, 2)
    if offset == 0 or table + offset + 1 > end:
        return np.int64(-1)
    return table + offset


@compiled
def _child(data, table, number, begin, end):  # type: ignore[no-untyped-def] # pragma: no cover
    """Return the position of the table in field `number` of a table; -1 if it is missing."""
    at = _field(data, table, number, begin, end)
    return _table(data, at, begin, end)


@compiled
def _vector(data, table, number, begin, end):  # type: ignore[no-untyped-def] # pragma: no cover
    """Return (position of the items, their number) of a vector of 16-byte structs; (0, -1) if it is malformed."""
    at = _field(data, table, number, begin, end)
    if at < 0:
        return np.int64(0), np.int64(0)
    vector = _table(data, at, begin, end)
    if vector < 0:
        return np.int64(0), np.int64(-1)
    count = _unsigned(data, vector, 4)
    if count * 16 > end - vector - 4:
        return np.int64(0), np.int64(-1)
    return vector + 4, count


@compiled
def _unsigned(data, at, size):  # type: ignore[no-untyped-def] # pragma: no cover
    value = np.int64(0)
    for byte in range(size):
        value |= np.int64(data[at + byte]) << (8 * byte)
    return value


@compiled
def _signed(data, at):  # type: ignore[no-untyped-def] # pragma: no cover
    return _unsigned(data, at, 8)
