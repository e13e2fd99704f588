"""A feed that packs sequences: whole passes, resuming, ranks, workers, replays, and what it refuses."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch

from broker.clients import Connection
from consumers.batches import Batch
from consumers.feed import Feed, FeedOptions
from consumers.replay.training_run import replay_run
from consumers.scenario.tensors import ScenarioBatch, decode_tokens
from schema.errors import FeedError, UsageError
from schema.scenario import FAMILY
from tests.consumers.records import write
from tests.scenarios import valid_rows

COUNT = 200
ROW_TOKENS = 1000
OPTIONS: dict[str, Any] = {"pack_tokens": ROW_TOKENS, "window_rows": 90, "block_rows": 32}


@pytest.fixture
def rows(connection: Connection) -> pl.DataFrame:
    written = valid_rows(COUNT)
    write(connection, written, family=FAMILY)
    return written


def feed(connection: Connection, state: dict[str, Any] | None = None, **options: Any) -> Feed:
    given = {"batch_size": 6, "shuffle_seed": 2} | {
        name: options.pop(name) for name in ("batch_size", "shuffle_seed", "mode") if name in options
    }
    one_feed = Feed(connection, "scenario", split=None, **given, options=FeedOptions(**{**OPTIONS, **options}))
    if state is not None:
        one_feed.load_state_dict(json.loads(json.dumps(state)))
    return one_feed


def packed_rows(batch: Batch) -> list[list[str]]:
    """The ids of the sequences in each row."""
    assert batch.sequence_row is not None
    held: list[list[str]] = [[] for _ in range(len(batch))]
    for row, number in zip(batch.sequence_row.tolist(), batch.hex_ids, strict=True):
        held[row].append(number)
    return held


def texts(batch: ScenarioBatch) -> list[tuple[str, str, str]]:
    """The texts of the batch's sequences, read from its tokens."""
    assert batch.sequence_row is not None and batch.sequence_start is not None and batch.segment_ids is not None
    read = []
    for row, start in zip(batch.sequence_row.tolist(), batch.sequence_start.tolist(), strict=True):
        held = batch.segment_ids[row] == batch.segment_ids[row, start]
        assert batch.position_ids is not None
        assert batch.position_ids[row, held].tolist() == list(range(int(held.sum())))
        read.append(decode_tokens(batch.tokens[row, held]))
    return read


@pytest.mark.parametrize("seed", [None, 2])
def test_a_packed_pass_gives_every_row_once_with_little_padding(
    connection: Connection, rows: pl.DataFrame, seed: int | None
) -> None:
    expected = {row["example_id"]: row for row in rows.iter_rows(named=True)}
    batches = list(feed(connection, shuffle_seed=seed, window_rows=COUNT))
    seen = []
    for batch in batches:
        assert isinstance(batch, ScenarioBatch)
        assert batch.segment_ids is not None
        assert batch.tokens.shape == batch.segment_ids.shape == (len(batch), ROW_TOKENS)
        assert torch.equal(batch.attention_mask, batch.segment_ids > 0)
        assert (batch.global_rows, batch.global_tokens) == (len(batch), batch.real_tokens)
        for number, example_id in enumerate(batch.example_id.tolist()):
            row = expected[example_id % 2**64]
            assert texts(batch)[number] == (row["context"], row["request"], row["response"])
            assert float(batch.capacity[number]) == pytest.approx(row["effective_capacity"])
            seen.append(row["example_id"])
        # The response and its EOS, for every sequence.
        answers = sum(len(text[2].encode()) + 1 for text in texts(batch))
        assert int(batch.response_mask.sum()) == answers
    assert sorted(seen) == sorted(expected)
    assert [len(batch) for batch in batches[:-1]] == [6] * (len(batches) - 1)
    alone = list(feed(connection, shuffle_seed=seed, window_rows=COUNT, pack_tokens=None))
    assert sum(batch.real_tokens for batch in alone) == sum(batch.real_tokens for batch in batches)
    assert all(batch.global_tokens == batch.real_tokens and batch.segment_ids is None for batch in alone)


def test_a_packed_feed_resumes_from_every_batch(connection: Connection, rows: pl.DataFrame) -> None:
    whole = [packed_rows(batch) for batch in feed(connection)]
    assert len(whole) > 6
    running = feed(connection)
    for number, _ in enumerate(running, 1):
        if number % 3 == 1:
            rest = feed(connection, running.state_dict())
            assert [packed_rows(batch) for batch in rest] == whole[number:]


def test_ranks_share_the_rows_of_every_packed_batch(connection: Connection, rows: pl.DataFrame) -> None:
    alone = list(feed(connection, least_rows=3))
    ranks = [list(feed(connection, rank=rank, world=3, least_rows=3)) for rank in range(3)]
    assert len({len(batches) for batches in ranks}) == 1
    for whole, parts in zip(alone, zip(*ranks, strict=True), strict=True):
        assert dealt_back(parts) == packed_rows(whole)
        assert {part.global_rows for part in parts} == {len(whole)}
        assert {part.global_tokens for part in parts} == {whole.real_tokens}
        assert sum(part.real_tokens for part in parts) == whole.real_tokens


def dealt_back(parts: Iterable[Batch]) -> list[list[str]]:
    dealt = itertools.zip_longest(*(packed_rows(part) for part in parts))
    return [row for step in dealt for row in step if row is not None]


@pytest.mark.slow
def test_a_loaders_workers_give_the_same_packed_batches(connection: Connection, rows: pl.DataFrame) -> None:
    whole = [packed_rows(batch) for batch in feed(connection)]
    loader = feed(connection).loader(workers=2)
    begun = [packed_rows(batch) for batch in itertools.islice(loader, 4)]
    rest = feed(connection, loader.state_dict()).loader(workers=2)
    assert begun + [packed_rows(batch) for batch in rest] == whole


def test_a_manifest_replays_packed_rows_in_their_order(
    connection: Connection, rows: pl.DataFrame, tmp_path: Path
) -> None:
    run_feed = feed(connection)
    seen = [number for batch in [*run_feed, *itertools.islice(run_feed, 3)] for number in batch.hex_ids]
    manifest = json.loads(json.dumps(run_feed.manifest()))
    assert manifest["spec"]["pack_tokens"] == ROW_TOKENS
    report = replay_run(connection, manifest, tmp_path / "seen.jsonl")
    lines = (tmp_path / "seen.jsonl").read_text().splitlines()
    assert [json.loads(line)["example_id"] for line in lines] == seen
    assert report.rows == len(seen)


def test_a_packed_feed_in_follow_mode_gives_every_row_once(connection: Connection, rows: pl.DataFrame) -> None:
    numbers: list[str] = []
    for batch in feed(connection, mode="follow", shuffle_seed=None, linger_s=0.1):
        numbers += batch.hex_ids
        if len(numbers) >= COUNT:
            break
    assert sorted(numbers) == sorted(f"{number:016x}" for number in rows["example_id"])


def test_states_go_on_only_with_the_same_length_of_a_packed_row(connection: Connection, rows: pl.DataFrame) -> None:
    state = feed(connection, max_tokens=900).state_dict()
    with pytest.raises(FeedError, match="saved with pack tokens 1000, but this feed has 950"):
        feed(connection, state, pack_tokens=950, max_tokens=900)
    # A state of a build without packing has no such value.
    unpacked = feed(connection, pack_tokens=None)
    old = unpacked.state_dict()
    del old["spec"]["pack_tokens"]
    feed(connection, old, pack_tokens=None)
    state["spec"]["pack_tokens"] = 10
    with pytest.raises(FeedError, match="pack_tokens 10 is less than max_tokens 900"):
        feed(connection, state)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"pack_tokens": 0}, "^pack_tokens 0 is outside 1 to 1,048,576: use"),
        ({"pack_tokens": 2**21}, "^pack_tokens 2097152 is outside 1 to 1,048,576: use"),
        ({"pack_tokens": 512, "max_tokens": 513}, "^pack_tokens 512 is less than max_tokens 513, .*: raise"),
        ({"pack_tokens": 512, "bucket": True}, "^bucket sorts rows of one sequence, but pack_tokens is 512: leave"),
        (
            {"pack_tokens": 512, "batch_tokens": 1000, "world": 2},
            "^batch_tokens 1000 is less than least_rows 2 rows of pack_tokens 512: raise batch_tokens to 1024 or more$",
        ),
    ],
)
def test_options_that_contradict_packing_are_refused(options: dict[str, Any], line: str) -> None:
    nowhere = Connection(settings=None, servers="127.0.0.1:1")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=line):
        Feed(nowhere, "scenario", options=FeedOptions(**options))


def test_a_family_whose_tensors_hold_one_sequence_a_row_is_not_packed() -> None:
    nowhere = Connection(settings=None, servers="127.0.0.1:1")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"^rows of family 'reduction' cannot be packed, .*: leave pack_tokens"):
        Feed(nowhere, "reduction", options=FeedOptions(pack_tokens=512))
