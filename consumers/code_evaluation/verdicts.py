"""Verdicts on code samples, and the figures of an evaluation."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

# The quality that generated code should have: a least share or score, or a most number of warnings.
TARGETS: Mapping[str, tuple[str, float]] = {
    "compile_rate": (">=", 0.95),
    "avg_{linter}_warnings": ("<=", 2.0),
    "avg_idiomatic_score": (">=", 0.7),
    "doc_comment_rate": (">=", 0.5),
}
# Names of errors that have no code of the compiler's.
UNCODED, INVALID_UTF8, CRASH = "uncoded", "invalid_utf8", "compiler_crash"
NOT_COMPILED, TESTS_NOT_COMPILED, FAILED, ENDED_EARLY = "not_compiled", "tests_not_compiled", "failed", "ended_early"
NO_TEST_RAN = "no_test_ran"
# The two-sided 95% quantile of the normal distribution.
_Z = 1.959963984540054


@dataclass(frozen=True)
class Judged:
    """What the compiler, the linter and the tests say about a sample.

    Attributes:
        compiled: whether the program compiles.
        errors: compile errors by code. `uncoded` has none, `invalid_utf8` is no text, `compiler_crash` ended the
            compiler; a limit that the compiler passed has its own name.
        warnings: warnings of the linter by lint; empty if the program does not compile.
        passed: whether the tests pass; None if none were asked for or there is none.
        failure: why they do not pass: `not_compiled`, `tests_not_compiled`, `failed`, `ended_early`, `no_test_ran`, or
            a limit.
    """

    compiled: bool
    errors: Mapping[str, int] = field(default_factory=dict)
    warnings: Mapping[str, int] = field(default_factory=dict)
    passed: bool | None = None
    failure: str | None = None

    @staticmethod
    def of(errors: Mapping[str, int], warnings: Mapping[str, int], test: Callable[[], str | None] | None) -> Judged:
        """Return the judgement of a program with these errors; `test` returns why its tests fail, or None."""
        if test is None:
            return Judged(not errors, errors, warnings)
        failure = NOT_COMPILED if errors else test()
        return Judged(not errors, errors, warnings, passed=failure is None, failure=failure)


@dataclass(frozen=True)
class CodeVerdict:
    """The verdict on one sample; the fields after `filter_reason` are None if the pre-filter left it out.

    Attributes:
        idiomatic: the idiomatic score of the program, 0 to 1.
        documented: whether the program has a doc comment or docstring.
        seconds: the time that compiling, linting and testing took.
    """

    task_id: str
    filter_reason: str | None = None
    judged: Judged | None = None
    idiomatic: float | None = None
    documented: bool | None = None
    seconds: float = 0.0

    def as_json(self, linter: str) -> dict[str, Any]:
        """Return the verdict as a JSON object, in which the warnings are under the linter's name."""
        judged = None if self.judged is None else asdict(self.judged)
        return {
            "task_id": self.task_id,
            "filtered": self.filter_reason is not None,
            "filter_reason": self.filter_reason,
            "compiled": judged and judged["compiled"],
            "passed": judged and judged["passed"],
            "failure": judged and judged["failure"],
            "error_code": next(iter(judged["errors"]), None) if judged else None,
            "errors": judged["errors"] if judged else {},
            linter: judged["warnings"] if judged else {},
            "idiomatic": self.idiomatic,
            "documented": self.documented,
            "seconds": round(self.seconds, 3),
        }


class VerdictTotals:
    """The figures of an evaluation, counted verdict by verdict.

    Args:
        linter: the linter's name, `clippy` or `ruff`.
    """

    def __init__(self, linter: str) -> None:
        self._linter = linter
        self.evaluated = self._compiled = self._documented = self._tested = self._passed = 0
        self._idiomatic = 0.0
        self._filtered: Counter[str] = Counter()
        self._errors: Counter[str] = Counter()
        self._warnings: Counter[str] = Counter()
        self._failures: Counter[str] = Counter()

    def add(self, verdict: CodeVerdict) -> None:
        """Count a verdict."""
        if verdict.filter_reason is not None:
            self._filtered[verdict.filter_reason] += 1
        judged = verdict.judged
        if judged is None:
            return
        self.evaluated += 1
        self._compiled += judged.compiled
        self._documented += bool(verdict.documented)
        self._idiomatic += verdict.idiomatic or 0.0
        self._errors.update(judged.errors)
        self._warnings.update(judged.warnings)
        self._tested += judged.passed is not None
        self._passed += bool(judged.passed)
        if judged.failure is not None:
            self._failures[judged.failure] += 1

    def summary(self) -> dict[str, Any]:
        """Return the figures; a rate of nothing is None.

        `avg_..._warnings` is over the samples that compile, `pass_rate` over those with tests, and the others over
        all that were evaluated.
        """
        return {
            "evaluated_samples": self.evaluated,
            "filtered_samples": self._filtered.total(),
            "filter_reasons": dict(self._filtered.most_common()),
            "compile_rate": _share(self._compiled, self.evaluated),
            "compile_rate_interval": wilson(self._compiled, self.evaluated),
            f"avg_{self._linter}_warnings": _share(self._warnings.total(), self._compiled),
            "avg_idiomatic_score": _share(self._idiomatic, self.evaluated),
            "doc_comment_rate": _share(self._documented, self.evaluated),
            "pass_rate": _share(self._passed, self._tested),
            "tested_samples": self._tested,
            "errors_by_code": dict(self._errors.most_common()),
            "warnings_by_lint": dict(self._warnings.most_common()),
            "test_failures": dict(self._failures.most_common()),
        }


def targets_of(summary: Mapping[str, Any], linter: str) -> dict[str, dict[str, Any]]:
    """Return each target with its bound, and whether the figures meet it; None if there is no figure."""
    marked = {}
    for pattern, (comparison, bound) in TARGETS.items():
        name = pattern.format(linter=linter)
        value = summary[name]
        met = None if value is None else value >= bound if comparison == ">=" else value <= bound
        marked[name] = {"target": f"{comparison} {bound}", "met": met}
    return marked


def _share(part: float, whole: int) -> float | None:
    return part / whole if whole else None


def wilson(successes: int, trials: int) -> tuple[float, float] | None:
    """Return the 95% confidence interval of a share; None without trials.

    It is the score interval of Wilson (1927): the shares that a test at 5% does not reject.

    >>> [round(bound, 3) for bound in wilson(8, 10)]
    [0.49, 0.943]
    """
    if not trials:
        return None
    share, square = successes / trials, _Z * _Z
    middle = share + square / (2 * trials)
    margin = _Z * math.sqrt(share * (1 - share) / trials + square / (4 * trials * trials))
    low, high = ((middle + side * margin) / (1 + square / trials) for side in (-1, 1))
    return max(0.0, low), min(1.0, high)
