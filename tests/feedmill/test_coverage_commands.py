"""`feedmill coverage` and `feedmill drain`, called from the command line."""

from __future__ import annotations

import json
import random
from collections.abc import Callable

import pytest

from broker.clients import Connection
from broker.topics import topic_name
from feedmill.cli import run
from schema.record import RAW
from streams.coverage.owner import coverage_folder, ownership
from tests.streams.ledgers import FAMILY, LedgerWriter, as_folded, folded, random_entry, without_minutes

NAME = FAMILY.name
KEYS = {
    "family",
    "rows_in",
    "rows_clean",
    "rows_rejected",
    "rows_rerouted",
    "rows_augmented",
    "rejected_by_reason",
    "axes",
    "cells_total",
    "cells_covered",
    "avg_per_cell",
    "gaps_to_fill",
    "quotas",
}
Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(connection: Connection, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Return a function that runs a command line: (exit status, stdout, stderr)."""
    settings = connection.settings
    for name in ("namespace", "data_dir", "bootstrap_servers"):
        monkeypatch.setenv(f"FEEDMILL_{name.upper()}", str(getattr(settings, name)))

    def called(*arguments: str) -> tuple[int, str, str]:
        status = run(list(arguments))
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return called


def test_a_report_is_one_json_object_with_the_promised_keys(connection: Connection, command: Command) -> None:
    rng = random.Random(1)
    entries = [random_entry(rng, n) for n in range(5)]
    writer = LedgerWriter(connection)
    writer.write(entries)
    writer.close()
    status, out, err = command("coverage", "report", NAME, "--json")
    assert (status, err) == (0, "")
    report = json.loads(out)
    assert report.keys() >= KEYS
    assert as_folded(report) == without_minutes(folded(entries))
    assert list(report["axes"]) == [axis.name for axis in FAMILY.axes]
    assert all(quota.keys() >= {"name", "kind", "target", "actual", "ok"} for quota in report["quotas"])
    assert all(gap.keys() == {*FAMILY.cell_axes, "count", "deficit"} for gap in report["gaps_to_fill"])

    status, out, _ = command("coverage", "gaps", NAME, "--json")
    assert (status, json.loads(out)) == (0, {"family": NAME, "gaps_to_fill": report["gaps_to_fill"]})
    status, out, _ = command("coverage", "report", NAME)
    assert status == 0
    assert f"more: feedmill coverage gaps {NAME}" in out
    assert f"{report['rows_in']:,} rows in = {report['rows_clean']:,} clean" in out
    assert max(len(line) for line in out.splitlines()) <= 80
    status, out, _ = command("coverage", "gaps", NAME)
    assert status == 0
    assert "size 1-9" in out


def test_an_unknown_family_is_wrong_usage_in_one_line(command: Command) -> None:
    for arguments in (("coverage", "report", "nosuch"), ("coverage", "gaps", "nosuch"), ("drain", "nosuch")):
        status, out, err = command(*arguments)
        assert (status, out) == (2, "")
        assert "unknown family 'nosuch'" in err
        assert err.count("\n") == 1


def test_rebuild_folds_again_and_is_refused_while_another_owns_the_store(
    connection: Connection, command: Command
) -> None:
    status, out, err = command("coverage", "rebuild")
    assert (status, out) == (0, "")
    assert "folded again" in err
    with ownership(coverage_folder(connection.settings)):
        status, _, err = command("coverage", "rebuild")
    assert status == 1
    assert "in use by process" in err


def test_drain_exits_0_if_nothing_is_left_and_1_otherwise(connection: Connection, command: Command) -> None:
    status, out, err = command("drain", NAME)
    assert (status, out) == (0, "")
    assert "is drained" in err
    producer = connection.producer()
    producer.send(topic_name(connection.settings, NAME, RAW), b"x", partition=1).get(timeout=30)
    producer.close()
    status, out, err = command("drain", NAME, "--timeout", "0.5")
    assert (status, out) == (1, "")
    assert "offsets left in raw: 1 in partition 1" in err
    assert "start `feedmill worker`" in err
    assert command("drain", NAME, "--timeout", "-1")[0] == 2
