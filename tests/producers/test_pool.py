"""Worker processes: results in order, failures reported, and no process left running."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import count

import psutil
import pytest

from producers.pool import Pool
from schema.errors import ProducerError

PATIENCE_S = 60.0


def workers_of(process: int) -> list[psutil.Process]:
    """Return the pool workers among a process' children; the test session's broker is a child too."""
    return [child for child in psutil.Process(process).children() if "producers.pool" in child.cmdline()]


def gone(processes: list[psutil.Process]) -> bool:
    return not psutil.wait_procs(processes, timeout=PATIENCE_S)[1]


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_results_come_in_the_order_of_their_tasks(workers: int) -> None:
    with Pool(math.factorial, workers) as pool:
        # The first task takes far longer than those after it.
        tasks = [20_000, *range(50)]
        assert list(pool.results(tasks)) == [math.factorial(task) for task in tasks]
        assert list(pool.results([])) == []


def test_endless_tasks_are_read_only_a_little_ahead() -> None:
    read = 0

    def tasks() -> Iterator[int]:
        nonlocal read
        for number in count(1):
            read = number
            yield number

    with Pool(math.sqrt, 2) as pool:
        results = pool.results(tasks())
        assert [next(results) for _ in range(20)] == [math.sqrt(task) for task in range(1, 21)]
        assert read <= 25


def test_a_pool_accepts_new_tasks_after_an_unfinished_call() -> None:
    with Pool(math.sqrt, 2) as pool:
        assert next(pool.results(map(float, count()))) == 0.0
        assert list(pool.results([9.0, 16.0])) == [3.0, 4.0]


def test_an_exception_in_a_worker_is_reported() -> None:
    with Pool(math.sqrt, 2) as pool, pytest.raises(ProducerError, match="math domain error"):
        list(pool.results([4.0, -1.0]))


def test_a_dying_worker_is_reported_and_ends_the_pool() -> None:
    with Pool(os._exit, 2) as pool:
        workers = workers_of(os.getpid())
        with pytest.raises(ProducerError, match="status 7"):
            list(pool.results([7, 7]))
    assert gone(workers)


def test_a_worker_killed_during_a_task_is_reported() -> None:
    with Pool(time.sleep, 2) as pool:
        workers = workers_of(os.getpid())
        assert len(workers) == 2
        results = pool.results([0.0, 600.0, 600.0])
        assert next(results) is None
        for process in workers:
            process.kill()
        with pytest.raises(ProducerError, match="-9"):
            next(results)


def test_a_pool_ends_workers_that_are_busy() -> None:
    with Pool(time.sleep, 2) as pool:
        workers = workers_of(os.getpid())
        assert next(pool.results([0.0, 600.0, 600.0, 600.0])) is None
    assert gone(workers)


# Prints two lines once both workers are busy, then waits minutes for their results.
WAITING = """
import time
from producers.pool import Pool
with Pool(time.sleep, 2) as pool:
    for _ in pool.results([0.0, 0.0, 600.0, 600.0]):
        print("one", flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_parent_that_is_stopped_leaves_no_process(how: signal.Signals) -> None:
    command = [sys.executable, "-c", WAITING]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() + process.stdout.readline() == b"one\none\n"
        workers = workers_of(process.pid)
        assert len(workers) == 2
        process.send_signal(how)
        process.communicate(timeout=PATIENCE_S)
        assert process.returncode not in (0, None)
    assert gone(workers)
