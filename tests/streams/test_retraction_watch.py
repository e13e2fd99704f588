"""Workers learn of retractions while they run, and reject the rows."""

from __future__ import annotations

import time
from pathlib import Path

import polars as pl
import pytest

from broker.clients import Connection
from broker.topics import delete_topics, ensure_topics
from consumers.retraction.forget import forget
from producers.sink import send_frames
from schema.errors import BrokerUnavailableError
from schema.record import RETRACTIONS
from schema.reduction import FAMILY
from streams.refine import retraction_watch
from streams.refine.retraction_watch import RetractionWatch
from tests import reductions
from tests.consumers.records import envelope, send, topic, write
from tests.integration import workers


@pytest.fixture
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retraction_watch, "_REFRESH_S", 0.0)


@pytest.mark.usefixtures("_at_once")
def test_new_retractions_are_added_and_bad_records_are_passed_over(
    connection: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    rows = reductions.valid(30)
    write(connection, rows)
    watch = RetractionWatch(connection, FAMILY)
    watch.refresh()
    assert watch.ids.size == 0
    forget(connection, FAMILY, f"example_id = {rows['example_id'][0]}")
    watch.refresh()
    assert watch.ids.tolist() == [rows["example_id"][0]]
    send(connection, b"x", envelope(rows[:1], RETRACTIONS), RETRACTIONS)
    send(connection, b"x", [], RETRACTIONS)
    forget_more = rows.filter(pl.col("size") > 30)["example_id"].to_list()
    watch.refresh()
    assert "cannot be decoded" in caplog.text
    assert "is no record of Feedmill's" in caplog.text
    # The bad record stops `forget`, so the topic is made again; the worker keeps what it knew.
    delete_topics(connection, [topic(connection, RETRACTIONS)])
    watch.refresh()
    ensure_topics(connection, [FAMILY.name])
    forget(connection, FAMILY, "size > 30")
    watch.refresh()
    assert watch.ids.tolist() == sorted({rows["example_id"][0], *forget_more})


def test_an_unreachable_broker_is_an_error_at_first_and_then_a_warning(
    connection: Connection, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(retraction_watch, "_REFRESH_S", 0.0)
    real = retraction_watch.retraction_bound

    def fails(*arguments: object) -> None:
        raise BrokerUnavailableError("nothing answers")

    watch = RetractionWatch(connection, FAMILY)
    monkeypatch.setattr(retraction_watch, "retraction_bound", fails)
    with pytest.raises(BrokerUnavailableError):
        watch.refresh()
    monkeypatch.setattr(retraction_watch, "retraction_bound", real)
    watch.refresh()
    monkeypatch.setattr(retraction_watch, "retraction_bound", fails)
    watch.refresh()
    assert "new retractions are not read for now: nothing answers" in caplog.text


@pytest.mark.slow
def test_a_running_worker_rejects_copies_of_rows_that_were_retracted(connection: Connection, tmp_path: Path) -> None:
    ensure_topics(connection, [FAMILY.name])
    rows = reductions.valid(60)
    log = tmp_path / "worker.log"
    with workers.worker(connection.settings, log) as process:
        send_frames(connection, FAMILY, "first", [rows])
        workers.wait_until_refined(connection, process, log)
        retracted = forget(connection, FAMILY, "size > 30").rows_retracted
        time.sleep(retraction_watch._REFRESH_S)
        gone = rows.filter(pl.col("size") > 30)
        copies = reductions.valid(20, first=900).with_columns(augmented_from=gone["example_id"][:20])
        send_frames(connection, FAMILY, "second", [rows, copies])
        workers.wait_until_refined(connection, process, log)
    assert workers.clean(connection).height == 60
    reasons = workers.entries(connection)["reasons"].explode().struct.unnest().drop_nulls()
    counted = dict(reasons.group_by("reason").agg(pl.col("rows").sum()).iter_rows())
    assert counted == {"retracted": retracted + 20, "duplicate": 60 - retracted}
    workers.check_accounts(connection)
