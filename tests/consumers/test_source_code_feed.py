"""The code family in a feed: windows across splits, curricula, weights, memory, and mixing of repositories."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from broker.clients import Connection
from consumers.feed import Curriculum, Feed, FeedOptions
from consumers.form_options import FormOptions
from consumers.replay.training_run import replay_run
from consumers.retraction.forget import forget
from consumers.source_code.byte_pairs import train_byte_pairs
from consumers.source_code.masking import NO_LABEL
from consumers.source_code.tensors import CodeBatch
from consumers.source_code.tokenizer import load_tokenizer
from schema.family import identify
from schema.source_code import FAMILY
from tests.consumers.records import write
from tests.consumers.resumed_feeds import saved
from tests.source_code import valid_rows


@pytest.fixture(scope="module")
def rows() -> pl.DataFrame:
    """Documents of 1 to some 80 windows, in all splits and phases, of all weights."""
    documents = valid_rows(60).with_row_index("number")
    longer = documents.with_columns(
        text=pl.col("text").repeat_by(1 + pl.col("number") % 15).list.join("\n"),
        phase=(1 + pl.col("number") % 3).cast(pl.Int32),
        weight=pl.col("number").replace_strict({0: 3.0, 1: 1.0, 2: 0.5, 3: 0.3}, default=1.0),
        repository=pl.format("repository-{}", pl.col("number") % 30),
        group=pl.format("repository-{}", pl.col("number") % 30),
    ).drop("number")
    return identify(longer, FAMILY)


@pytest.fixture(scope="module")
def tokenizer(rows: pl.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    path.write_text(train_byte_pairs(rows["text"], 400))
    return path


def feed(connection: Connection, tokenizer: Path, *, split: str | None = None, **options: Any) -> Feed:
    form = {
        name: options.pop(name) for name in ("window", "stride", "masking", "masking_form", "cache") if name in options
    }
    form_options = FormOptions(**{"tokenizer": tokenizer, "window": 64, "stride": 16, **form})
    seed, size = options.pop("shuffle_seed", 5), options.pop("batch_size", 32)
    chosen = FeedOptions(**{"form": form_options, "window_rows": 300, "block_rows": 4, **options})
    return Feed(connection, "code", split=split, batch_size=size, shuffle_seed=seed, options=chosen)


def batches(source: Any) -> Iterator[CodeBatch]:
    for batch in source:
        assert isinstance(batch, CodeBatch)
        yield batch


Row = tuple[int, int, tuple[int, ...], tuple[int, ...], tuple[int, ...]]


def windows(source: Any) -> list[list[Row]]:
    """(example id, part, tokens, labels, places) of each row of each batch."""
    return [content(batch) for batch in batches(source)]


def content(batch: CodeBatch) -> list[Row]:
    places = zip(
        batch.char_start.tolist(),
        batch.char_end.tolist(),
        batch.line_start.tolist(),
        batch.line_end.tolist(),
        strict=True,
    )
    labels = [()] * len(batch) if batch.labels is None else [tuple(each.tolist()) for each in batch.labels]
    tokens = [tuple(row[mask].tolist()) for row, mask in zip(batch.tokens, batch.attention_mask, strict=True)]
    ids = [number % 2**64 for number in batch.example_id.tolist()]
    return list(zip(ids, batch.part.tolist(), tokens, labels, places, strict=True))


def test_a_feed_stopped_at_every_batch_goes_on_with_the_same_masked_windows(
    connection: Connection, rows: pl.DataFrame, tokenizer: Path, tmp_path: Path
) -> None:
    write(connection, rows[:20], rows_per_record=5, family=FAMILY)
    options: dict[str, Any] = {"masking": 0.1, "weight_column": "weight", "stride": 48, "bucket": True}
    first = feed(connection, tokenizer, **options)
    whole = windows(first)
    assert 5 < len(whole) < 40
    second_pass = windows(first)
    assert second_pass != whole
    for stop in range(0, len(whole), 2):
        one = feed(connection, tokenizer, prefetch=stop % 3, **options)
        given = batches(one)
        before = [content(next(given)) for _ in range(stop)]
        state = saved(one)
        given.close()  # type: ignore[attr-defined]
        # Every other feed shares a cache of tokens, which changes nothing.
        resumed = feed(connection, tokenizer, cache=tmp_path if stop % 4 else None, **options)
        resumed.load_state_dict(state)
        assert before + windows(resumed) == whole
    assert windows(resumed) == second_pass
    assert list(tmp_path.rglob("*.arrow"))


def test_train_and_test_share_no_byte_of_source_although_windows_overlap(
    connection: Connection, rows: pl.DataFrame, tokenizer: Path
) -> None:
    write(connection, rows, rows_per_record=5, family=FAMILY)
    text_of = dict(rows.select("example_id", "text").iter_rows())
    covered: dict[str, dict[int, set[int]]] = {}
    for split in ("train", "val", "test"):
        of_split = covered[split] = {}
        for batch in windows(feed(connection, tokenizer, split=split)):
            for example_id, _, _, _, (begin, end, _, _) in batch:
                of_split.setdefault(example_id, set()).update(range(begin, end))
        assert of_split
        # Nothing is lost either: each document of the split is covered to its last character.
        assert of_split == {
            example_id: set(range(len(text_of[example_id])))
            for example_id in rows.filter(pl.col("split") == split)["example_id"]
        }
    repositories = dict(rows.select("example_id", "repository").iter_rows())
    seen = {split: {repositories[each] for each in of_split} for split, of_split in covered.items()}
    assert not seen["train"] & seen["test"]
    assert not seen["train"] & seen["val"]
    assert not seen["val"] & seen["test"]


def test_a_curriculum_by_phase_survives_to_the_batches(
    connection: Connection, rows: pl.DataFrame, tokenizer: Path
) -> None:
    write(connection, rows, rows_per_record=5, family=FAMILY)
    phase_of = dict(rows.select("example_id", "phase").iter_rows())
    phased = feed(connection, tokenizer, curriculum=Curriculum(column="phase", edges=(2, 3)), batch_size=16)
    phases = [{phase_of[row[0]] for row in batch} for batch in windows(phased)]
    assert all(len(each) == 1 for each in phases)
    order = [each.pop() for each in phases]
    assert order == sorted(order)
    assert set(order) == {1, 2, 3}


def test_a_window_comes_as_often_as_the_weight_of_its_document_over_passes(
    connection: Connection, rows: pl.DataFrame, tokenizer: Path
) -> None:
    write(connection, rows[:12], rows_per_record=5, family=FAMILY)
    weight_of = dict(rows.select("example_id", "weight").iter_rows())
    once = Counter(row[:2] for batch in windows(feed(connection, tokenizer)) for row in batch)
    assert set(once.values()) == {1}
    weighted = feed(connection, tokenizer, weight_column="weight", batch_size=500)
    passes = [Counter(row[:2] for batch in windows(weighted) for row in batch) for _ in range(12)]
    for each in passes:
        assert all(each[window] in {int(w := weight_of[window[0]]), -int(-w // 1)} for window in once)
    for weight in sorted(set(weight_of.values())):
        of_weight = [window for window in once if weight_of[window[0]] == weight]
        total = sum(each[window] for each in passes for window in of_weight)
        count, fraction = len(of_weight) * len(passes), weight % 1
        assert abs(total - weight * count) <= 6 * (count * fraction * (1 - fraction)) ** 0.5


@pytest.mark.slow
def test_ranks_and_loader_workers_see_the_same_windows(
    connection: Connection, rows: pl.DataFrame, tokenizer: Path
) -> None:
    write(connection, rows[:30], rows_per_record=5, family=FAMILY)
    options: dict[str, Any] = {"masking": 0.1, "masking_form": "fim", "least_rows": 2}
    whole = windows(feed(connection, tokenizer, **options))
    ranks = [windows(feed(connection, tokenizer, rank=rank, world=2, **options)) for rank in range(2)]
    for batch, even, odd in zip(whole, *ranks, strict=True):
        # A rank pads to its own longest row.
        assert [row[:3] for row in batch[::2]] == [row[:3] for row in even]
        assert [row[:3] for row in batch[1::2]] == [row[:3] for row in odd]
    assert windows(feed(connection, tokenizer, **options).loader(workers=2)) == whole


def test_a_run_on_code_is_replayed_window_by_window(
    connection: Connection, rows: pl.DataFrame, tokenizer: Path, tmp_path: Path
) -> None:
    write(connection, rows[:20], rows_per_record=5, family=FAMILY)
    run = feed(connection, tokenizer, masking=0.1)
    given = batches(run)
    seen = [row for _ in range(5) for row in content(next(given))]
    manifest = saved(run)
    given.close()  # type: ignore[attr-defined]
    replay_run(connection, manifest, tmp_path / "seen.parquet")
    frame = pl.read_parquet(tmp_path / "seen.parquet")
    assert frame.columns == [
        *("path", "split", "example_id", "part", "input_ids", "labels"),
        *("char_start", "char_end", "line_start", "line_end"),
    ]
    assert frame.select("example_id", "part").rows() == [row[:2] for row in seen]
    assert [tuple(each) for each in frame["input_ids"]] == [row[2] for row in seen]
    assert [each for each in frame["labels"][0] if each != NO_LABEL]


def test_a_document_of_800_windows_does_not_grow_a_window_of_the_feed(
    connection: Connection, rows: pl.DataFrame, tokenizer: Path
) -> None:
    lines = "\n".join(f"value_{number} = {number % 7}" for number in range(11_000))
    large = rows[:8].with_columns(text=pl.concat_str(pl.lit(lines), pl.col("text"), separator="\n"))
    write(connection, identify(large, FAMILY), rows_per_record=4, family=FAMILY)
    source = feed(
        connection, tokenizer, window=1024, stride=64, batch_size=8, window_rows=1 << 20, window_bytes=4 << 20
    )
    sizes = Counter(batch.cursor.window for batch in batches(source))
    tokens = load_tokenizer(tokenizer).tokenizer.encode(large["text"][0])
    assert len(large["text"][0]) > 150_000
    assert len(tokens.ids) / 64 > 800
    # A window of the feed has at most 4 MiB of tokens, four bytes each.
    assert max(sizes.values()) * 8 * 1024 * 4 <= 4 << 20
    assert sum(sizes.values()) > 800


RUNS, FILES, BATCH = 60, 6, 64


def test_batches_of_repositories_side_by_side_vary_like_those_of_a_uniform_shuffle(
    connection: Connection, rows: pl.DataFrame, tokenizer: Path
) -> None:
    """Files of a repository are neighbours in the topic, and the windows of a file are, too."""
    repositories = pl.concat(
        rows[:FILES].with_columns(
            text=pl.concat_str(pl.lit(f"# {number * 37 % RUNS}\n"), pl.col("text")),
            repository=pl.lit(f"repository-{number}"),
            lines=pl.lit(number * 37 % RUNS, pl.Int32()),
        )
        for number in range(RUNS)
    )
    write(connection, identify(repositories, FAMILY), rows_per_record=FILES, family=FAMILY)
    written = identify(repositories, FAMILY)
    run_of = dict(written.select("example_id", "lines").iter_rows())
    source = feed(connection, tokenizer, batch_size=BATCH, block_rows=4, window_rows=4096)
    runs = [[run_of[row[0]] for row in batch] for _ in range(2) for batch in windows(source) if len(batch) == BATCH]
    means = np.array([np.mean(each) for each in runs])
    uniform = np.var([each for batch in runs for each in batch]) / BATCH
    assert len(means) > 200
    assert np.var(means) / uniform < 3


def test_packed_rows_hold_every_window_with_its_labels_and_part(
    connection: Connection, rows: pl.DataFrame, tokenizer: Path
) -> None:
    write(connection, rows[:20], rows_per_record=5, family=FAMILY)
    plain = Counter(row for batch in windows(feed(connection, tokenizer, masking=0.1)) for row in unpadded(batch))
    packed: Counter[Row] = Counter()
    for batch in batches(feed(connection, tokenizer, masking=0.1, pack_tokens=200, batch_size=4)):
        assert batch.tokens.shape[1] == 200
        assert batch.labels is not None and batch.sequence_row is not None and batch.sequence_start is not None
        assert batch.segment_ids is not None
        assert torch.equal(batch.attention_mask, batch.segment_ids > 0)
        assert batch.global_tokens == batch.real_tokens
        places = torch.stack([batch.char_start, batch.char_end, batch.line_start, batch.line_end], 1)
        segments = [0] * len(batch)
        for number, (row, start) in enumerate(
            zip(batch.sequence_row.tolist(), batch.sequence_start.tolist(), strict=True)
        ):
            segments[row] += 1
            length = int((batch.segment_ids[row] == segments[row]).sum())
            tokens, labels = (each[row, start : start + length].tolist() for each in (batch.tokens, batch.labels))
            identity = (int(batch.example_id[number]) % 2**64, int(batch.part[number]))
            packed[(*identity, tuple(tokens), tuple(labels), tuple(places[number].tolist()))] += 1
    assert packed == plain


def unpadded(batch: list[Row]) -> list[Row]:
    return [(*row[:2], row[2], row[3][: len(row[2])], row[4]) for row in batch]


@pytest.mark.parametrize("pack_tokens", [None, 128])
def test_a_continued_feed_leaves_out_the_windows_of_retracted_documents_and_no_other(
    connection: Connection, rows: pl.DataFrame, tokenizer: Path, tmp_path: Path, pack_tokens: int | None
) -> None:
    documents = rows[:20]
    copy = documents[:1].with_columns(augmented_from=documents["example_id"][3])
    write(connection, pl.concat([copy, documents[1:]]), rows_per_record=5, family=FAMILY)
    options: dict[str, Any] = {"weight_column": "weight", "pack_tokens": pack_tokens, "batch_size": 8}
    whole = ids(feed(connection, tokenizer, **options))
    begun = feed(connection, tokenizer, **options)
    given = batches(begun)
    before = ids([next(given), next(given)])
    state = saved(begun)
    given.close()  # type: ignore[attr-defined]
    forget(connection, FAMILY, f"example_id = {documents['example_id'][3]}")
    gone = {documents["example_id"][3], documents["example_id"][0]}
    assert gone <= set(whole)
    resumed = feed(connection, tokenizer, leave_out_retracted=True, **options)
    resumed.load_state_dict(state)
    assert before + ids(resumed) == before + [number for number in whole[len(before) :] if number not in gone]
    report = replay_run(connection, resumed.manifest(), tmp_path / "x.parquet", leave_out_retracted=True)
    written = pl.read_parquet(tmp_path / "x.parquet")["example_id"].to_list()
    assert written == [number for number in whole if number not in gone]
    assert report.rows_retracted == len(whole) - len(written)


def ids(source: Any) -> list[int]:
    """The example id of each sequence, in order."""
    return [number % 2**64 for batch in batches(source) for number in batch.example_id.tolist()]
