"""Dead letters and rejected rows: the parts of the raw record that they keep, and how they count."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schema import ledger
from schema.dead_letter import (
    REDRIVE_HEADER,
    Refusal,
    is_dead_letter,
    letter_headers,
    original_headers,
    reason_of,
    rejected_rows,
)
from schema.record import RAW, REJECTED, Envelope, Headers, decode, encode
from schema.reduction import FAMILY
from schema.settings import Settings, load_settings
from schema.source_lines import source_headers
from streams.refine.decode import RawRecord, RecordLimits, read_group
from streams.refine.judge import Verdicts, judge
from streams.refine.ledger_entries import entries
from streams.refine.outbound import Group, OutRecord, outbound
from streams.refine.state import State
from tests import reductions

LIMITS = RecordLimits(record_bytes=1_000_000, rows=10_000, row_bytes=900_000, decoded_bytes=10_000_000)
ARROW = Envelope("reduction", "raw", 1, "r", 4, 0, 1).headers()


def refined(records: list[RawRecord], partitions: int = 1) -> tuple[list[OutRecord], pl.DataFrame, Verdicts]:
    """The records that one group sends, its ledger entries, and its verdicts."""
    settings: Settings = load_settings()
    intake = read_group(records, FAMILY, LIMITS)
    verdicts = judge(intake.frame, FAMILY, 0, partitions, State.empty(FAMILY, settings))
    ledger_entries = entries(records, intake, verdicts, np.zeros(len(records), dtype=np.int64), FAMILY)
    none = verdicts.clean.head(0).select(*FAMILY.wire, "record").with_columns(partition=pl.lit(0, pl.Int32))
    return (
        list(outbound(Group(FAMILY, records, intake), verdicts, ledger_entries, none, settings)),
        ledger_entries,
        verdicts,
    )


def letters(value: bytes, headers: Headers, key: bytes | None = None) -> list[OutRecord]:
    sent, _, _ = refined([RawRecord("raw", 0, 5, 0, value, headers, key)])
    return [record for record in sent if is_dead_letter(record.headers)]


def test_a_letter_keeps_key_bytes_and_headers_of_the_record() -> None:
    (letter,) = letters(b"no json", [("mine", b"1"), ("feedmill-run", b"r"), ("mine", b"2")], key=b"order-7")
    assert (letter.key, letter.value) == (b"order-7", b"no json")
    assert letter.headers[:3] == [("mine", b"1"), ("feedmill-run", b"r"), ("mine", b"2")]
    assert reason_of(letter.headers) == "not_json"


def test_headers_that_do_not_fit_are_named() -> None:
    given_headers = [("small", b"1"), ("huge", b"x" * 600_000), ("feedmill-run", b"r" * 600_000), ("last", b"2")]
    (letter,) = letters(b"no json", given_headers)
    headers = dict(letter.headers)
    assert (headers["small"], headers["last"]) == (b"1", b"2")
    assert headers["feedmill-dropped-headers"] == b"huge,feedmill-run"
    many = [(f"header-{number}", b"x" * 1000) for number in range(1000)]
    (letter,) = letters(b"no json", many)
    assert len(dict(letter.headers)["feedmill-dropped-headers"]) <= 256
    assert sum(len(name) + len(value) for name, value in letter.headers) < 20_000


def test_a_letter_that_is_sent_again_has_as_many_headers_each_round() -> None:
    headers: Headers = [("mine", b"1"), *source_headers("f.jsonl", [4])]
    sizes, rounds = [], []
    for _ in range(5):
        (letter,) = letters(b"no json", headers)
        sizes.append(len(letter.headers))
        rounds.append(dict(letter.headers)["feedmill-round"])
        # Dead-letter tools send all headers along.
        headers = letter.headers
    assert len(set(sizes)) == 1
    assert rounds == [b"1", b"2", b"3", b"4", b"5"]
    own = [("mine", b"1"), *source_headers("f.jsonl", [4]), ("feedmill-round", b"5")]
    assert sorted(original_headers(headers)) == sorted(own)


own_names = [REDRIVE_HEADER, "feedmill-round", "feedmill-rows", "feedmill-lines", "feedmill-dropped-headers", "a"]
a_header = st.tuples(
    st.sampled_from(own_names) | st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    st.binary(max_size=20) | st.sampled_from([b"x" * 9_000, b"1-3"]),
)


@given(st.lists(a_header, max_size=12), st.none() | st.just([4, 5]))
def test_rounds_neither_add_nor_lose_header_names(headers: Headers, lines: list[int] | None) -> None:
    refusal = Refusal("raw", 0, 5, "not_json", "no", lines=lines)
    first = letter_headers(refusal, headers)
    again = letter_headers(refusal, [*original_headers(first), (REDRIVE_HEADER, b"id/0/1")])
    assert sorted(name for name, _ in again) == sorted(name for name, _ in first)
    counted = {"feedmill-round"}
    assert [each for each in again if each[0] not in counted] == [each for each in first if each[0] not in counted]
    assert int(dict(again)["feedmill-round"]) == int(dict(first)["feedmill-round"]) + 1


def test_a_forged_round_is_bounded() -> None:
    for claimed in (b"9" * 5000, b"-1", b"x", b"999999999999"):
        (letter,) = letters(b"no json", [("feedmill-round", claimed)])
        assert int(dict(letter.headers)["feedmill-round"]) <= 10**9 + 1


line = st.sampled_from([b"no json", b"[]", b'{"term": 5}', json.dumps({"term": "0"}).encode()])


@pytest.mark.slow
@given(
    st.lists(st.lists(line, min_size=1, max_size=30).map(b"\n".join) | st.just(b"\xff\n\xfe"), min_size=1, max_size=6)
)
def test_the_ledger_and_rejected_agree_on_every_row(values: list[bytes]) -> None:
    sent, ledger_entries, _ = refined([RawRecord("raw", 0, 5 + n, 0, value, ()) for n, value in enumerate(values)])
    counted = sum(rejected_rows(record.value, record.headers) for record in sent if record.stage == REJECTED)
    assert ledger_entries["rows_rejected"].sum() == counted
    assert ledger_entries.filter(
        pl.col("rows_in") != pl.col("rows_clean") + pl.col("rows_rejected") + pl.col("rows_rerouted")
    ).is_empty()
    assert ledger_entries["rows_in"].to_list() == [
        1 if value == b"\xff\n\xfe" else value.count(b"\n") + 1 for value in values
    ]
    by_reason = ledger_entries.select(pl.col("reasons").explode(empty_as_null=False)).unnest("reasons")
    dead = [record for record in sent if is_dead_letter(record.headers)]
    for reason in {reason_of(letter.headers) for letter in dead}:
        rows = by_reason.filter(pl.col("reason") == reason)["rows"].sum()
        assert rows == sum(rejected_rows(r.value, r.headers) for r in dead if reason_of(r.headers) == reason)


def test_rejected_rows_have_their_source_file_and_line() -> None:
    document = {"term": "(\\.0)(\\.0)", "step_k": 0, "steps_total": 1, "trace_id": "t", "target_span": [0, 9]}
    lines = [json.dumps({**document, "trace_id": str(number)}).encode() for number in range(4)]
    lines.insert(2, b"no json")
    headers = [("content-type", b"application/json"), *source_headers("some.jsonl", [1, 2, 3, 5, 6])]
    plain = RawRecord("raw", 0, 4, 0, encode(reductions.valid(2).with_columns(step_k=pl.lit(9, pl.Int32))), ARROW)
    sent, _, verdicts = refined([plain, RawRecord("raw", 0, 5, 0, b"\n".join(lines), headers)])
    assert verdicts.clean.is_empty()
    (rows,) = [record for record in sent if record.stage == REJECTED and not is_dead_letter(record.headers)]
    columns = {"source_file": pl.String(), "source_line": pl.Int64(), "source_offset": pl.Int64()}
    assert decode(rows.value, columns, 100).rows() == [
        (None, None, 4),
        (None, None, 4),
        ("some.jsonl", 1, 5),
        ("some.jsonl", 2, 5),
        ("some.jsonl", 5, 5),
        ("some.jsonl", 6, 5),
    ]
    (letter,) = [dict(record.headers) for record in sent if is_dead_letter(record.headers)]
    assert (letter["feedmill-source-file"], letter["feedmill-line"], letter["feedmill-lines"]) == (
        b"some.jsonl",
        b"3",
        b"3",
    )


def test_rows_that_are_sent_on_keep_file_and_line() -> None:
    rows = reductions.valid(40)
    raw = RawRecord("raw", 0, 5, 0, encode(rows), [*ARROW, *source_headers("f.arrow", range(1, 41))])
    sent, _, verdicts = refined([raw], partitions=4)
    assert 0 < verdicts.rerouted.height < 40
    again = [RawRecord("raw", 0, 9, 0, r.value, r.headers) for r in sent if r.stage == RAW]
    frame = read_group(again, FAMILY, LIMITS).frame
    lines = dict(zip(rows["example_id"], range(1, 41), strict=True))
    assert frame["source_line"].to_list() == [lines[each] for each in frame["example_id"]]
    assert set(frame["source_file"]) == {"f.arrow"}


@pytest.mark.parametrize("time_ms", [-1, -(2**62), 2**62, -(2**63), 2**63 - 1, 1_700_000_000_000_000_000, -5])
def test_a_time_that_is_no_date_is_no_time(time_ms: int) -> None:
    _, ledger_entries, _ = refined(
        [RawRecord("raw", 0, 5, time_ms, b"no", ()), RawRecord("raw", 0, 6, 1000, b"no", ())]
    )
    assert ledger_entries["source_time"].dt.epoch("ms").to_list() == [None, 1000]
    assert ledger_entries.schema == pl.Schema(ledger.COLUMNS)
