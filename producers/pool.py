"""Worker processes that apply one job to many tasks and return the results in the order of the tasks.

Each worker is `python -m producers.pool FD`, a fresh interpreter, because a fork would copy Polars' threads in an
undefined state. A worker inherits one end of a socket pair and no other file of the parent. So no worker outlives the
parent, however the parent ends: a closed socket ends a worker even while it is busy. A worker that dies closes its
socket, and the parent notices at once.

Jobs and tasks are pickled; a job is a callable whose class is in an importable module.
"""

from __future__ import annotations

import os
import subprocess
import sys
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from types import TracebackType
from typing import Any, Generic, TypeVar

from schema.errors import FeedmillError, ProducerError

Task = TypeVar("Task")
Result = TypeVar("Result")

# One task waits in each worker while the other is done, so that no worker waits for the parent.
_TASKS_PER_WORKER = 2
_STOP_TIMEOUT_S = 5.0


@dataclass(eq=False)
class _Worker:
    process: subprocess.Popen[bytes]
    pipe: Connection
    tasks: deque[int] = field(default_factory=deque)


class Pool(Generic[Task, Result]):
    """Runs `job` in `workers` processes; a context whose end stops them. A single worker is this process itself."""

    def __init__(self, job: Callable[[Task], Result], workers: int) -> None:
        self._job = job
        self._count = workers
        self._workers: list[_Worker] = []
        self._next = 0

    def __enter__(self) -> Pool[Task, Result]:
        try:
            if self._count > 1:
                for _ in range(self._count):
                    self._workers.append(_start(self._job))
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop()

    def results(self, tasks: Iterable[Task]) -> Iterator[Result]:
        """Yield the result of each task, in order; `tasks` may be endless, and is read a few tasks ahead.

        A new call discards the results that an earlier, unfinished call did not yield.

        Raises:
            ProducerError: a worker died, or the job raised in a worker.
        """
        if not self._workers:
            yield from map(self._job, tasks)
            return
        todo = iter(tasks)
        done: dict[int, Result] = {}
        first = wanted = self._next
        exhausted = False
        while True:
            # Results not yet yielded count too, so that one slow worker does not let the others fill the memory.
            while not exhausted and self._next - wanted < self._count * _TASKS_PER_WORKER:
                worker = min(self._workers, key=lambda one: len(one.tasks))
                if len(worker.tasks) == _TASKS_PER_WORKER:
                    break
                try:
                    task = next(todo)
                except StopIteration:
                    exhausted = True
                else:
                    self._give(worker, task)
            if wanted in done:
                yield done.pop(wanted)
                wanted += 1
            elif exhausted and wanted == self._next:
                return
            else:
                done.update((number, result) for number, result in self._receive() if number >= first)

    def _give(self, worker: _Worker, task: Task) -> None:
        try:
            worker.pipe.send(task)
        except OSError as error:
            raise _died(worker) from error
        worker.tasks.append(self._next)
        self._next += 1

    def _receive(self) -> list[tuple[int, Result]]:
        """Wait until a worker has answered, and return all (task number, result) pairs received."""
        answers = []
        for pipe in wait([worker.pipe for worker in self._workers]):
            worker = next(one for one in self._workers if one.pipe is pipe)
            try:
                failure, result = worker.pipe.recv()
            except (EOFError, OSError) as error:
                raise _died(worker) from error
            if failure is not None:
                raise ProducerError(failure)
            answers.append((worker.tasks.popleft(), result))
        return answers

    def _stop(self) -> None:
        for worker in self._workers:
            worker.pipe.close()
            worker.process.terminate()
        for worker in self._workers:
            try:
                worker.process.wait(_STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                worker.process.kill()
                worker.process.wait()
        self._workers = []


def _start(job: Callable[[Any], Any]) -> _Worker:
    ours, theirs = Pipe()
    path = os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path)
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "producers.pool", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            # The child imports the parent's modules. It gets one thread because the processes share the cores.
            env={**os.environ, "PYTHONPATH": path, "POLARS_MAX_THREADS": "1"},
            # Ctrl-C reaches only the parent, and the parent then ends its workers.
            start_new_session=True,
        )
    worker = _Worker(process, ours)
    try:
        ours.send(job)
    except OSError as error:
        raise _died(worker) from error
    return worker


def _died(worker: _Worker) -> ProducerError:
    try:
        status = str(worker.process.wait(_STOP_TIMEOUT_S))
    except subprocess.TimeoutExpired:
        status = "unknown"
    return ProducerError(
        f"a worker process ended unexpectedly (status {status}): check that enough memory is free, then run again with "
        "the same seed for the same rows"
    )


def _serve(pipe: Connection) -> None:
    """Apply the job to each task that arrives, until the parent has ended."""
    tasks: SimpleQueue[Any] = SimpleQueue()
    Thread(target=_listen, args=(pipe, tasks), daemon=True).start()
    job = tasks.get()
    while True:
        task = tasks.get()
        try:
            answer: tuple[str | None, Any] = (None, job(task))
        except FeedmillError as error:
            answer = (str(error), None)
        except Exception as error:
            answer = (f"a worker process failed ({error!r}): report this error with the seed of the run", None)
        try:
            pipe.send(answer)
        except OSError:
            return


def _listen(pipe: Connection, tasks: SimpleQueue[Any]) -> None:
    """Queue the job and the tasks from the parent; end this process, busy or not, when the parent has ended."""
    try:
        while True:
            tasks.put(pipe.recv())
    except (EOFError, OSError):
        os._exit(0)
    except BaseException:
        # E.g. a job that cannot be unpickled here. The parent notices the exit; the traceback gives the reason.
        traceback.print_exc()
        os._exit(1)


if __name__ == "__main__":
    _serve(Connection(int(sys.argv[1])))
