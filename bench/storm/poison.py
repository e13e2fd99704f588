"""Records that no producer should send: each must become dead letters and must not stop a worker."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from schema.dead_letter import CONNECT_PREFIX
from schema.record import JSON, RAW, Envelope, encode
from schema.reduction import FAMILY

Headers = list[tuple[str, Any]]
_ARROW: Headers = list(Envelope(FAMILY.name, RAW, FAMILY.version, "storm", 0, 0, 1).headers())
_JSON: Headers = [("content-type", JSON.encode())]
CODECS = ("snappy", "lz4", "zstd", "gzip")


@dataclass(frozen=True)
class Poison:
    """One record: its bytes, headers and timestamp, and the compression that Kafka's client gives its batch."""

    kind: str
    value: bytes | None
    headers: Headers = field(default_factory=list)
    timestamp_ms: int | None = None
    codec: str | None = None


def poisons(rng: random.Random, lines: Sequence[bytes]) -> list[Poison]:
    """Return one record of each kind, in a random order; `lines` are good rows as JSON."""
    records = [Poison(kind, make(rng), headers) for kind, headers, make in _VALUES]
    records += [Poison(f"kafka_{codec}", b"\n".join(rng.sample(lines, 3)), _JSON, codec=codec) for codec in CODECS]
    records += [Poison(f"headers_{number}", rng.choice(lines), headers) for number, headers in enumerate(_ODD_HEADERS)]
    records += [Poison("old_timestamp", rng.choice(lines), _JSON, timestamp_ms=ms) for ms in (0, -1, -(2**62))]
    rng.shuffle(records)
    return records


def _row(**changes: Any) -> bytes:
    row = {"term": "(\\.0)(\\.0)", "step_k": 0, "steps_total": 1, "trace_id": "storm", "target_span": [0, 10]}
    return json.dumps({**row, "outcome": "normal_form", **changes}).encode()


def _frame(terms: Sequence[str]) -> bytes:
    columns = {name: [None] * len(terms) for name in FAMILY.wire} | {"term": terms}
    return encode(pl.DataFrame(columns, schema=dict(FAMILY.wire)))


def _truncated(rng: random.Random) -> bytes:
    whole = _frame(["(\\.0)(\\.0)"] * 50)
    return whole[: rng.randrange(1, len(whole))]


def _flipped(rng: random.Random) -> bytes:
    whole = bytearray(_frame(["(\\.0)(\\.0)"] * 50))
    for _ in range(20):
        whole[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
    return bytes(whole)


_VALUES: tuple[tuple[str, Headers, Callable[[random.Random], bytes | None]], ...] = (
    ("garbage", _ARROW, lambda rng: rng.randbytes(rng.randrange(1, 5000))),
    ("garbage_json", [], lambda rng: rng.randbytes(rng.randrange(1, 5000))),
    ("truncated", _ARROW, _truncated),
    ("flipped_bits", _ARROW, _flipped),
    ("tombstone", [], lambda rng: None),
    ("oversized_record", _ARROW, lambda rng: rng.randbytes(3_000_000)),
    ("oversized_row", _ARROW, lambda rng: _frame(["0" * 2_000_000])),
    # About 10 kB that decompress to 60 MB, and half a million rows of nulls.
    ("bomb_of_bytes", _ARROW, lambda rng: _frame(["0" * 60_000] * 1000)),
    ("bomb_of_rows", _ARROW, lambda rng: encode(pl.DataFrame({"term": pl.Series([None] * 500_000, dtype=pl.String)}))),
    ("empty_rows", _JSON, lambda rng: b"{}\n" * 20_000),
    ("big_integers", _JSON, lambda rng: _row(target_span=[2**70, -(2**90)], step_k=2**64, seed=10**400)),
    ("wrong_types", _JSON, lambda rng: _row(term=7, step_k="x", target_span={"a": []}, trace_id=None)),
    ("no_numbers", _JSON, lambda rng: _row(growth=float("nan"), initial_size=float("inf"))),
    ("deep_json", _JSON, lambda rng: b"[" * 50_000),
    ("bad_lines", _JSON, lambda rng: b"\n".join([_row(trace_id="t"), b"{", b"[]", b"\xff\xfe", b"null"])),
    ("surrogates", _JSON, lambda rng: b'{"term": "\\ud800", "trace_id": "\\udfff"}'),
)

_ODD_HEADERS: tuple[Headers, ...] = (
    [("content-type", b"application/\xff\xff")],
    [("ce_type", b"feedmill.reduction.raw.v9")],
    [("ce_type", b"feedmill.poetry.raw.v1")],
    [("ce_type", b"feedmill.reduction.clean.v1"), *_JSON],
    [("feedmill-run", b"r" * 600_000), *_JSON],
    [("feedmill-source", b"feedmill.reduction.raw/0/0-999999999"), *_JSON],
    [("feedmill-rows", b"-1"), ("feedmill-chunk", b"9" * 40), *_JSON],
    [(f"{CONNECT_PREFIX}offset", b"0"), (f"{CONNECT_PREFIX}topic", b"x"), *_JSON],
    [("", b""), ("x" * 3000, b"\x00"), *[("many", b"1")] * 500, *_JSON],
)
