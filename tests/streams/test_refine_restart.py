"""The state of a partition survives `kill -9`: gates, texts and augmentation, against one pass over raw."""

from __future__ import annotations

import time
from pathlib import Path

import polars as pl
import pytest

from broker.clients import Connection
from broker.topics import committed_positions, ensure_topics, topic_name
from producers.sink import send_frames
from schema.record import RAW, decode
from schema.scenario import FAMILY
from schema.settings import Settings
from streams.positions import position_group
from streams.refine.augmenting import copies_of
from streams.refine.decode import RawRecord, RecordLimits, read_group
from streams.refine.judge import Verdicts, judge
from streams.refine.state import State
from tests import scenarios
from tests.integration import workers

PARTITIONS = 2
FROM_ROW = 50


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Small records and groups, so that a worker is killed between many transactions."""
    changed = {"partitions": PARTITIONS, "rows_per_record": 20, "refine_group_records": 2, "gate_from_rows": FROM_ROW}
    return settings.model_copy(update={**changed, "augment": {FAMILY.name: 0.3}})


def mixed(first: int, count: int) -> pl.DataFrame:
    """Rows with too many excellent ones; each tenth occurs again in other words, and each twentieth unchanged."""
    rows = scenarios.valid_rows(count, first)
    is_excellent = pl.col("authenticity_target") == "excellent"
    few = rows.filter(is_excellent | (pl.int_range(pl.len()) % 3 == 0))
    reworded = few.gather_every(10).with_columns(response=pl.col("response") + " Not this week.")
    sent = pl.concat([few, reworded, few.gather_every(20, 3)])
    return sent.sample(fraction=1.0, shuffle=True, seed=first)


def in_one_pass(connection: Connection) -> dict[int, Verdicts]:
    """The verdicts on all of raw, partition by partition, in one pass without a kill."""
    found = {}
    raw = workers.records(connection, RAW, FAMILY)
    for partition in range(PARTITIONS):
        records = [
            RawRecord("raw", partition, read.offset, 0, read.value, list(read.headers.items()))
            for read in raw
            if read.partition == partition
        ]
        frame = read_group(records, FAMILY, RecordLimits(10**6, 10**6, 10**6, 10**8)).frame
        state = State.empty(FAMILY, connection.settings)
        found[partition] = judge(frame, FAMILY, partition, PARTITIONS, state)
    return found


def test_a_killed_workers_gates_and_texts_are_remembered_by_the_next(connection: Connection, tmp_path: Path) -> None:
    settings = connection.settings
    ensure_topics(connection, [FAMILY.name])
    topic, group = topic_name(settings, FAMILY.name, RAW), position_group(settings, FAMILY.name)
    log = tmp_path / "worker.log"
    send_frames(connection, FAMILY, "before", [mixed(0, 500)])
    process = workers.spawn(settings, log)
    deadline = time.monotonic() + 120
    while len(committed_positions(connection, group, topic)) < PARTITIONS:
        assert time.monotonic() < deadline, log.read_text()
        assert process.poll() is None, log.read_text()
        time.sleep(0.01)
    workers.kill(process)
    send_frames(connection, FAMILY, "after", [mixed(250, 500)])
    with workers.worker(settings, log) as process:
        workers.wait_until_refined(connection, process, log, FAMILY)

    expected = in_one_pass(connection)
    clean = workers.clean(connection, FAMILY)
    rejected, letters = workers.rejected(connection, FAMILY)
    assert letters == []
    for partition, verdicts in expected.items():
        mine = clean.filter(pl.col("partition") == partition)
        assert mine["example_id"].to_list() == verdicts.clean["example_id"].to_list()
        for seen in range(FROM_ROW, mine.height + 1, 7):
            share = (mine["authenticity_target"].head(seen) == "excellent").mean()
            assert share is not None and share <= 0.4
    expected_rejected = pl.concat([verdicts.rejected for verdicts in expected.values()])
    why = ("example_id", "reasons")
    assert sorted(rejected.select(why).rows()) == sorted(expected_rejected.select(why).rows())
    assert {"quota_excellent_share", "near_duplicate", "duplicate"} == set(rejected["reasons"].explode())
    check_augmented(connection, clean)


def check_augmented(connection: Connection, clean: pl.DataFrame) -> None:
    """Check augmentation: one copy of each clean original, no others, and in the split of the origin."""
    raw = pl.concat([decode(read.value, FAMILY.wire, 10**6) for read in workers.records(connection, RAW, FAMILY)])
    augmented = raw.filter(pl.col("augmented_from").is_not_null())
    assert workers.entries(connection, FAMILY)["rows_augmented"].sum() == augmented.height > 0
    originals = clean.filter(pl.col("augmented_from").is_null())
    copied = originals.filter(pl.Series(copies_of(originals["example_id"].to_numpy(), 0.3) > 0))
    # Augmentation leaves out rows that it cannot change.
    assert set(augmented["augmented_from"]) <= set(copied["example_id"])
    assert augmented["augmented_from"].is_unique().all()
    assert augmented.height > 0.5 * copied.height
    of_origin = augmented.join(clean, left_on="augmented_from", right_on="example_id", suffix="_of_origin")
    assert of_origin.height == augmented.height
    assert of_origin.filter(pl.col("split") != pl.col("split_of_origin")).is_empty()
