"""The demo: a small one from start to end, and an interrupt that leaves no process running."""

from __future__ import annotations

import email
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import psutil
import pytest

from broker.clients import Connection
from tests.feedmill.conftest import Command

pytestmark = pytest.mark.slow


def test_the_demo_shows_every_stage(called: Command, connection: Connection) -> None:
    status, out, err = called("demo", "--count", "6000", "--steps", "3", "--seed", "21")
    assert status == 0, err
    gaps = re.search(r"gaps: ([\d,]+) terms made", out)
    assert gaps
    assert f"{6000 + int(gaps[1].replace(',', '')):,} rows in = " in out
    assert "455 of 455 possible cells covered" in out
    assert "128 of 128 possible cells covered" in out
    assert "held-out terms" in out
    assert "in 3 steps" in out
    assert "Try next" in out
    replayed = pl.read_parquet(connection.settings.data_dir / "demo" / "reductions.parquet")
    assert f"{replayed.height:,} clean" in out


def test_the_demo_of_code_shows_every_stage(
    called: Command, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = Path(email.__file__).parent
    monkeypatch.setattr("feedmill.demo_code.sysconfig.get_paths", lambda: {"stdlib": str(tree)})
    status, out, err = called("demo", "--family", "code")
    assert status == 0, err
    files = sum(path.is_file() for path in tree.rglob("*"))
    passed = re.search(rf"(\d+)/{files} files passed", out)
    assert passed
    accounts = re.search(r"code: ([\d,]+) rows in = ", out)
    # Augmented rows are counted, too.
    assert accounts
    assert int(accounts[1].replace(",", "")) > 2 * int(passed[1])
    assert (connection.settings.data_dir / "demo" / "tokenizer.json").is_file()
    assert re.search(r"[1-9]\d* different windows of 1,024 tokens; goal 20,000: [\d,]+ short", out)
    assert "Try next" in out


@pytest.mark.parametrize(
    ("line", "number"),
    [("Kafka at", signal.SIGINT), ("generating", signal.SIGTERM), ("refine: ", signal.SIGHUP)],
)
def test_an_interrupt_leaves_nothing_running(tmp_path: Path, line: str, number: signal.Signals) -> None:
    """A demo with its own embedded broker is interrupted when it has printed `line`."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FEEDMILL_")}
    data = str(tmp_path / "data")
    log = tmp_path / "log"
    with log.open("wb") as out:
        demo = subprocess.Popen(
            [sys.executable, "-m", "feedmill", "demo"],
            stdout=out,
            stderr=subprocess.STDOUT,
            env={**environment, "FEEDMILL_DATA_DIR": data, "PYTHONUNBUFFERED": "1"},
            start_new_session=True,
        )
    deadline = time.monotonic() + 120
    while line not in log.read_text():
        assert time.monotonic() < deadline, log.read_text()
        assert demo.poll() is None, log.read_text()
        time.sleep(0.02)
    demo.send_signal(number)
    # A shell reports both as 130. Python ends by the signal itself if it arrives while a module runs generated code.
    ends = {128 + number, -number} if number == signal.SIGINT else {128 + number}
    assert demo.wait(90) in ends, log.read_text()
    running = [process for process in psutil.process_iter(["cmdline", "environ"]) if _belongs(process, data)]
    assert running == []
    assert log.read_text().rstrip().endswith("feedmill: stopped")


def _belongs(process: psutil.Process, data: str) -> bool:
    command = " ".join(process.info["cmdline"] or ())
    return data in command or (process.info["environ"] or {}).get("FEEDMILL_DATA_DIR") == data
