"""Starts the process of a contender, and asks it for passes."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from bench.feed.contenders import Contender
from bench.feed.tensors import TensorSums
from schema.errors import FeedmillError

_END_TIMEOUT_S = 30.0
# One thread per library. The data are local, so no library needs to ask the Hugging Face hub.
_ENVIRONMENT = {"POLARS_MAX_THREADS": "1", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


class BenchmarkError(FeedmillError):
    """A contender could not be measured, or its tensors are not those of its rows."""


class Measured:
    """A contender's process (`bench.feed.measuring`); a context manager that starts and ends it.

    Args:
        contender: the contender to measure.
        stored: the Parquet file of the rows.
        batch_size: rows in a batch.
        environment: environment variables of the process, the broker's settings among them.
        wanted: the sums that its tensors must have.

    Raises:
        BenchmarkError: on entry or in `one_pass`: the contender failed, or its tensors are wrong.
    """

    def __init__(
        self, contender: Contender, stored: Path, batch_size: int, environment: Mapping[str, str], wanted: TensorSums
    ) -> None:
        self.contender = contender
        self.padding_share = 0.0
        self._command = [sys.executable, "-m", "bench.feed.measuring", contender.key, str(stored), str(batch_size)]
        self._environment = {**environment, **_ENVIRONMENT}
        self._wanted = wanted
        self._process: subprocess.Popen[str]
        self._errors: IO[str]

    def __enter__(self) -> Measured:
        self._errors = tempfile.TemporaryFile("w+", errors="replace")
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env=self._environment,
        )
        try:
            first = self._answer()
            tally = TensorSums(*first["tally"])
            if tally != self._wanted:
                raise BenchmarkError(f"{self.contender.name} gave {tally}, but its rows are {self._wanted}: report it")
        except BaseException:
            self._end()
            raise
        self.padding_share = first["padding_share"]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def one_pass(self) -> dict[str, float]:
        """Make one pass and return its `elapsed_s` and `cpu_s`."""
        assert self._process.stdin is not None  # noqa: S101  # made with a pipe
        try:
            self._process.stdin.write("pass\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._failed() from None
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None  # noqa: S101  # made with a pipe
        line = self._process.stdout.readline()
        if not line:
            raise self._failed()
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _failed(self) -> BenchmarkError:
        status = self._process.wait(_END_TIMEOUT_S)
        self._errors.seek(0)
        last = (self._errors.read().strip().splitlines() or [f"status {status}"])[-1]
        return BenchmarkError(
            f"{self.contender.name} could not be measured ({last}): check that `make bench-install` was run"
        )

    def _end(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None  # noqa: S101  # made with pipes
            # A failed process no longer reads its input.
            with suppress(BrokenPipeError):
                pipe.close()
        try:
            self._process.wait(_END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._errors.close()
