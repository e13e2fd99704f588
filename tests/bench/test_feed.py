"""The benchmark of the feed: tensors of contenders are compared with their rows, and the command reports rates."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bench.feed import BenchmarkError, measure
from bench.feed.arrow_rows import batches_of
from bench.feed.contenders import FEED, PEERS
from bench.feed.tensors import COLUMNS, Tensors, batch_of, pad_terms, row_of, stacked, tally_of_batches, tally_of_rows
from broker.clients import Connection
from consumers.reduction.alphabet import ALPHABET, BOS, EOS, PAD
from consumers.reduction.tensors import decode_tokens
from feedmill.cli import run
from tests import reductions
from tests.consumers.records import write

TERMS = st.lists(st.text(ALPHABET, max_size=40), min_size=1, max_size=8)


def batches(rows: pl.DataFrame, size: int) -> Iterator[Tensors]:
    for part in rows.iter_slices(size):
        yield batch_of(*(part[name].to_list() for name in COLUMNS))


@given(terms=TERMS)
def test_the_peers_encoder_gives_the_terms_padded(terms: list[str]) -> None:
    tokens, mask = pad_terms(terms)
    assert tokens.dtype == torch.int64
    assert tokens.shape == mask.shape == (len(terms), max(map(len, terms)) + 2)
    for term, row, real in zip(terms, tokens, mask, strict=True):
        assert decode_tokens(row) == term
        assert (row[0], row[len(term) + 1]) == (BOS, EOS)
        assert real.tolist() == [True] * (len(term) + 2) + [False] * (len(row) - len(term) - 2)
        assert bool((row[~real] == PAD).all())


@given(terms=TERMS)
def test_stacked_rows_equal_a_batch_encoded_at_once(terms: list[str]) -> None:
    numbers = list(range(len(terms)))
    columns = [
        numbers,
        [2 * number for number in numbers],
        numbers,
        numbers,
        [2**64 - 1 - number for number in numbers],
    ]
    rows = [row_of(*row) for row in zip(terms, *columns, strict=True)]
    at_once = batch_of(terms, *columns)
    for one, other in zip(stacked(rows), at_once, strict=True):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)


@given(size=st.integers(1, 70), order=st.permutations(range(60)))
def test_sums_of_batches_depend_only_on_their_rows(size: int, order: list[int]) -> None:
    rows = reductions.valid(59)
    rows = pl.concat(
        [rows, reductions.frame([reductions.row(59, term="\\.0", span_start=0, span_end=0, steps_total=0)])]
    )
    tally, padding_share = tally_of_batches(batches(rows[order], size))
    assert tally == tally_of_rows(rows)
    assert 0 <= padding_share < 1


@pytest.mark.parametrize("shuffle_seed", [None, 5])
def test_the_parquet_peers_give_the_rows_of_the_tables(shuffle_seed: int | None) -> None:
    rows = pl.concat(
        [
            reductions.valid(50),
            reductions.frame([reductions.row(50, term="\\.0", span_start=0, span_end=0, steps_total=0)]),
        ]
    )
    tables = [part.to_arrow(compat_level=pl.CompatLevel.oldest()) for part in rows.iter_slices(30)]
    made_batches = list(batches_of(tables, 16, shuffle_seed))
    # A window of 30 rows and one of 21; with a seed the batches of a window are shuffled, too.
    assert sorted(len(batch.tokens) for batch in made_batches) == [5, 14, 16, 16]
    assert tally_of_batches(made_batches)[0] == tally_of_rows(rows)
    in_order = (
        torch.cat([batch.example_id for batch in made_batches]).tolist()
        == rows["example_id"].cast(pl.Int64, wrap_numerical=True).to_list()
    )
    assert in_order == (shuffle_seed is None)


def swapped(batch: Tensors) -> Tensors:
    tokens = batch.tokens.clone()
    # A bracket and the token before it.
    tokens[-1, [-3, -2]] = tokens[-1, [-2, -3]]
    return batch._replace(tokens=tokens)


@pytest.mark.parametrize(
    "change",
    [
        swapped,
        lambda batch: Tensors(*(tensor[:-1] for tensor in batch)),
        lambda batch: batch._replace(span=batch.span + 1),
        lambda batch: batch._replace(mask=torch.ones_like(batch.mask)),
        lambda batch: batch._replace(example_id=batch.example_id ^ 1),
        lambda batch: batch._replace(is_normal_form=~batch.is_normal_form),
        lambda batch: batch._replace(size=batch.depth, depth=batch.size),
    ],
    ids=[
        "two tokens exchanged",
        "a row left out",
        "span off by one",
        "padding counted",
        "another id",
        "normal forms inverted",
        "size and depth exchanged",
    ],
)
def test_wrong_tensors_give_other_sums(change: object) -> None:
    rows = reductions.valid(20)
    assert callable(change)
    assert tally_of_batches(map(change, batches(rows, 6)))[0] != tally_of_rows(rows)


def test_tokens_of_another_type_are_refused() -> None:
    (batch,) = batches(reductions.valid(3), 3)
    with pytest.raises(TypeError, match=r"tokens has dtype torch\.int32, not torch\.int64"):
        tally_of_batches([batch._replace(tokens=batch.tokens.int())])


def test_a_contender_with_other_rows_is_an_error(connection: Connection, tmp_path: Path) -> None:
    rows = reductions.valid(300)
    write(connection, rows)
    with pytest.raises(BenchmarkError, match=r"gave TensorSums\(rows=300, .* but its rows are TensorSums\(rows=299,"):
        measure((FEED,), connection, rows[:-1], tmp_path, repetitions=1)


def test_the_command_reports_the_feed_its_peers_and_missing_peers(
    connection: Connection, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for name, value in connection.settings.environment(connection.servers).items():
        monkeypatch.setenv(name, value)
    assert run(["bench", "feed", "--rows", "3000", "--json"]) == 0
    out, err = capfd.readouterr()
    report = json.loads(out)
    missing = {name for peer in PEERS for name in peer.needs if not installed(name)}
    assert report["peers_missing"] == sorted(missing)
    assert len(report["peers"]) == sum(missing.isdisjoint(peer.needs) for peer in PEERS)
    assert ("peers left out because" in err) == bool(missing)
    for figures in (report, report["topic_order"], *report["peers"]):
        assert (figures["unit"], figures["rows"]) == ("examples/s", 3000)
        assert figures["rate"] == pytest.approx(figures["rows"] / figures["elapsed_s"])
        assert figures["rows_per_cpu_s"] == pytest.approx(figures["rows"] / figures["cpu_s"])
        assert figures["tokens_per_s"] / figures["rate"] == pytest.approx(report["tokens_per_s"] / report["rate"])
    own = {figures["order"]: figures for figures in (report, report["topic_order"])}
    assert own.keys() == {peer["order"] for peer in report["peers"]} == {"shuffled", "stored"}
    for peer in report["peers"]:
        same = own[peer["order"]]
        assert peer["ratio"] == pytest.approx(same["rate"] / peer["rate"])
        assert peer["cpu_ratio"] == pytest.approx(same["rows_per_cpu_s"] / peer["rows_per_cpu_s"])
        assert peer["padding_share"] == pytest.approx(same["padding_share"], abs=0.1)
    assert report["padding_share"] < report["topic_order"]["padding_share"]


def test_without_torch_the_command_names_the_extra(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "bench"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)
    assert run(["bench", "feed"]) == 1
    out, err = capfd.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert "needs torch: install the extra that has it" in err


def installed(distribution: str) -> bool:
    try:
        return bool(version(distribution))
    except PackageNotFoundError:
        return False
