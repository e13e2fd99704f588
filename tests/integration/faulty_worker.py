"""A refine worker with one fault: `python -m tests.integration.faulty_worker FAULT`.

Faults:
- `commit-fails-while-stopping`: stopped in the middle of its third commit, which then fails;
- `hangs`: after its first group it takes no more records;
- `judges-slowly`: judging each of its first groups takes twice `refine_stall_s`.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaTimeoutError

from feedmill.cli import main
from streams.refine.group_judge import Judge, JudgedGroup
from streams.refine.worker_partitions import WorkerPartitions

_commit = AIOKafkaProducer.commit_transaction
_refine = WorkerPartitions.refine
_judge_group = Judge.judge_group
_counts = {"commits": 0, "groups": 0}


async def _fails_while_stopping(self: AIOKafkaProducer) -> None:
    _counts["commits"] += 1
    if _counts["commits"] == 3:
        os.kill(os.getpid(), signal.SIGTERM)
        # The next group is judged meanwhile, and waits for this one.
        await asyncio.sleep(1)
        raise KafkaTimeoutError
    await _commit(self)


async def _hangs(self: WorkerPartitions, records: Sequence[Any]) -> dict[int, int]:
    _counts["groups"] += 1
    if _counts["groups"] > 1:
        await asyncio.Event().wait()
    return await _refine(self, records)


def _judges_slowly(self: Judge, *arguments: Any) -> JudgedGroup:
    _counts["groups"] += 1
    if _counts["groups"] <= 2:
        time.sleep(2 * self.settings.refine_stall_s)
    return _judge_group(self, *arguments)


def _end_with_parent() -> None:
    while os.read(0, 1024):
        pass
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=_end_with_parent, daemon=True).start()
    fault = sys.argv[1]
    if fault == "commit-fails-while-stopping":
        AIOKafkaProducer.commit_transaction = _fails_while_stopping
    elif fault == "hangs":
        WorkerPartitions.refine = _hangs  # type: ignore[method-assign]
    elif fault == "judges-slowly":
        Judge.judge_group = _judges_slowly  # type: ignore[method-assign]
    else:
        sys.exit(f"no fault {fault!r}")
    main(["worker", "reduction"])
