"""SIGTERM, SIGHUP and Ctrl-C with real processes: every command stops in order, says so, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from broker import embedded, ports
from broker.clients import Connection, connect
from broker.kraft import HOST
from broker.topics import ensure_topics, extents, topic_name
from producers.reduction.run import ReductionRun
from producers.run import produce
from schema.record import CLEAN, RAW, encode
from schema.settings import Settings, load_settings
from streams.drain import drain
from tests.commands import LIMIT_S, command
from tests.consumers.records import envelope, transaction
from tests.feedmill.conftest import Command
from tests.reductions import valid

pytestmark = pytest.mark.slow


def raw_offsets(connection: Connection) -> int:
    return sum(each.end for each in extents(connection, topic_name(connection.settings, "reduction", RAW)).values())


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)])
def test_stopped_producer_keeps_its_records_and_ends_its_processes(
    settings: Settings, connection: Connection, tmp_path: Path, number: signal.Signals, status: int
) -> None:
    ensure_topics(connection, ["reduction"])
    with command(
        settings, tmp_path / "log", "produce", "reduction", "--count", "100000000", "--seed", "1", "--workers", "2"
    ) as running:
        running.wait_until(lambda: raw_offsets(connection) > 0)
        assert running.stop(number) == status
    assert running.said().splitlines()[-1] == "feedmill: stopped"


@pytest.mark.parametrize(
    ("arguments", "ready"),
    [
        (["produce", "scenario", "--count", "100000000", "--seed", "1"], "seed 1"),
        (["produce", "reduction", "--follow", "--seed", "1"], "seed 1"),
        (["drain", "reduction"], "draining"),
        (["watch"], "Kafka at"),
    ],
    ids=" ".join,
)
def test_command_ends_by_sigterm_with_status_143(
    settings: Settings, connection: Connection, tmp_path: Path, arguments: list[str], ready: str
) -> None:
    ensure_topics(connection, ["reduction", "scenario"])
    produce(connection, ReductionRun(count=100, seed=1, workers=1))
    with command(settings, tmp_path / "log", *arguments) as running:
        running.wait_until(lambda: ready in running.said())
        time.sleep(1)
        assert running.stop(signal.SIGTERM) == 143, running.said()
    assert running.said().splitlines()[-1] == "feedmill: stopped"


def test_replay_that_is_stopped_leaves_no_file(settings: Settings, connection: Connection, tmp_path: Path) -> None:
    frame = valid(2048)
    ensure_topics(connection, ["reduction"])
    topic = topic_name(settings, "reduction", CLEAN)
    with transaction(connection) as producer:
        for _ in range(1_000):
            producer.send(topic, encode(frame), partition=0, headers=envelope(frame))
    out = tmp_path / "out"
    out.mkdir()
    arguments = ["replay", "reduction", "--out", str(out / "rows.jsonl")]
    with command(settings, tmp_path / "log", *arguments) as running:
        running.wait_until(lambda: any(out.iterdir()))
        assert running.stop(signal.SIGTERM) == 143
    assert list(out.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize(
    ("arguments", "ready"),
    [(["worker", "reduction"], "refining"), (["coverage", "serve"], "coverage service at")],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_stopped_service_ends_with_status_0(
    settings: Settings,
    connection: Connection,
    tmp_path: Path,
    arguments: list[str],
    ready: str,
    number: signal.Signals,
) -> None:
    with command(settings, tmp_path / "log", *arguments) as running:
        running.wait_until(lambda: ready in running.said())
        assert running.stop(number) == 0, running.said()


@pytest.mark.parametrize("is_service", [True, False])
def test_an_object_interrupted_in_the_making_prints_no_traceback(is_service: bool) -> None:
    program = """
import asyncio, os, signal
from feedmill import cli, signals

class Interrupted(asyncio.SelectorEventLoop):
    def _make_self_pipe(self):
        os.kill(os.getpid(), signal.SIGTERM)

def command():
    Interrupted()

signals.install()
cli.app = lambda **options: (signals.service(command) if IS_SERVICE else command)()
print(cli.run([]))
"""
    ended = subprocess.run(
        [sys.executable, "-c", program.replace("IS_SERVICE", str(is_service))], capture_output=True, text=True
    )
    assert (ended.stdout, ended.stderr) == (
        ("0\n", "feedmill: stopped in order\n") if is_service else ("143\n", "feedmill: stopped\n")
    )


def test_interrupt_within_a_text_that_python_runs_keeps_the_status(tmp_path: Path) -> None:
    program = """
from feedmill import cli

cli.app = lambda **options: exec("raise KeyboardInterrupt")
cli.main([])
"""
    (tmp_path / "interrupted.py").write_text(program)
    ended = subprocess.run([sys.executable, "-m", "interrupted"], cwd=tmp_path, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (130, "feedmill: stopped\n")


def test_sigterm_reaches_a_background_job_that_ignores_ctrl_c(settings: Settings, tmp_path: Path) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with command(settings, tmp_path / "log", "watch") as running:
            running.wait_until(lambda: "Kafka at" in running.said())
            assert running.stop(signal.SIGTERM) == 143
    finally:
        signal.signal(signal.SIGINT, before)


def test_hang_up_that_is_ignored_stays_ignored(settings: Settings, tmp_path: Path) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with command(settings, tmp_path / "log", "watch") as running:
            running.wait_until(lambda: "Kafka at" in running.said())
            running.process.send_signal(signal.SIGHUP)
            time.sleep(0.5)
            assert running.process.poll() is None
            assert running.stop(signal.SIGTERM) == 143
    finally:
        signal.signal(signal.SIGHUP, before)


def test_up_restarts_its_killed_broker_and_stops_only_its_own(tmp_path: Path) -> None:
    settings = load_settings(
        data_dir=tmp_path / "data", broker_port=ports.free_port(HOST), broker_heap_mb=256, bootstrap_servers=None
    )
    with command(settings, tmp_path / "log", "up") as running:
        running.wait_until(lambda: "are starting" in running.said())
        first = embedded.status(settings)
        assert first.pid is not None
        os.kill(first.pid, signal.SIGKILL)
        running.wait_until(lambda: f"Kafka at {first.servers} again" in running.said())
        again = embedded.status(settings)
        assert (again.running, again.servers) == (True, first.servers)
        assert again.pid != first.pid
        # The children survived or were restarted: they refine and fold new rows.
        connection = connect(settings)
        produce(connection, ReductionRun(count=300, seed=1, workers=1))
        drain(connection, "reduction", LIMIT_S)
        assert running.stop(signal.SIGTERM) == 0, running.said()
    assert not embedded.status(settings).running
    assert "stopped in order" in running.said().splitlines()[-1]
    for log in (settings.data_dir / "logs").iterdir():
        assert "Traceback" not in log.read_text()

    # A broker that ran before keeps running.
    before = embedded.start(settings)
    try:
        with command(settings, tmp_path / "log", "up") as running:
            running.wait_until(lambda: "are starting" in running.said())
            assert running.stop(signal.SIGINT) == 0, running.said()
        assert embedded.status(settings).pid == before.pid
    finally:
        embedded.stop(settings)


@pytest.mark.parametrize("module", ["typer._click", "polars.exceptions", "feedmill.doctor"])
def test_ctrl_c_while_modules_are_imported_is_one_line(
    module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Python then prints the name of each module when it is imported.
    monkeypatch.setenv("PYTHONPROFILEIMPORTTIME", "1")
    settings = load_settings(data_dir=tmp_path / "data", bootstrap_servers=f"{HOST}:{ports.free_port(HOST)}")
    with command(settings, tmp_path / "log", "topics") as running:
        running.wait_until(lambda: f" {module}\n" in running.said())
        assert running.stop(signal.SIGINT) == 130, running.said()
    assert running.said().count("feedmill: stopped\n") == 1


def test_interrupt_within_the_process_is_status_130(called: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("feedmill.watch._look", lambda *_: signal.raise_signal(signal.SIGINT))
    status, _, err = called("watch", "--once")
    assert (status, err.splitlines()[-1]) == (130, "feedmill: stopped")
