"""A refine worker whose next commit can be made to fail: `python -m bench.storm.worker ORDER`.

It is the usual worker and ends with its parent; only the Kafka client's `commit_transaction` is replaced. If the file
ORDER exists when a transaction is committed, the file is deleted and the commit fails with a timeout, as if the broker
did not answer. If ORDER holds the word `stop`, the worker receives SIGTERM during that commit.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaTimeoutError

from bench.storm.faults import STOP
from feedmill.child_process import run

# Duration of the failing commit. Meanwhile the next group of raw records is judged, and an orderly stop begins.
_FAILING_S = 1.0


def inject(order: Path) -> None:
    """Make the next commit after `order` appears fail, in this process."""
    commit = AIOKafkaProducer.commit_transaction

    def taken() -> str | None:
        try:
            text = order.read_text()
            order.unlink()
        except OSError:
            return None
        return text

    async def commit_or_fail(producer: AIOKafkaProducer) -> None:
        text = taken()
        if text is None:
            await commit(producer)
            return
        print(f"storm: a commit fails ({text or 'alone'})", flush=True)
        if text == STOP:
            os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(_FAILING_S)
        raise KafkaTimeoutError("injected by the storm")

    AIOKafkaProducer.commit_transaction = commit_or_fail


if __name__ == "__main__":
    inject(Path(sys.argv[1]))
    run(["worker", *sys.argv[2:]])
