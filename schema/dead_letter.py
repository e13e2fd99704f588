"""Dead letters: records of `rejected` that hold unreadable bytes, with the reason in their headers.

The lines of one raw record that were refused for the same reason share a letter. Every other record of `rejected` holds
its rows as columns. Some header names are those of Kafka Connect, so that existing dead-letter tools can read them:

- `__connect.errors.topic|partition|offset|stage|exception.class.name|exception.message`: the raw record's place, and
  the reason as text.
- `feedmill-reason`: the reason code, as in the ledger.
- `feedmill-rows`: how many rows of the ledger's counts are in the letter.
- `feedmill-round`: how many times these bytes became a dead letter; 1 unless somebody sent a letter again.
- `feedmill-redrive-of`: on a record of raw that `feedmill redrive` sent: the letter's topic id (of `rejected`),
  partition and offset. A letter with that name is not sent a second time.
- `feedmill-source-file`, `feedmill-line`, `feedmill-lines`: the file, the number of the first line, and the numbers of
  all lines, if the sender gave them (`schema.source_lines`).
- `feedmill-dropped-headers`: names of the record's headers that did not fit into the letter, in this round or before.

All other headers are those of the record as it was sent; `original_headers` returns them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from schema.decoded_size import declared_size
from schema.envelope import Headers, header_text
from schema.source_lines import LINES_HEADER, line_ranges

CONNECT_PREFIX = "__connect.errors."
REASON_HEADER = "feedmill-reason"
ROWS_HEADER = "feedmill-rows"
ROUND_HEADER = "feedmill-round"
LINE_HEADER = "feedmill-line"
DROPPED_HEADER = "feedmill-dropped-headers"
REDRIVE_HEADER = "feedmill-redrive-of"

# Headers as Kafka returns them: a header of another program may have no value.
AnyHeaders = Sequence[tuple[str, bytes | None]]

# Headers that a letter writes itself. Those of an earlier round are replaced or dropped, so that rounds add no headers.
_OWN = frozenset({REASON_HEADER, ROWS_HEADER, LINE_HEADER, REDRIVE_HEADER})
# The record's headers are kept up to this total size: more could push a letter over the topic's limit.
_KEPT_BYTES = 16 * 1024
_MESSAGE_CHARS = 500
_DROPPED_CHARS = 256
# No record can hold more rows.
_MOST_ROWS = 10**9


@dataclass(frozen=True)
class Refusal:
    """Why some lines of a raw record, or the whole record, could not become rows.

    Attributes:
        topic, partition, offset: the place of the raw record.
        reason, message: the reason code, and a sentence for people.
        rows: how many rows the ledger counts for the refused bytes.
        lines: the numbers of the refused lines in the sender's file, ascending; None if unknown.
    """

    topic: str
    partition: int
    offset: int
    reason: str
    message: str
    rows: int = 1
    lines: Sequence[int] | None = None


def letter_headers(refusal: Refusal, headers: Headers) -> list[tuple[str, bytes]]:
    """Return the headers of a dead letter for bytes of a record that came with `headers`."""
    own = {
        f"{CONNECT_PREFIX}topic": refusal.topic,
        f"{CONNECT_PREFIX}partition": str(refusal.partition),
        f"{CONNECT_PREFIX}offset": str(refusal.offset),
        f"{CONNECT_PREFIX}stage": "VALUE_CONVERTER",
        f"{CONNECT_PREFIX}exception.class.name": "schema.errors.RecordError",
        f"{CONNECT_PREFIX}exception.message": f"{refusal.reason}: {refusal.message}"[:_MESSAGE_CHARS],
        REASON_HEADER: refusal.reason,
        ROWS_HEADER: str(refusal.rows),
        ROUND_HEADER: str(_number(headers, ROUND_HEADER, 0) + 1),
    }
    if refusal.lines:
        own |= {LINE_HEADER: str(refusal.lines[0]), LINES_HEADER: line_ranges(refusal.lines)}
    others = [(name, value) for name, value in headers if not _is_own(name) and name not in own]
    kept, dropped = _fitting((name, value) for name, value in others if name != DROPPED_HEADER)
    # The names from an earlier round come first, because those headers are already gone.
    earlier = header_text(headers, DROPPED_HEADER)
    dropped = dropped if earlier is None else [earlier, *dropped]
    if dropped:
        names = ",".join(name[:_DROPPED_CHARS] for name in dropped)
        own[DROPPED_HEADER] = names if len(names) <= _DROPPED_CHARS else f"{names[: _DROPPED_CHARS - 3]}..."
    return kept + [(name, text.encode("utf-8", "replace")) for name, text in own.items()]


def original_headers(headers: AnyHeaders) -> list[tuple[str, bytes]]:
    """Return the headers for sending a dead letter to raw again: the record's own, the round, the dropped names."""
    return [(name, value) for name, value in headers if not _is_own(name) and value is not None]


def is_dead_letter(headers: AnyHeaders) -> bool:
    """Return whether a record of `rejected` with these headers is a dead letter."""
    return any(name.startswith(CONNECT_PREFIX) for name, _ in headers)


def reason_of(headers: AnyHeaders) -> str:
    """Return the reason code of a dead letter; for another program's letter, the name of its exception class."""
    return header_text(headers, REASON_HEADER) or header_text(headers, f"{CONNECT_PREFIX}exception.class.name") or ""


def rejected_rows(value: bytes | None, headers: AnyHeaders) -> int:
    """Return how many rows the ledger counts for a record of `rejected`, without decoding the record.

    For a dead letter this is its header `feedmill-rows`, or 1 without that header. For any other record it is the
    number of rows that the Arrow batches declare.
    """
    if is_dead_letter(headers):
        return _number(headers, ROWS_HEADER, 1)
    return declared_size(value).rows


def _is_own(name: str) -> bool:
    return name.startswith(CONNECT_PREFIX) or name in _OWN


def _fitting(headers: Iterable[tuple[str, bytes]]) -> tuple[list[tuple[str, bytes]], list[str]]:
    """Return the headers that fit into a letter, in order, and the names of the others."""
    kept: list[tuple[str, bytes]] = []
    dropped: list[str] = []
    room = _KEPT_BYTES
    for name, value in headers:
        size = len(name.encode("utf-8", "replace")) + len(value or b"")
        if value is None or size > room:
            dropped.append(name)
        else:
            kept.append((name, value))
            room -= size
    return kept, dropped


def _number(headers: AnyHeaders, name: str, default: int) -> int:
    text = header_text(headers, name) or ""
    return min(int(text), _MOST_ROWS) if re.fullmatch("[0-9]{1,12}", text) else default
