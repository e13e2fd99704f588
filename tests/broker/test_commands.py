"""The commands `feedmill broker start|stop|status` and `feedmill topics`, run as in a shell."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from broker import ports
from broker.clients import Connection
from broker.kraft import HOST
from broker.topics import ensure_topics
from schema.record import STAGES
from schema.settings import Settings

pytestmark = pytest.mark.slow


def feedmill(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command with only these settings; return the completed process."""
    return subprocess.run(
        [sys.executable, "-m", "feedmill", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=Path(__file__).parents[2],
        env={"HOME": str(Path.home()), **environment},
    )


def printed(done: subprocess.CompletedProcess[str]) -> Any:
    """Return the JSON object that a successful command printed."""
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_broker_started_by_one_command_is_found_and_stopped_by_others(broker: str, tmp_path: Path) -> None:
    own = {"FEEDMILL_DATA_DIR": str(tmp_path / "data"), "FEEDMILL_BROKER_PORT": str(ports.free_port(HOST))}
    assert printed(feedmill("broker", "status", "--json", **own))["running"] is False
    started = printed(feedmill("broker", "start", "--json", **own))
    try:
        assert started["servers"] == f"{HOST}:{own['FEEDMILL_BROKER_PORT']}"
        status = printed(feedmill("broker", "status", "--json", **own))
        assert (status["running"], status["pid"]) == (True, started["pid"])
        assert printed(feedmill("topics", "--json", **own))["servers"] == started["servers"]
    finally:
        stopped = printed(feedmill("broker", "stop", "--json", **own))
    assert stopped == {"stopped": True}
    assert "was not running" in feedmill("broker", "stop", **own).stdout


def test_topics_lists_the_namespace_with_its_offsets(connection: Connection) -> None:
    ensure_topics(connection, ["reduction"])
    own = {
        "FEEDMILL_BOOTSTRAP_SERVERS": connection.servers,
        "FEEDMILL_NAMESPACE": connection.settings.namespace,
    }
    listed = printed(feedmill("topics", "--json", **own))
    raw = f"{connection.settings.namespace}.reduction.raw"
    assert len(listed["topics"]) == len(STAGES)
    assert listed["topics"][raw] == {str(number): {"begin": 0, "end": 0} for number in range(4)}
    assert raw in feedmill("topics", **own, COLUMNS="200").stdout


def test_configured_kafka_that_is_down_gives_one_line_and_status_one(tmp_path: Path) -> None:
    done = feedmill("topics", FEEDMILL_BOOTSTRAP_SERVERS=f"{HOST}:{ports.free_port(HOST)}")
    assert done.returncode == 1
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert "FEEDMILL_BOOTSTRAP_SERVERS" in done.stderr


def test_status_names_the_configured_kafka_that_is_used_instead(settings: Settings) -> None:
    assert settings.bootstrap_servers is not None
    done = feedmill(
        "broker",
        "status",
        FEEDMILL_BOOTSTRAP_SERVERS=settings.bootstrap_servers,
        FEEDMILL_DATA_DIR=str(settings.data_dir),
    )
    assert "not running" in done.stdout
    assert settings.bootstrap_servers in done.stderr
