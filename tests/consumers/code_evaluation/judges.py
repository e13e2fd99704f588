"""Judges for tests, with the real toolchain and sandbox; if one is missing, the error says what to install."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

from consumers.code_evaluation.evaluation import evaluate
from consumers.code_evaluation.limits import COMPILING, MIB, TESTING
from consumers.code_evaluation.python_judge import PythonJudge, python_tools
from consumers.code_evaluation.rust_judge import RustJudge
from consumers.code_evaluation.rust_toolchain import find_rust
from consumers.code_evaluation.samples import sample_of
from consumers.code_evaluation.sandbox import Sandbox, make_sandbox
from consumers.code_evaluation.verdicts import CodeVerdict, Judged

# Lower than the defaults, so that a program that passes them costs a test little.
SHORT_TESTING = replace(TESTING, wall_s=5.0, memory_bytes=512 * MIB, processes=32)


@cache
def sandbox() -> Sandbox:
    return make_sandbox({"rust": find_rust().folder, **python_tools()}, threading.Event())


@cache
def judge(language: str, run_tests: bool = True, compile_limit_s: float = 30.0) -> RustJudge | PythonJudge:
    limits = {"compiling": replace(COMPILING, wall_s=compile_limit_s), "testing": SHORT_TESTING}
    if language == "rust":
        return RustJudge(sandbox(), find_rust(), run_tests=run_tests, **limits)
    return PythonJudge(sandbox(), run_tests=run_tests, **limits)


def verdicts(rows: Sequence[dict[str, Any]], language: str = "rust", **options: Any) -> list[CodeVerdict]:
    """Return the verdicts on rows, two of which are judged at once."""
    samples = [sample_of(row, language, f"row {number}") for number, row in enumerate(rows)]
    return list(evaluate(samples, judge(language), threading.Event(), jobs=2, **options))


def judged(row: dict[str, Any], language: str = "rust", compile_limit_s: float = 30.0) -> Judged:
    """Return what compiler, linter and tests say about one row."""
    return judge(language, compile_limit_s=compile_limit_s).judge(sample_of(row, language, "row"), 0)
