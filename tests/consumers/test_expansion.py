"""A feed whose rows expand into sequences counts, shuffles, batches and resumes by sequences."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from broker.clients import Connection
from consumers.feed import Feed, FeedOptions
from consumers.form_options import FormOptions
from consumers.replay.training_run import replay_run
from schema.errors import FeedError, ReplayError, UsageError
from schema.reduction import FAMILY
from schema.registry import FAMILIES
from tests import reductions
from tests.consumers.cut_terms import CutBatch, Sequence, cuts
from tests.consumers.records import write
from tests.consumers.resumed_feeds import saved

FORM = FormOptions(tokenizer="bytes", window=8, stride=3)


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the reduction family a form that cuts its terms, in this process."""
    parts = dataclasses.replace(FAMILY.parts, tensor_form="tests.consumers.cut_terms:form")
    monkeypatch.setitem(FAMILIES, "reduction", dataclasses.replace(FAMILY, parts=parts))


@pytest.fixture
def rows(connection: Connection) -> pl.DataFrame:
    written = pl.concat([reductions.valid(20), reductions.frame([reductions.row(0, term="\\." * 150 + "0")])])
    write(connection, written, rows_per_record=4)
    return written


def feed(connection: Connection, *, form: FormOptions = FORM, split: str | None = None, **options: Any) -> Feed:
    chosen = FeedOptions(**{"form": form, "window_rows": 60, "block_rows": 8, "bucket": True, **options})
    return Feed(connection, "reduction", split=split, batch_size=7, shuffle_seed=3, options=chosen)


def sequences(batches: Any) -> list[list[Sequence]]:
    return [batch.sequences for batch in batches if isinstance(batch, CutBatch)]


def expected(rows: pl.DataFrame, form: FormOptions = FORM) -> Counter[tuple[int, int, tuple[int, ...]]]:
    identity = form_identity(form)
    return Counter(
        (number, part, tuple(tokens))
        for number, term in rows.select("example_id", "term").iter_rows()
        for part, tokens in enumerate(cuts(term, identity))
    )


def form_identity(form: FormOptions) -> Any:
    from tests.consumers.cut_terms import form as make

    return make(form).identity


def counted(batches: list[list[Sequence]]) -> Counter[tuple[int, int, tuple[int, ...]]]:
    return Counter((number, part, tuple(tokens)) for batch in batches for number, part, tokens in batch)


def test_a_pass_gives_every_sequence_of_every_row_once(connection: Connection, rows: pl.DataFrame) -> None:
    given = sequences(feed(connection))
    assert counted(given) == expected(rows)
    assert all(len(batch) == 7 for batch in given[:4])


def test_a_feed_stopped_at_any_batch_goes_on_inside_a_row(connection: Connection, rows: pl.DataFrame) -> None:
    whole = sequences(feed(connection))
    # One row has most of the sequences, so many of these places are inside it.
    for stop in range(0, len(whole), 3):
        one = feed(connection)
        batches = iter(one)
        before = [next(batches).sequences for _ in range(stop)]  # type: ignore[attr-defined]
        state = saved(one)
        batches.close()  # type: ignore[attr-defined]
        fresh = feed(connection)
        fresh.load_state_dict(state)
        assert before + sequences(fresh) == whole


@pytest.mark.slow
def test_ranks_and_loader_workers_see_the_same_sequence(connection: Connection, rows: pl.DataFrame) -> None:
    whole = sequences(feed(connection, least_rows=2))
    ranks = [sequences(feed(connection, least_rows=2, rank=rank, world=2)) for rank in range(2)]
    for batch, even, odd in zip(whole, *ranks, strict=True):
        assert (batch[::2], batch[1::2]) == (even, odd)
    assert sequences(feed(connection, least_rows=2).loader(workers=2)) == whole


def test_windows_of_little_memory_give_every_sequence_once(connection: Connection, rows: pl.DataFrame) -> None:
    assert counted(sequences(feed(connection, window_bytes=1000))) == expected(rows)


@pytest.mark.parametrize(
    ("form", "message"),
    [
        (FormOptions(tokenizer="other", window=8, stride=3), 'form\'s tokenizer "bytes", but this feed has "other"'),
        (FormOptions(tokenizer="bytes", window=9, stride=3), "form's window 8, but this feed has 9"),
        (FormOptions(tokenizer="bytes", window=8, stride=4), "form's stride 3, but this feed has 4"),
    ],
)
def test_a_state_of_another_identity_is_refused_with_both_values(
    connection: Connection, rows: pl.DataFrame, form: FormOptions, message: str
) -> None:
    with pytest.raises(FeedError, match=message):
        feed(connection, form=form).load_state_dict(saved(feed(connection)))


def test_a_state_without_an_identity_is_refused(connection: Connection, rows: pl.DataFrame) -> None:
    state = saved(feed(connection))
    del state["spec"]["form"]
    with pytest.raises(FeedError, match="form null"):
        feed(connection).load_state_dict(state)
    state["spec"]["form"] = {**saved(feed(connection))["spec"]["form"], "stride": 9}
    with pytest.raises(FeedError, match="its form is damaged: stride is 9"):
        feed(connection).load_state_dict(state)


def test_a_tokenizer_may_move_between_a_state_and_its_resume(connection: Connection, rows: pl.DataFrame) -> None:
    moved = feed(connection, form=dataclasses.replace(FORM, tokenizer="moved/bytes"))
    moved.load_state_dict(saved(feed(connection)))
    assert moved.state_dict()["spec"]["form"]["found_at"] == "moved/bytes"


def test_a_form_that_needs_a_tokenizer_refuses_a_feed_without_one(connection: Connection, rows: pl.DataFrame) -> None:
    with pytest.raises(UsageError, match=r"FormOptions\(tokenizer=FILE\)"):
        feed(connection, form=None)  # type: ignore[arg-type]


def test_a_form_without_options_refuses_some(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FAMILIES, "reduction", FAMILY)
    with pytest.raises(UsageError, match="has no options"):
        feed(connection)


@pytest.mark.parametrize("numbers", [{"window": 0}, {"stride": 9}, {"masking": 1.0}, {"masking": float("nan")}])
def test_options_of_a_form_outside_their_range_are_refused(numbers: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=f"{next(iter(numbers))} is"):
        dataclasses.replace(FORM, **numbers)


def test_sequences_come_as_often_as_the_weights_of_their_rows_say(connection: Connection, rows: pl.DataFrame) -> None:
    # Sizes are whole numbers, so a sequence of a row of size n comes exactly n times.
    given = counted(sequences(feed(connection, weight_column="size", where="size <= 9")))
    small = rows.filter(pl.col("size") <= 9)
    assert small.height > 2
    size_of = dict(small.select("example_id", "size").iter_rows())
    assert given == Counter({each: size_of[each[0]] for each in expected(small)})


def test_a_state_with_another_weight_column_is_refused(connection: Connection, rows: pl.DataFrame) -> None:
    state = saved(feed(connection, weight_column="size"))
    with pytest.raises(FeedError, match='weight column "size", but this feed has null'):
        feed(connection).load_state_dict(state)
    with pytest.raises(UsageError, match="weight_column is 'term'"):
        feed(connection, weight_column="term")


def test_a_run_is_replayed_as_the_sequences_that_it_saw(
    connection: Connection, rows: pl.DataFrame, tmp_path: Path
) -> None:
    run = feed(connection, weight_column="depth")
    batches = iter(run)
    seen = [next(batches).sequences for _ in range(9)]  # type: ignore[attr-defined]
    manifest = saved(run)
    batches.close()  # type: ignore[attr-defined]
    for name in ("seen.parquet", "seen.jsonl"):
        report = replay_run(connection, manifest, tmp_path / name, tokenizer="moved/bytes")
        assert report.rows == 63
    frame = pl.read_parquet(tmp_path / "seen.parquet")
    assert frame.columns == ["trace_id", "example_id", "part", "input_ids"]
    assert frame.select("example_id", "part", "input_ids").rows() == [each for batch in seen for each in batch]
    lines = pl.read_ndjson(tmp_path / "seen.jsonl")
    assert [int(each, 16) for each in lines["example_id"]] == frame["example_id"].to_list()
    with pytest.raises(ReplayError, match="tokenizer bytes, but this one has other"):
        replay_run(connection, manifest, tmp_path / "seen.jsonl", tokenizer="other")
