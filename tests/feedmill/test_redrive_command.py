"""`feedmill redrive` from the command line: rows that a gate rejected are judged again, and sent once."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from broker.clients import Connection
from broker.topics import ensure_topics, topic_name
from producers.sink import send_frames
from schema.record import CLEAN, RAW, REJECTED, Envelope, encode
from schema.scenario import FAMILY
from schema.settings import Settings
from tests import scenarios
from tests.feedmill.conftest import Command
from tests.integration import workers

REASON = "quota_excellent_share"
EXCELLENT = pl.col("authenticity_target") == "excellent"


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """One partition, so that its share alone decides."""
    return settings.model_copy(update={"partitions": 1})


def test_rejected_rows_are_accepted_once_the_gate_has_room(
    connection: Connection, called: Command, tmp_path: Path
) -> None:
    ensure_topics(connection, [FAMILY.name])
    rows = scenarios.valid_rows(400)
    excellent, others = rows.filter(EXCELLENT).head(40), rows.filter(~EXCELLENT).head(110)
    # One row was augmented from another; the redrive must keep that column.
    excellent = excellent.with_columns(
        augmented_from=pl.when(pl.int_range(pl.len()) == 39).then(pl.col("example_id").first())
    )
    log = tmp_path / "worker.log"
    with workers.worker(connection.settings, log) as process:

        def refined() -> None:
            workers.wait_until_refined(connection, process, log, FAMILY)

        def redriven(*options: str) -> dict[str, object]:
            status, out, err = called("redrive", "scenario", "--reason", REASON, "--json", *options)
            assert (status, err) == (0, "")
            report: dict[str, object] = json.loads(out)
            refined()
            return {name: value for name, value in report.items() if name.startswith("rows_")}

        def excellent_in_clean() -> int:
            return workers.clean(connection, FAMILY).filter(EXCELLENT).height

        send_frames(connection, FAMILY, "first", [excellent, others.head(10)])
        refined()
        assert excellent_in_clean() == 20
        # The gate has no room yet: all rows are rejected again, and each still counts once.
        assert redriven() == {"rows_found": 20, "rows_in_clean": 0, "rows_sent": 20}
        assert excellent_in_clean() == 20

        send_frames(connection, FAMILY, "second", [others.tail(100)])
        refined()
        assert redriven("--limit", "5", "--run", "again") == {"rows_found": 20, "rows_in_clean": 0, "rows_sent": 5}
        assert excellent_in_clean() == 25
        assert redriven() == {"rows_found": 20, "rows_in_clean": 5, "rows_sent": 15}
        assert redriven() == {"rows_found": 20, "rows_in_clean": 20, "rows_sent": 0}

    clean = workers.clean(connection, FAMILY)
    assert clean.filter(EXCELLENT).sort("example_id").drop("partition").equals(excellent.sort("example_id"))
    runs = {record.headers["feedmill-run"].decode() for record in workers.records(connection, RAW, FAMILY)}
    assert {"first", "second", "again"} < runs
    ids = [record.headers["ce_id"] for record in workers.records(connection, RAW, FAMILY)]
    assert len(ids) == len(set(ids))


def test_foreign_records_in_rejected_and_clean_stop_no_redrive(connection: Connection, called: Command) -> None:
    ensure_topics(connection, [FAMILY.name])
    rejected = scenarios.valid_rows(3).with_columns(reasons=pl.Series([["poetry"]] * 3))
    producer = connection.producer()
    for stage in (REJECTED, CLEAN):
        name = topic_name(connection.settings, FAMILY.name, stage)
        producer.send(name, b"not Feedmill's", partition=0).get(30)
    headers = Envelope(FAMILY.name, REJECTED, FAMILY.version, run="r", chunk=0, part=0, rows=3).headers()
    name = topic_name(connection.settings, FAMILY.name, REJECTED)
    producer.send(name, encode(rejected), partition=0, headers=headers).get(30)
    producer.close()
    status, out, _ = called("redrive", "scenario", "--reason", "poetry", "--json")
    assert (status, json.loads(out)["rows_sent"]) == (0, 3)


def test_a_reason_without_rejected_rows_sends_nothing(connection: Connection, called: Command) -> None:
    status, out, err = called("redrive", "scenario", "--reason", "near_duplicate")
    assert (status, out) == (0, "")
    assert "0 rows of run redrive-near_duplicate-" in err


def test_an_unknown_family_is_a_one_line_error(called: Command) -> None:
    status, _, err = called("redrive", "poetry", "--reason", REASON)
    assert status == 2
    assert err.startswith("feedmill: unknown family 'poetry'")
    assert err.count("\n") == 1
