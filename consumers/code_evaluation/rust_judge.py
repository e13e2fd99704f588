"""Judge a Rust sample: compile and lint it in one pass, and run its tests.

1. `clippy-driver` compiles the program without its tests and lints it. It makes an object file, so it also finds the
   errors that only the generation of code finds; it links only programs that may fail at that.
2. If the source makes lints of clippy errors, or clippy crashes, `rustc` says whether the program compiles.
3. For tests, `rustc --test` compiles the program with them, and the result runs in a sandbox without the source. A
   program without tests is compiled and run, and passes if it ends with status 0.

Tests pass if the test harness ends with status 0 and says that there were some: a sample that ends the process early
does not pass, and neither does one that leaves out all tests by a condition.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from consumers.code_evaluation.limited_process import LimitedRun
from consumers.code_evaluation.limits import COMPILING, TESTING, ProcessLimits
from consumers.code_evaluation.rust_crates import BuiltCrates
from consumers.code_evaluation.rust_diagnostics import diagnostics_of
from consumers.code_evaluation.rust_toolchain import EDITION, RustToolchain
from consumers.code_evaluation.samples import CodeSample
from consumers.code_evaluation.sandbox import Call, Sandbox
from consumers.code_evaluation.verdicts import (
    CRASH,
    ENDED_EARLY,
    FAILED,
    INVALID_UTF8,
    NO_TEST_RAN,
    TESTS_NOT_COMPILED,
    Judged,
)
from schema.source_code.source_scan import RUST, has_main, scan

_SOURCE, _BINARY = "main.rs", "program"
# It must fit into the folder of the program that tests.
_BINARY_BYTES = TESTING.disk_bytes * 3 // 4
# What cargo tells the compiler about conditions, and what it leaves to its defaults.
_OPTIONS = (
    *("--crate-name", "sample", "--edition", EDITION, "--error-format=json", "-Ccodegen-units=1"),
    *("--check-cfg", "cfg(docsrs,test)", "--check-cfg", "cfg(feature, values())"),
)
# Lints of this group are errors by default, which would stop the compiler; the source can still make them errors.
_LINTS = ("-Wclippy::correctness",)
# No attribute of the source can allow these lints.
_FORCED = ("--force-warn", "clippy::all")
# A program with one of these may compile and then fail to link.
_LINKED = re.compile(r"\b(?:extern|no_mangle|link|link_name|link_section|export_name|global_asm|global_allocator)\b")
_TEST = re.compile(r"#\s*\[\s*(?:\w+\s*::\s*)*test\s*[\](]")
_ALL_PASSED = re.compile(rb"^test result: ok\. (\d+) passed; 0 failed; (\d+) ignored", re.MULTILINE)


class RustJudge:
    """Judges samples in Rust; several threads may call it at once.

    Args:
        sandbox: one with the tool `rust`, the folder of the toolchain.
        toolchain: its other facts.
        run_tests: compile and run the tests, too.
        build: builds the crates when a sample first names one; None if samples have no crates.
        crate_names: the names of these crates in source code.
        force_lints: count lints of clippy that the source allows, too.
        compiling, testing: the limits.
    """

    language, linter = RUST, "clippy"

    def __init__(
        self,
        sandbox: Sandbox,
        toolchain: RustToolchain,
        *,
        run_tests: bool = False,
        build: Callable[[], BuiltCrates] | None = None,
        crate_names: Sequence[str] = (),
        force_lints: bool = False,
        compiling: ProcessLimits = COMPILING,
        testing: ProcessLimits = TESTING,
    ) -> None:
        self._sandbox, self._toolchain, self._run_tests = sandbox, toolchain, run_tests
        self._lints = _LINTS + _FORCED if force_lints else _LINTS
        self._build, self._compiling, self._testing = build, compiling, testing
        names = "|".join(name.replace("-", "_") for name in crate_names)
        self._crate_name = re.compile(rf"\b(?:{names})\b") if names and build else None
        self._crates: BuiltCrates | None = None
        self._building = threading.Lock()

    @property
    def crate_versions(self) -> Mapping[str, str]:
        """The exact versions of the crates that samples were linked with; empty if no sample named one."""
        return {} if self._crates is None else self._crates.versions

    def judge(self, sample: CodeSample, slot: int) -> Judged:
        """Return what compiler, linter and tests say; `slot` as `Call` describes.

        Raises:
            EvaluationError: the sandbox failed, or crates cannot be built.
        """
        code = scan(sample.program, RUST).code
        is_program = has_main(sample.program)
        has_tests = _TEST.search(code + scan(sample.tests, RUST).code) is not None
        # Some test sets bring a main that asserts.
        is_run = self._run_tests and (has_tests or is_program or has_main(sample.tests))
        try:
            source = sample.program.encode()
            whole = f"{sample.program}\n{sample.tests}".encode()
        except UnicodeEncodeError:
            return Judged.of({INVALID_UTF8: 1}, {}, (lambda: None) if is_run else None)
        crates = self._crate_options(f"{sample.program}\n{sample.tests}")
        kind = ("--crate-type", "bin" if is_program else "lib")
        errors, warnings = self._compile(source, [*kind, *crates], code, slot)
        form = ["--test"] if has_tests else ["--crate-type", "bin"]
        return Judged.of(errors, warnings, (lambda: self._test(whole, form, crates, slot)) if is_run else None)

    def _crate_options(self, source: str) -> list[str]:
        """Return the options that let a source use crates; none for one that names no crate."""
        if self._crate_name is None or self._build is None or self._crate_name.search(source) is None:
            return []
        with self._building:
            if self._crates is None:
                self._crates = self._build()
                self._sandbox.add_tool("crates", self._crates.folder)
        place = self._sandbox.tool("crates")
        named = [f"--extern={name}={place}/{file}" for name, file in self._crates.files.items()]
        return ["-L", f"dependency={place}", *named]

    def _compile(
        self, source: bytes, options: Sequence[str], code: str, slot: int
    ) -> tuple[dict[str, int], dict[str, int]]:
        """Return (errors by code, warnings by lint); without errors the program compiles."""
        emit = "--emit=link" if _LINKED.search(code) else "--emit=obj=sample.o"
        ended = self._call(source, ["clippy-driver", *options, *self._lints, emit], slot)  # 1
        said = diagnostics_of(ended.stderr)
        errors, warnings = _errors(ended, said.errors), said.warnings + said.denied
        is_doubtful = said.denied or CRASH in errors
        if is_doubtful and ended.limit is None and not said.errors.keys() - {CRASH}:
            ended = self._call(source, ["rustc", *options, emit], slot)  # 2
            errors = _errors(ended, diagnostics_of(ended.stderr).errors)
        return errors, {} if errors else dict(warnings)

    def _call(self, source: bytes, command: Sequence[str], slot: int, returned: str | None = None) -> LimitedRun:
        """Run a program of the toolchain on a source."""
        program, *options = command
        path = f"{self._sandbox.tool('rust')}/bin/{program}"
        limits = self._compiling if returned is None else replace(self._compiling, output_bytes=_BINARY_BYTES)
        return self._sandbox.run(
            Call([path, _SOURCE, *_OPTIONS, *options], limits, {_SOURCE: source}, returned=returned, slot=slot)
        )

    def _test(self, source: bytes, form: Sequence[str], crates: Sequence[str], slot: int) -> str | None:
        """Compile and run a program, or its tests; return why they do not pass, or None."""
        # As in cargo's profile: with debug information, a stack holds fewer calls.
        options = [*form, *crates, "-Cdebuginfo=2", "-Cprefer-dynamic", "--emit=link", "-o", _BINARY, "-Awarnings"]
        compiled = self._call(source, ["rustc", *options], slot, returned=_BINARY)
        if compiled.status:
            return compiled.limit or TESTS_NOT_COMPILED
        library = f"{self._sandbox.tool('rust')}/lib/rustlib/{self._toolchain.target}/lib"
        environment = {
            "LD_LIBRARY_PATH": library,
            # One thread would be the main one, whose stack is larger than that of cargo test's threads.
            "RUST_TEST_THREADS": "2",
        }
        ended = self._sandbox.run(
            Call(
                [f"./{_BINARY}"],
                self._testing,
                programs={_BINARY: compiled.stdout},
                environment=environment,
                slot=slot,
            )
        )
        if ended.limit is not None or ended.status:
            return ended.limit or FAILED
        if "--test" not in form:
            return None
        passed = _ALL_PASSED.search(ended.stdout)
        if passed is None:
            return ENDED_EARLY
        return None if int(passed[1]) or int(passed[2]) else NO_TEST_RAN


def _errors(ended: LimitedRun, counted: Mapping[str, int]) -> dict[str, int]:
    """Return the errors of a compiler's run; empty if it compiled the source."""
    if ended.limit is not None:
        return {ended.limit: 1}
    if ended.status and not counted:
        return {CRASH: 1}
    return dict(counted)
