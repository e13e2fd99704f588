"""Coordinate the worker processes of one loader: agreed passes, a stop signal, and no worker that outlives the trainer.

In `follow` mode, workers that each looked for new records would see different offsets. So worker 0 decides the offsets
of every pass and sends them to the others, and each worker makes its share of the same batches.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing import connection
from multiprocessing.context import BaseContext

from consumers.sequence.cursor import Cursor
from consumers.sequence.spec import cursor_from_json, cursor_to_json
from schema.errors import BrokerError, BrokerUnavailableError, FeedError, FeedmillError

_LOOK_INTERVAL_S = 0.1
_ERRORS = {error.__name__: error for error in (FeedError, BrokerError, BrokerUnavailableError)}


@dataclass(frozen=True)
class Failure:
    """An error that a worker yields in place of its next batch; raised inside torch it would become a traceback."""

    error: FeedmillError


class LoaderWorkers:
    """The pipes and the stop signal of one loader's workers; the loader makes them and passes them to each worker.

    Args:
        context: how the workers are started.
        workers: number of workers.
    """

    def __init__(self, context: BaseContext, workers: int) -> None:
        self._stop = context.Event()
        self._pipes = [context.Pipe(duplex=False) for _ in range(1, workers)]

    @property
    def stopped(self) -> bool:
        """Whether the loader wants no more batches."""
        return self._stop.is_set()

    def stop(self) -> None:
        """Make every worker stop waiting for new records."""
        self._stop.set()

    def close_pipes(self) -> None:
        """Close this process's ends of the pipes; the loader calls this once its workers have theirs."""
        for ends in self._pipes:
            for end in ends:
                end.close()

    def sent_to_others(self, passes: Iterator[Cursor | None]) -> Iterator[Cursor | None]:
        """Yield the items of `passes`, and send every cursor, or the error that ends them, to the other workers."""
        try:
            for following in passes:
                if following is not None:
                    self._send(cursor_to_json(following))
                yield following
        except FeedmillError as error:
            self._send({"error": type(error).__name__, "message": str(error)})
            raise

    def received_passes(self, worker: int) -> Iterator[Cursor | None]:
        """Yield the cursors that worker 0 sends to worker number `worker` (1 or more); None while nothing is new.

        Raises:
            FeedError, BrokerError: the error that ended worker 0.
        """
        receiving = self._pipes[worker - 1][0]
        while True:
            if not receiving.poll(_LOOK_INTERVAL_S):
                yield None
                continue
            message = json.loads(receiving.recv_bytes())
            if "error" in message:
                raise _ERRORS.get(message["error"], FeedError)(message["message"])
            yield cursor_from_json(message)

    def _send(self, message: object) -> None:
        for _, sending in self._pipes:
            sending.send_bytes(json.dumps(message).encode())


_watched = threading.Event()


def end_with_trainer() -> None:
    """End this worker process as soon as the process that made its loader has ended, even by `kill -9`.

    torch checks for its parent only between two batches, so a worker that waits for records would outlive it.
    """
    trainer = multiprocessing.parent_process()
    if trainer is None or _watched.is_set():
        return
    _watched.set()
    threading.Thread(target=_exit_after, args=(trainer.sentinel,), name="feedmill-parent", daemon=True).start()


def _exit_after(sentinel: int) -> None:
    connection.wait([sentinel])
    # No process is left to receive batches, and the main thread may wait forever.
    os._exit(1)
