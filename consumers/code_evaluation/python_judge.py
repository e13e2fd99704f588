"""Judge a Python sample: compile and lint it in one sandbox, and run its tests in another.

1. `py_compile` compiles the program without running it, and ruff lints it with its default rules.
2. For tests, the program with its tests is imported, so that a part for `__main__` does not run. Then `check` is called
   with the entry point (HumanEval), and all functions named `test_...`, such methods of classes named `Test...`, and
   all unittest cases run. A program without tests runs as a script, and passes if it ends with status 0.

Tests pass if the process ends with status 0 after the last test: a sample that ends the process early does not pass,
and neither does one of whose tests none runs.
"""

from __future__ import annotations

import json
import re
import secrets
import shutil
import subprocess
import sys
import sysconfig
from collections import Counter
from pathlib import Path

from consumers.code_evaluation.limited_process import LimitedRun
from consumers.code_evaluation.limits import COMPILING, TESTING, ProcessLimits
from consumers.code_evaluation.samples import CodeSample
from consumers.code_evaluation.sandbox import PYTHON as PROGRAM
from consumers.code_evaluation.sandbox import PYTHON_PROGRAM, Call, Sandbox
from consumers.code_evaluation.verdicts import (
    CRASH,
    ENDED_EARLY,
    FAILED,
    INVALID_UTF8,
    NO_TEST_RAN,
    UNCODED,
    Judged,
)
from schema.errors import ConfigError
from schema.source_code.source_scan import PYTHON, scan

_SOURCE = "sample.py"
_BOTH = """\
"$1" -I -S -B -m py_compile "$3" >&2
status=$?
"$2" check --isolated --no-cache --quiet --output-format=json $4 "$3"
exit $status
"""
# Runs in the sandbox with the entry point and the first line of the tests. After the last test it writes the word on
# standard input, or without one that ran its second half; the sample cannot know them.
_TESTS = """\
import ast, sys, unittest
word, none_ran = sys.stdin.readline().split()
sys.path.insert(0, ".")
import sample
found = dict(vars(sample))
entry_point, first_line = sys.argv[1], int(sys.argv[2])
ran = 0

def run(test):
    global ran
    result = test()
    if hasattr(result, "__await__"):
        import asyncio

        async def ended():
            await result

        asyncio.run(ended())
    elif hasattr(result, "__next__"):
        for _ in result:
            pass
    ran += 1

if callable(found.get("check")) and entry_point:
    run(lambda: found["check"](found[entry_point]))
for name, each in found.items():
    is_class = isinstance(each, type)
    if name.startswith("test_") and callable(each) and not is_class:
        run(each)
    elif name.startswith("Test") and is_class and not issubclass(each, unittest.TestCase):
        for method in dir(each):
            if method.startswith("test_"):
                run(getattr(each(), method))
load = unittest.defaultTestLoader.loadTestsFromTestCase
cases = [each for each in found.values() if isinstance(each, type) and issubclass(each, unittest.TestCase)]
if cases:
    result = unittest.TextTestRunner().run(unittest.TestSuite(map(load, cases)))
    if not result.wasSuccessful():
        sys.exit(1)
    ran += result.testsRun
if not ran:
    # Statements of the tests, such as assert, ran when they were imported.
    with open("sample.py", "rb") as stream:
        lines = ast.parse(stream.read()).body
    kinds = ast.Assert, ast.For, ast.While, ast.With, ast.Try
    ran = sum(
        isinstance(each, kinds) or (isinstance(each, ast.Expr) and isinstance(each.value, ast.Call))
        for each in lines
        if each.lineno >= first_line
    )
print()
print(word if ran else none_ran, flush=True)
"""
_TEST = re.compile(r"\bdef\s+test_|\bunittest\b")
_CHECK = re.compile(r"^def\s+check\b", re.MULTILINE)
# As Python counts lines.
_LINE_END = re.compile(r"\r\n|\r|\n")
# py_compile apologizes for some errors.
_ERROR = re.compile(rb"^(?:Sorry: )?(?:\w+\.)*(\w*(?:Error|Exception))\b")
_LINTER_CRASH = "linter_crash"
_CODE = re.compile("[A-Z]+[0-9]+")


class PythonJudge:
    """Judges samples in Python; several threads may call it at once.

    Args:
        sandbox: one with `python_tools`.
        run_tests: run the tests, too.
        force_lints: count lints that comments of the source allow (`noqa`), too.
        compiling, testing: the limits.
    """

    language, linter = PYTHON, "ruff"

    def __init__(
        self,
        sandbox: Sandbox,
        *,
        run_tests: bool = False,
        force_lints: bool = False,
        compiling: ProcessLimits = COMPILING,
        testing: ProcessLimits = TESTING,
    ) -> None:
        self._sandbox, self._run_tests = sandbox, run_tests
        self._compiling, self._testing = compiling, testing
        self._ruff_option = "--ignore-noqa" if force_lints else ""

    def judge(self, sample: CodeSample, slot: int) -> Judged:
        """Return what compiler, linter and tests say; `slot` as `Call` describes.

        Raises:
            EvaluationError: the sandbox failed.
        """
        try:
            source = sample.program.encode()
            whole = f"{sample.program}\n\n{sample.tests}\n".encode()
        except UnicodeEncodeError:
            return Judged.of({INVALID_UTF8: 1}, {}, (lambda: None) if self._run_tests else None)
        python, ruff = self._sandbox.tool(PROGRAM), self._sandbox.tool("ruff")
        command = ["/bin/sh", "-c", _BOTH, "sh", python, ruff, _SOURCE, self._ruff_option]
        ended = self._sandbox.run(Call(command, self._compiling, {_SOURCE: source}, slot=slot))  # 1
        error = _error_of(ended)
        errors = {} if error is None else {error: 1}
        warnings = {} if errors else lints_of(ended.stdout)
        return Judged.of(errors, warnings, (lambda: self._test(sample, whole, slot)) if self._run_tests else None)  # 2

    def _test(self, sample: CodeSample, whole: bytes, slot: int) -> str | None:
        """Run a program, or its tests; return why they do not pass, or None."""
        python = self._sandbox.tool(PROGRAM)
        if not sample.tests and _TEST.search(scan(sample.program, PYTHON).code) is None:
            ended = self._sandbox.run(Call([python, "-I", "-B", _SOURCE], self._testing, {_SOURCE: whole}, slot=slot))
            return None if not ended.status and ended.limit is None else ended.limit or FAILED
        words = secrets.token_hex(16), secrets.token_hex(16)
        # A program may have a function `check` that is no test.
        entry_point = sample.entry_point if _CHECK.search(sample.tests or sample.program) else ""
        # Two line feeds are between them.
        first_line = len(_LINE_END.findall(sample.program)) + 3 if sample.tests else 1
        command = [python, "-I", "-B", "-c", _TESTS, entry_point, str(first_line)]
        stdin = " ".join(words).encode()
        ended = self._sandbox.run(Call(command, self._testing, {_SOURCE: whole}, stdin=stdin, slot=slot))
        if ended.status or ended.limit is not None:
            return ended.limit or FAILED
        lines = ended.stdout.splitlines()
        if words[1].encode() in lines:
            return NO_TEST_RAN
        # The sample may write more at its exit.
        return None if words[0].encode() in lines else ENDED_EARLY


def python_tools() -> dict[str, Path]:
    """Return the tools that a sandbox for Python samples has; raises as `find_ruff` does."""
    return {PROGRAM: PYTHON_PROGRAM, "ruff": find_ruff()}


def find_ruff() -> Path:
    """Return the program ruff.

    Raises:
        ConfigError: it is missing.
    """
    own = Path(sysconfig.get_path("scripts"), "ruff")
    found = own if own.is_file() else shutil.which("ruff")
    if found is None:
        raise ConfigError("ruff is missing, and lints samples in Python: install it with `pip install feedmill[code]`")
    return Path(found).resolve()


def lints_of(output: bytes) -> dict[str, int]:
    """Return the number of warnings by rule in ruff's JSON; one `linter_crash` if it is not JSON.

    >>> lints_of(b'[{"code": "F401"}, {"code": "F401"}, {"code": null}]')
    {'F401': 2}
    """
    try:
        entries = json.loads(output)
    except (ValueError, RecursionError):
        return {_LINTER_CRASH: 1}
    codes = [str(entry.get("code")) for entry in entries if isinstance(entry, dict)]
    return dict(Counter(code for code in codes if _CODE.fullmatch(code)))


def _error_of(ended: LimitedRun) -> str | None:
    """Return the name of the error that kept the compiler from compiling; None if it did not."""
    if ended.limit is not None or not ended.status:
        return ended.limit
    for line in reversed(ended.stderr.splitlines()):
        if match := _ERROR.match(line):
            return match[1].decode()
    return CRASH if ended.status > 1 else UNCODED


def python_facts() -> dict[str, str]:
    """Return the versions of the compiler and the linter; raises as `find_ruff` does."""
    done = subprocess.run([find_ruff(), "--version"], capture_output=True, text=True, timeout=60, check=False)
    return {"compiler": f"Python {'.'.join(map(str, sys.version_info[:3]))}", "linter": done.stdout.strip()}
