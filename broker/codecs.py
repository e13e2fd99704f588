"""Limit the decompressed size of a batch of records in kafka-python and aiokafka, which have no limit of their own.

A batch of some kilobytes can hold gigabytes. `bound_kafka_python` and `bound_aiokafka` replace the clients' decoders.
The new decoders give the same results, but raise `BatchTooLargeError` at `BATCH_LIMIT_BYTES`. The replaced parts are
private, so the clients' versions are pinned.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable
from functools import wraps
from typing import Any

import lz4.frame
import zstandard
from kafka.errors import KafkaError
from kafka.record import default_records as kafka_default
from kafka.record import legacy_records as kafka_legacy

# Sixteen times the largest record of raw (8 MiB).
BATCH_LIMIT_BYTES = 128 * 1024 * 1024

_XERIAL_MARK = b"\x82SNAPPY\x00"
_XERIAL_HEADER_BYTES = 16
_LONGEST_VARINT_BYTES = 10

Decoder = Callable[[Any], bytes]


class BatchTooLargeError(KafkaError):  # type: ignore[misc]  # untyped base
    """A compressed batch holds more than `BATCH_LIMIT_BYTES`."""


def bound_kafka_python() -> None:
    """Limit what kafka-python decompresses; the error then names the batch's offset. Safe to call again."""
    for module in (kafka_default, kafka_legacy):
        _replace(module)
    batch = kafka_default.DefaultRecordBatch
    if not hasattr(batch, "_unbounded"):
        batch._unbounded = batch._maybe_uncompress
        batch._maybe_uncompress = _located(batch._unbounded)


def bound_aiokafka() -> None:
    """Limit what aiokafka decompresses. Safe to call again."""
    # Imported here, because aiokafka takes long to import and only workers need it.
    from aiokafka.record import default_records, legacy_records
    from aiokafka.record._crecords import default_records as compiled_default
    from aiokafka.record._crecords import legacy_records as compiled_legacy

    for module in (default_records, legacy_records, compiled_default, compiled_legacy):
        _replace(module)


def _replace(module: Any) -> None:
    for name, decode in (("zstd_decode", _zstd), ("gzip_decode", _gzip), ("lz4_decode", _lz4)):
        if hasattr(module, name):
            setattr(module, name, decode)
    if hasattr(module, "snappy_decode") and not hasattr(module.snappy_decode, "__wrapped__"):
        module.snappy_decode = _snappy(module.snappy_decode)


def _located(uncompress: Callable[[Any], None]) -> Callable[[Any], None]:
    @wraps(uncompress)
    def bounded(batch: Any) -> None:
        try:
            uncompress(batch)
        except BatchTooLargeError as error:
            raise BatchTooLargeError(f"the batch at offset {batch.base_offset}: {error.args[0]}") from None

    return bounded


def _checked(data: bytes) -> bytes:
    if len(data) > BATCH_LIMIT_BYTES:
        raise _too_large()
    return data


def _too_large() -> BatchTooLargeError:
    return BatchTooLargeError(f"over {BATCH_LIMIT_BYTES} bytes once decompressed: send smaller batches")


def _zstd(payload: Any) -> bytes:
    with zstandard.ZstdDecompressor().stream_reader(io.BytesIO(bytes(payload)), read_across_frames=True) as reader:
        return _checked(reader.read(BATCH_LIMIT_BYTES + 1))


def _gzip(payload: Any) -> bytes:
    data, parts, size = bytes(payload), [], 0
    while data:
        member = zlib.decompressobj(wbits=31)
        parts.append(member.decompress(data, BATCH_LIMIT_BYTES + 1 - size))
        size += len(parts[-1])
        if size > BATCH_LIMIT_BYTES or member.unconsumed_tail:
            raise _too_large()
        if not member.eof:
            raise EOFError("a gzip batch is cut off")
        data = member.unused_data
    return b"".join(parts)


def _lz4(payload: Any) -> bytes:
    frame = lz4.frame.LZ4FrameDecompressor()
    data = _checked(frame.decompress(bytes(payload), BATCH_LIMIT_BYTES + 1))
    if not frame.eof:
        raise EOFError("an lz4 batch is cut off")
    return data


def _snappy(decode: Decoder) -> Decoder:
    @wraps(decode)
    def bounded(payload: Any) -> bytes:
        if _snappy_bytes(bytes(payload)) > BATCH_LIMIT_BYTES:
            raise _too_large()
        return decode(payload)

    return bounded


def _snappy_bytes(data: bytes) -> int:
    """Return the length that snappy blocks declare; the decoder allocates this length and refuses any other."""
    if not data.startswith(_XERIAL_MARK):
        return _varint(data, 0)
    total, at = 0, _XERIAL_HEADER_BYTES
    while at + 4 <= len(data):
        total += _varint(data, at + 4)
        at += 4 + int.from_bytes(data[at : at + 4], "big")
    return total


def _varint(data: bytes, at: int) -> int:
    value = 0
    for index, byte in enumerate(data[at : at + _LONGEST_VARINT_BYTES]):
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            break
    return value
