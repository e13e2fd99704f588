"""Augmentation in the refine stage: the rows made, their number, their accounting, and faulty augmentations."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.clients import Connection
from schema.errors import ConfigError, RefineError
from schema.family import partition_of
from schema.record import encode, encode_parts, to_table
from schema.reduction import FAMILY
from schema.registry import FAMILIES
from schema.scenario import FAMILY as SCENARIO
from schema.settings import load_settings
from streams.augmentation import augment_of, check_augment
from streams.refine.augmenting import augmented, copies_of
from streams.refine.decode import RawRecord, RecordLimits, read_group
from streams.refine.judge import judge
from streams.refine.ledger_entries import entries
from streams.refine.outbound import Group, outbound
from streams.refine.state import State
from streams.worker import run_worker
from tests import reductions, scenarios

LARGEST = 900_000


def clean(count: int, partitions: int = 1) -> pl.DataFrame:
    """Clean rows of three raw records, in the form of the refine stage."""
    frame = reductions.valid(count).with_columns(record=pl.Series(np.arange(count) * 3 // count, dtype=pl.UInt32))
    return judge(frame, FAMILY, 0, partitions, State.empty(FAMILY, load_settings())).clean


def in_its_place(monkeypatch: pytest.MonkeyPatch, augment: object) -> None:
    monkeypatch.setattr("streams.augmentation.reduction.augment", augment)


def wrapped(rows: pl.DataFrame) -> pl.DataFrame:
    """Wrap each term in as many abstractions as the number of its copy, plus 1."""
    around = pl.Series(["\\." * (copy + 1) for copy in rows["copy"]], dtype=pl.String)
    return rows.with_columns(
        term=around + rows["term"],
        augmented_from=pl.col("example_id"),
        example_id=pl.lit(None, dtype=pl.UInt64),
        split=pl.lit(None, dtype=pl.String),
    ).select(*FAMILY.wire, "record")


@given(st.floats(0, 16), st.integers(0, 2**32))
def test_copies_are_the_mean_rounded_down_or_up_and_the_mean_on_average(mean: float, seed: int) -> None:
    ids = np.random.default_rng(seed).integers(0, 2**64, size=4_000, dtype=np.uint64)
    copies = copies_of(ids, mean)
    assert set(copies.tolist()) <= {int(mean), int(mean) + 1}
    assert abs(copies.mean() - mean) < 5 * 0.5 / np.sqrt(ids.size)
    assert (copies_of(ids[::7], mean) == copies[::7]).all()


def test_copies_do_not_depend_on_where_a_row_is_routed() -> None:
    ids = np.random.default_rng(1).integers(0, 2**64, size=40_000, dtype=np.uint64)
    by_partition = [copies_of(ids[ids % np.uint64(4) == partition], 0.3).mean() for partition in range(4)]
    assert by_partition == pytest.approx([0.3] * 4, abs=0.02)


def test_rows_are_made_identified_and_routed(monkeypatch: pytest.MonkeyPatch) -> None:
    in_its_place(monkeypatch, wrapped)
    origins = clean(60)
    copies = augmented(origins, FAMILY, 2.0, 5, LARGEST)
    assert copies.height == 2 * origins.height
    assert copies.columns == [*FAMILY.wire, "record", "partition"]
    assert copies["record"].is_sorted()
    assert copies.select(partition_of(FAMILY, 5)).to_series().equals(copies["partition"])
    joined = copies.join(origins, left_on="augmented_from", right_on="example_id", suffix="_of_origin")
    assert joined.height == copies.height
    assert joined.filter(pl.col("split") != pl.col("split_of_origin")).is_empty()
    assert joined.filter(pl.col("record") != pl.col("record_of_origin")).is_empty()
    assert copies["example_id"].null_count() == 0
    # The same group, refined again, makes the same rows.
    assert copies.equals(augmented(origins, FAMILY, 2.0, 5, LARGEST))


def test_augmented_rows_are_not_augmented_again(monkeypatch: pytest.MonkeyPatch) -> None:
    in_its_place(monkeypatch, wrapped)
    origins = clean(60)
    copies = origins.with_columns(augmented_from=pl.lit(5, dtype=pl.UInt64))
    assert augmented(copies, FAMILY, 3.0, 1, LARGEST).is_empty()
    assert augmented(pl.concat([copies, origins]), FAMILY, 1.0, 1, LARGEST).height == origins.height


def test_zero_copies_make_no_rows() -> None:
    copies = augmented(clean(60), FAMILY, 0.0, 1, LARGEST)
    assert copies.is_empty()
    assert copies.columns == [*FAMILY.wire, "record", "partition"]


def test_many_copies_come_in_pieces_and_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    in_its_place(monkeypatch, wrapped)
    origins = clean(60)
    at_once = augmented(origins, FAMILY, 1.5, 1, LARGEST)
    monkeypatch.setattr("streams.refine.augmenting._MOST_AT_ONCE", 7)
    assert augmented(origins, FAMILY, 1.5, 1, LARGEST).equals(at_once)


def test_a_row_too_large_for_a_record_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    in_its_place(monkeypatch, wrapped)
    origins = clean(60)
    texts = origins.select(pl.sum_horizontal(pl.col(pl.String).str.len_bytes().fill_null(0))).to_series()
    limit = int(texts.median() or 0)
    copies = augmented(origins, FAMILY, 1.0, 1, limit)
    assert 0 < copies.height < origins.height


def test_rows_of_every_family_become_rows_of_their_own_kind() -> None:
    for family, rows in ((FAMILY, reductions.valid(200)), (SCENARIO, scenarios.valid_rows(200))):
        settings = load_settings(augment={family.name: 1.0})
        state = State.empty(family, settings)
        verdicts = judge(rows.with_columns(record=pl.lit(0, dtype=pl.UInt32)), family, 0, 1, state)
        copies = augmented(verdicts.clean, family, 1.0, 1, LARGEST)
        again = judge(copies.drop("partition"), family, 0, 1, state)
        # They pass the rules, and are near their originals without being refused for it. (Half of these
        # reductions, wrapped in abstractions, are others of these reductions.)
        assert again.clean.height > 0.4 * verdicts.clean.height
        assert set(again.rejected["reasons"].explode()) <= {"duplicate", "quota_excellent_share"}


def test_an_augmentation_that_raises_ends_the_worker_and_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def faulty(rows: pl.DataFrame) -> pl.DataFrame:
        raise ZeroDivisionError("no reason at all")

    in_its_place(monkeypatch, faulty)
    with pytest.raises(RefineError, match=r"augmentation of reduction failed \(ZeroDivisionError.*FEEDMILL_AUGMENT"):
        augmented(clean(10), FAMILY, 1.0, 1, LARGEST)


@pytest.mark.parametrize(
    "fault",
    [
        lambda rows: wrapped(rows).with_columns(augmented_from=pl.lit(None, dtype=pl.UInt64)),
        lambda rows: wrapped(rows).with_columns(record=pl.lit(99, dtype=pl.UInt32)),
        lambda rows: wrapped(rows).drop("term"),
    ],
)
def test_an_augmentation_with_invalid_rows_is_refused(monkeypatch: pytest.MonkeyPatch, fault: object) -> None:
    in_its_place(monkeypatch, fault)
    with pytest.raises(RefineError, match="augmentation of reduction failed"):
        augmented(clean(10), FAMILY, 1.0, 1, LARGEST)


def test_a_setting_for_a_family_without_augmentation_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    check_augment(load_settings(augment={"reduction": 0.5, "scenario": 1}))
    with pytest.raises(ConfigError, match="'poetry', which is no family: use code, reduction, scenario"):
        check_augment(load_settings(augment={"poetry": 1}))
    without = replace(FAMILY, parts=replace(FAMILY.parts, augmentation=None))
    monkeypatch.setitem(FAMILIES, "reduction", without)
    with pytest.raises(ConfigError, match="reduction has no augmentation"):
        check_augment(load_settings(augment={"reduction": 0.5}))
    check_augment(load_settings(augment={"reduction": 0}))
    with pytest.raises(ConfigError, match="reduction has no augmentation"):
        augment_of(without)


def test_a_worker_does_not_start_with_such_a_setting() -> None:
    connection = Connection(load_settings(augment={"poetry": 1}), "127.0.0.1:1")
    with pytest.raises(ConfigError, match="is no family"):
        run_worker(connection, [FAMILY], lambda totals: None)


def test_every_record_of_a_transaction_has_an_id_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    in_its_place(monkeypatch, wrapped)
    settings = load_settings(rows_per_record=4)
    rows = pl.concat([reductions.valid(80), reductions.valid(8)])
    # Two raw records, whose rows go to clean, are rejected, rerouted and augmented, in several records each.
    values = [encode(rows.head(44)), encode(rows.tail(44)), b"garbage"]
    headers = [("content-type", b"application/vnd.apache.arrow.stream"), ("feedmill-run", b"run")]
    raw = [RawRecord("raw", 1, offset, 0, value, headers) for offset, value in enumerate(values)]
    intake = read_group(raw, FAMILY, RecordLimits(10**6, 10**6, LARGEST, 10**8))
    verdicts = judge(intake.frame, FAMILY, 1, 3, State.empty(FAMILY, settings))
    copies = augmented(verdicts.clean, FAMILY, 2.0, 3, LARGEST)
    counts = np.bincount(copies["record"].to_numpy(), minlength=len(raw))
    ledger_entries = entries(raw, intake, verdicts, counts, FAMILY)
    sent = list(outbound(Group(FAMILY, raw, intake), verdicts, ledger_entries, copies, settings))
    ids = [dict(record.headers)["ce_id"] for record in sent if "ce_id" in dict(record.headers)]
    assert len(ids) == len(set(ids)) == len(sent) - len(intake.dead)
    assert ledger_entries["rows_augmented"].sum() == copies.height > 0
    rows_sent = dict.fromkeys(("clean", "rejected", "raw"), 0)
    for record in sent:
        if record.stage in rows_sent and "feedmill-rows" in dict(record.headers):
            rows_sent[record.stage] += int(dict(record.headers)["feedmill-rows"])
    assert rows_sent == {
        "clean": verdicts.clean.height,
        "rejected": verdicts.rejected.height + len(intake.dead),
        "raw": verdicts.rerouted.height + copies.height,
    }
    assert verdicts.rerouted.height > 0


def test_list_elements_count_towards_the_size_of_a_row() -> None:
    long = scenarios.frame([scenarios.row(1), scenarios.row(2, calculation_steps=[f"{n} + 1" for n in range(90_000)])])
    values = [data for _, data in encode_parts(to_table(long), 1, 10**7)]
    headers = [("content-type", b"application/vnd.apache.arrow.stream")]
    raw = [RawRecord("raw", 0, offset, 0, value, headers) for offset, value in enumerate(values)]
    intake = read_group(raw, SCENARIO, RecordLimits(10**7, 10**6, 500_000, 10**8))
    assert intake.frame["scenario_id"].to_list() == ["hand-1"]
    assert [letter.reason for letter in intake.dead] == ["row_too_large"]
