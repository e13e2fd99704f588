"""Judge many code samples at once, and give their verdicts in order."""

from __future__ import annotations

import os
import queue
import threading
import time
from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

from consumers.code_evaluation.prefilter import refused
from consumers.code_evaluation.samples import CodeSample
from consumers.code_evaluation.verdicts import CodeVerdict, Judged
from schema.source_code.isolated_marks import isolated_marks
from schema.source_code.marks import PATTERNS_EACH

# Samples that wait for a thread, for each thread.
_WAITING = 4


class SampleJudge(Protocol):
    """Judges samples of one language, in several threads at once."""

    language: str
    linter: str

    def judge(self, sample: CodeSample, slot: int) -> Judged:
        """Return what compiler, linter and tests say; no two calls at the same time have the same slot."""


def evaluate(
    samples: Iterable[CodeSample],
    judge: SampleJudge,
    stopping: threading.Event,
    *,
    jobs: int,
    prefilter: bool = True,
) -> Generator[CodeVerdict, None, None]:
    """Yield the verdicts on samples, in their order.

    Args:
        stopping: is set when this iterator ends early, so that running programs end.
        jobs: samples that are judged at once.
        prefilter: leave out samples that need no compiler to be refused.

    Raises:
        EvaluationError: the sandbox failed, or crates cannot be built.

    Example::

        stopping, toolchain = threading.Event(), find_rust()
        judge = RustJudge(make_sandbox({"rust": toolchain.folder}, stopping), toolchain, run_tests=True)
        sample = sample_of({"code": "fn main() {}"}, "rust", "line 1")
        [verdict] = evaluate([sample], judge, stopping, jobs=2)
        verdict.judged.compiled, verdict.judged.passed  # (True, True)
    """
    slots: queue.SimpleQueue[int] = queue.SimpleQueue()
    for slot in range(jobs):
        slots.put(slot)

    def verdict(sample: CodeSample) -> CodeVerdict:
        slot = slots.get()
        began = time.monotonic()
        try:
            judged = judge.judge(sample, slot)
        finally:
            slots.put(slot)
        seconds = time.monotonic() - began
        source = sample.program.encode("utf-8", "replace")
        (marks,) = isolated_marks([(source, sample.language)])
        return CodeVerdict(sample.task_id, None, judged, marks.idiomatic / PATTERNS_EACH, marks.documented, seconds)

    waiting: deque[CodeVerdict | Future[CodeVerdict]] = deque()
    with ThreadPoolExecutor(jobs, thread_name_prefix="judge") as pool:
        try:
            for sample in samples:
                reason = refused(sample) if prefilter else None
                waiting.append(
                    CodeVerdict(sample.task_id, reason) if reason is not None else pool.submit(verdict, sample)
                )
                while len(waiting) > jobs * _WAITING:
                    yield _result(waiting.popleft())
            while waiting:
                yield _result(waiting.popleft())
        except BaseException:
            stopping.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def usable_cores() -> int:
    """Return the number of cores that this process may use: how many samples are judged at once by default."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _result(one: CodeVerdict | Future[CodeVerdict]) -> CodeVerdict:
    return one if isinstance(one, CodeVerdict) else one.result()
