"""Compiler and linter of a language, as a function of samples."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import closing

from consumers.code_evaluation.evaluation import SampleJudge, evaluate, usable_cores
from consumers.code_evaluation.python_judge import PythonJudge, python_tools
from consumers.code_evaluation.rust_judge import RustJudge
from consumers.code_evaluation.rust_toolchain import find_rust
from consumers.code_evaluation.samples import CodeSample
from consumers.code_evaluation.sandbox import make_sandbox
from consumers.code_evaluation.verdicts import CodeVerdict
from schema.errors import UsageError


class Judging:
    """Judges samples of a language in a sandbox: compiler and linter, no tests and no crates.

    Lints count even where the source allows them, because a model that is rewarded would learn to allow them.

    Raises:
        UsageError: there is no such language.
        ConfigError: a tool or a sandbox is missing.
    """

    def __init__(self, language: str, jobs: int | None, *, unsafe: bool) -> None:
        self._stopping = threading.Event()
        self._jobs = jobs or usable_cores()
        self._judge: SampleJudge
        if language == "rust":
            toolchain = find_rust()
            sandbox = make_sandbox({"rust": toolchain.folder}, self._stopping, unsafe=unsafe)
            self._judge = RustJudge(sandbox, toolchain, force_lints=True)
        elif language == "python":
            self._judge = PythonJudge(make_sandbox(python_tools(), self._stopping, unsafe=unsafe), force_lints=True)
        else:
            raise UsageError(f"there is no judge for {language}: use rust or python")

    @property
    def linter(self) -> str:
        """The name of the linter."""
        return self._judge.linter

    def __call__(self, samples: Iterable[CodeSample]) -> Iterator[CodeVerdict]:
        """Yield the verdict on each sample, in order."""
        with closing(evaluate(samples, self._judge, self._stopping, jobs=self._jobs)) as verdicts:
            yield from verdicts
