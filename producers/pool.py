"""Worker processes that do one job over and over, with their results in the order of the tasks.

Each worker is `python -m producers.pool FD`: a fresh interpreter (a fork would inherit Polars' threads half-way) that
holds one end of a socket pair and nothing else of its parent's. So no process outlives the parent, however that ends:
a closed socket ends the worker, busy or not; and a worker that dies closes its socket, which the parent hears at once.

Jobs and tasks are pickled; a job is a callable whose class lives in an importable module.
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

# A task waits in each worker while another is done, so that none waits for its parent.
_TASKS_PER_WORKER = 2
_STOP_TIMEOUT_S = 5.0


@dataclass(eq=False)
class _Worker:
    process: subprocess.Popen[bytes]
    pipe: Connection
    tasks: deque[int] = field(default_factory=deque)


class Pool(Generic[Task, Result]):
    """`workers` processes doing `job`; a context, whose end leaves none of them. One worker is this process itself."""

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
        """Yield the result of each task, in order; `tasks` may be endless, and is read a little ahead.

        A call forgets what an earlier one, left early, did not yield.

        Raises:
            ProducerError: a worker died, or the job raised there.
        """
        if not self._workers:
            yield from map(self._job, tasks)
            return
        todo = iter(tasks)
        done: dict[int, Result] = {}
        first = wanted = self._next
        exhausted = False
        while True:
            # What is done and not yielded counts, so that one slow worker does not let the others fill the memory.
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
        """Wait until some worker has answered, and return the (task number, result) pairs at hand."""
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
            # The parent's modules are the child's; one thread each, for the processes share the cores.
            env={**os.environ, "PYTHONPATH": path, "POLARS_MAX_THREADS": "1"},
            # Ctrl-C reaches the parent alone, which then ends its workers.
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
        f"a generating process ended by itself (status {status}): see that memory suffices, and run again with the "
        "same seed for the same rows"
    )


def _serve(pipe: Connection) -> None:
    """Do the job for each task that comes, until the parent is gone."""
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
            answer = (f"a generating process failed ({error!r}): report this with its seed", None)
        try:
            pipe.send(answer)
        except OSError:
            return


def _listen(pipe: Connection, tasks: SimpleQueue[Any]) -> None:
    """Take in what the parent sends; end the process, whatever it is at, when the parent is gone."""
    try:
        while True:
            tasks.put(pipe.recv())
    except (EOFError, OSError):
        os._exit(0)
    except BaseException:
        # A job that cannot be unpickled here: the parent hears that this process ended, and its user sees why.
        traceback.print_exc()
        os._exit(1)


if __name__ == "__main__":
    _serve(Connection(int(sys.argv[1])))
