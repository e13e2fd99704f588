"""Training as its users run it, on a real Kafka: killed, stopped, divided over ranks, and resumed."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from broker.clients import Connection
from consumers.training.loss_log import read_losses
from feedmill.cli import run
from producers.reduction.run import ReductionRun
from producers.run import generate
from tests.consumers.records import write

_LIMIT_S = 240.0
STEPS = 40
ARGUMENTS = ["--batch-size", "16", "--max-tokens", "60", "--seed", "3", "--no-bf16", "--checkpoint-every", "4"]

Here = Callable[..., dict[str, Any]]


@pytest.fixture
def clean(connection: Connection) -> Connection:
    # About 280 terms of the split, 18 batches to a pass: a run crosses from one pass into the next.
    rows = pl.concat(list(generate(ReductionRun(count=6000, seed=4)))).unique("example_id", maintain_order=True)
    write(connection, rows, rows_per_record=256)
    return connection


@pytest.fixture
def here(clean: Connection, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Here:
    """Train to the end in this process; the JSON object that the command prints."""
    for name, value in clean.settings.environment(clean.servers).items():
        monkeypatch.setenv(name, value)

    def train(out: Path, *more: str) -> dict[str, Any]:
        capfd.readouterr()
        assert run(arguments(out, *more)) == 0
        summary: dict[str, Any] = json.loads(capfd.readouterr().out)
        return summary

    return train


def arguments(out: Path, *more: str) -> list[str]:
    return ["train", "reduction", "--out", str(out), "--json", *more]


@contextmanager
def training(
    connection: Connection, out: Path, *more: str, ranks: int = 1
) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """`feedmill train reduction` as a process, or as the processes of torchrun, of one thread each; and its log."""
    launch = ["-m", "feedmill.child_process"]
    if ranks > 1:
        launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks), "-m", "feedmill"]
    log = out.with_name(f"{out.name}.log")
    with log.open("wb") as errors, out.with_name(f"{out.name}.json").open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, *launch, *arguments(out, *more)],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=errors,
            env=connection.settings.environment(connection.servers) | {"OMP_NUM_THREADS": "1"},
            start_new_session=True,
        )
        try:
            yield process, log
        finally:
            if process.poll() is None:
                # torchrun's ranks are of its session.
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            assert process.stdin is not None
            process.stdin.close()


def wait_for_step(process: subprocess.Popen[bytes], log: Path, out: Path, step: int) -> None:
    """Return once the run's log of losses has the step's line."""
    deadline = time.monotonic() + _LIMIT_S
    while not any(line["step"] >= step for line in read_losses(out)):
        assert time.monotonic() < deadline, log.read_text()
        assert process.poll() is None, log.read_text()
        time.sleep(0.005)


def test_a_run_killed_at_random_steps_goes_on_to_the_same_losses(clean: Connection, here: Here, tmp_path: Path) -> None:
    straight = here(tmp_path / "straight", "--steps", str(STEPS), *ARGUMENTS)
    assert len(straight["losses"]) == STEPS
    chance = random.Random(5)
    kills = sorted(chance.sample(range(5, STEPS - 5), 2))
    print(f"kill -9 after steps {kills}")
    out = tmp_path / "killed"
    more = ["--steps", str(STEPS), *ARGUMENTS]
    for step in kills:
        with training(clean, out, *more) as (process, log):
            wait_for_step(process, log, out, step)
            process.kill()
            assert process.wait(_LIMIT_S) == -signal.SIGKILL
        # Options that are not given again keep their values.
        more = ["--resume", "--checkpoint-every", "4"]
    ended = here(out, *more)
    assert kills[0] - 4 <= ended["resumed_from"] < STEPS
    assert ended["losses"] == straight["losses"]
    assert ended["held_out"] == straight["held_out"]
    assert ended["rows"] == straight["rows"]


def test_an_interrupt_ends_a_run_in_order(clean: Connection, tmp_path: Path) -> None:
    out = tmp_path / "model"
    with training(clean, out, "--steps", "100000", *ARGUMENTS[:-2]) as (process, log):
        wait_for_step(process, log, out, 3)
        process.send_signal(signal.SIGINT)
        assert process.wait(_LIMIT_S) == 130, log.read_text()
    lines = log.read_text().splitlines()
    assert len(lines) == 1
    steps = len(read_losses(out))
    assert f"feedmill: stopped by SIGINT after step {steps}: `feedmill train reduction --resume" in lines[0]
    assert (out / f"step-{steps:08d}" / "trainer.json").exists()
    assert out.with_name("model.json").read_bytes() == b""


def test_two_ranks_learn_as_one_and_one_rank_resumes_their_run(clean: Connection, here: Here, tmp_path: Path) -> None:
    # Two ranks need two rows of every batch, and batches are to be the same on one.
    more = ["--steps", str(STEPS), "--least-rows", "2", *ARGUMENTS]
    alone = here(tmp_path / "alone", *more)
    out = tmp_path / "ranks"
    with training(clean, out, *more, ranks=2) as (process, log):
        wait_for_step(process, log, out, 12)
        process.send_signal(signal.SIGTERM)
        assert process.wait(_LIMIT_S) != 0
        assert log.read_text().count("feedmill: stopped by SIGTERM after step") == 1, log.read_text()
    together = [line["loss"] for line in read_losses(out)]
    assert 12 <= len(together) < STEPS
    # Sums of the same losses, in another order.
    assert together == pytest.approx(alone["losses"][: len(together)], rel=1e-3)
    ended = here(out, "--resume")
    assert ended["resumed_from"] == len(together)
    assert ended["losses"][: len(together)] == together
    assert ended["losses"] == pytest.approx(alone["losses"], rel=2e-2)
    assert ended["rows"] == alone["rows"]
    assert ended["real_tokens"] == alone["real_tokens"]


def test_a_rank_that_fails_ends_all(clean: Connection, tmp_path: Path) -> None:
    out = tmp_path / "model"
    with training(clean, out, "--steps", "10", "--split", "training", ranks=2) as (process, log):
        assert process.wait(_LIMIT_S) != 0
    assert "use one of train, val, test" in log.read_text()
    assert not list(out.glob("step-*"))


def test_ranks_that_follow_learn_as_one_does_and_go_on_after_a_kill(connection: Connection, tmp_path: Path) -> None:
    rows = pl.concat(list(generate(ReductionRun(count=6000, seed=4)))).unique("example_id", maintain_order=True)
    parts = [
        rows[: rows.height * 4 // 10],
        rows[rows.height * 4 // 10 : rows.height * 7 // 10],
        rows[rows.height * 7 // 10 :],
    ]
    batches = [
        -(-part.filter((pl.col("split") == "train") & (pl.col("term").str.len_bytes() <= 58)).height // 16)
        for part in parts
    ]
    after_first, after_second, after_all = batches[0], sum(batches[:2]), sum(batches)
    more = ["--follow", "--steps", str(after_all - 2), "--least-rows", "2", *ARGUMENTS]
    one, two = tmp_path / "one", tmp_path / "two"
    write(connection, parts[0], rows_per_record=256)
    with training(connection, one, *more) as (alone, alone_log):
        with training(connection, two, *more, ranks=2) as (process, log):
            for run_of in ((alone, alone_log, one), (process, log, two)):
                wait_for_step(*run_of, after_first)
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(_LIMIT_S)
        write(connection, parts[1], rows_per_record=256)
        with training(connection, two, "--resume", "--checkpoint-every", "4", ranks=2) as (process, log):
            for run_of in ((alone, alone_log, one), (process, log, two)):
                wait_for_step(*run_of, after_second)
            # Both ranks wait for rows by now, and torchrun passes the signal on to them.
            process.send_signal(signal.SIGTERM)
            assert process.wait(_LIMIT_S) != 0
            assert log.read_text().count(f"feedmill: stopped by SIGTERM after step {after_second}") == 1, (
                log.read_text()
            )
        assert (two / f"step-{after_second:08d}" / "trainer.json").exists()
        with training(connection, two, "--resume", ranks=2) as (process, log):
            write(connection, parts[2], rows_per_record=256)
            assert process.wait(_LIMIT_S) == 0, log.read_text()
        assert alone.wait(_LIMIT_S) == 0, alone_log.read_text()
    losses = [[line["loss"] for line in read_losses(out)] for out in (one, two)]
    assert len(losses[0]) == after_all - 2
    # Sums of the same losses in another order, and gradients of them.
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    reports = [json.loads(out.with_name(f"{out.name}.json").read_text()) for out in (one, two)]
    assert reports[0]["rows"] == reports[1]["rows"]
    assert reports[0]["real_tokens"] == reports[1]["real_tokens"]
