"""The commands `feedmill eval rust` and `feedmill eval python`: compiler, linter and tests judge code samples."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

from feedmill.progress import progress
from schema.errors import UsageError
from schema.settings import load_settings
from schema.stale_files import in_making

if TYPE_CHECKING:
    from consumers.code_evaluation.evaluation import SampleJudge
    from consumers.code_evaluation.limits import ProcessLimits
    from consumers.code_evaluation.samples import CodeSample
    from consumers.code_evaluation.sandbox import Sandbox
    from consumers.code_evaluation.verdicts import VerdictTotals

_METRICS = Path("metrics.jsonl")
# The built crates of samples, in the cache folder.
_CRATES = "rust-crates"

File = Annotated[Path | None, typer.Argument(metavar="FILE.jsonl", help="Code samples; or give --topic.")]
Topic = Annotated[bool, typer.Option("--topic", help="Judge the documents of the topic code.clean instead.")]
Split = Annotated[str | None, typer.Option(help="With --topic: only train, val or test.")]
Tests = Annotated[bool, typer.Option("--run-tests", help="Also compile and run the tests; programs without are run.")]
NoPrefilter = Annotated[bool, typer.Option("--no-prefilter", help="Compile samples that are obviously wrong, too.")]
Jobs = Annotated[int | None, typer.Option(min=1, max=256, help="Samples at once.", show_default="one for each core")]
CompileLimit = Annotated[float, typer.Option(min=1, max=3600, metavar="S", help="Seconds to compile and lint.")]
TestLimit = Annotated[float, typer.Option(min=1, max=3600, metavar="S", help="Seconds that tests may run.")]
Out = Annotated[Path | None, typer.Option(metavar="F.jsonl", help="Write the verdict on each sample to this file.")]
Metrics = Annotated[Path, typer.Option(help="Append the figures to this file, a line of JSON for each evaluation.")]
Unsafe = Annotated[
    bool, typer.Option("--unsafe-no-sandbox", help="Run samples with your rights: only for code that you trust.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object with all verdicts on stdout.")]


@dataclass(frozen=True)
class _Request:
    """What the options that both languages share ask for."""

    file: Path | None
    topic: bool
    split: str | None
    programs: bool
    run_tests: bool
    prefilter: bool
    jobs: int | None
    compile_limit_s: float
    test_limit_s: float
    out: Path | None
    metrics: Path
    unsafe: bool
    as_json: bool

    def limits(self) -> tuple[ProcessLimits, ProcessLimits]:
        """Return the limits on compiling and on testing."""
        from consumers.code_evaluation.limits import COMPILING, TESTING

        return replace(COMPILING, wall_s=self.compile_limit_s), replace(TESTING, wall_s=self.test_limit_s)


def eval_rust_command(
    file: File = None,
    topic: Topic = False,
    split: Split = None,
    run_tests: Tests = False,
    no_prefilter: NoPrefilter = False,
    programs: Annotated[bool, typer.Option("--programs", help="Filter out samples without fn main.")] = False,
    crate: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[=VERSION]", help="A crate that samples may use; repeatable.", show_default="rand, regex, md5"
        ),
    ] = None,
    no_crates: Annotated[bool, typer.Option("--no-crates", help="Samples have the standard library only.")] = False,
    jobs: Jobs = None,
    compile_limit: CompileLimit = 30.0,
    test_limit: TestLimit = 15.0,
    out: Out = None,
    metrics: Metrics = _METRICS,
    unsafe_no_sandbox: Unsafe = False,
    as_json: AsJson = False,
) -> None:
    """Judge Rust samples in a sandbox: rustc and clippy in one pass, scores of the syntax tree, and tests.

    A line has `code`, or `prompt` and `completion`, and perhaps `tests` and `task_id`. HumanEval-X is read as it is.
    """
    from consumers.code_evaluation.rust_crates import DEFAULT_CRATES, BuiltCrates, build_crates, named_crates
    from consumers.code_evaluation.rust_judge import RustJudge
    from consumers.code_evaluation.rust_toolchain import find_rust
    from schema.cache_folder import cache_folder

    if no_crates and crate:
        raise UsageError("--no-crates leaves out all crates, and --crate names one: give one of the two")
    crates = {} if no_crates else named_crates(crate) if crate else dict(DEFAULT_CRATES)
    request = _request(
        file, topic, split, programs, run_tests, no_prefilter, jobs, compile_limit, test_limit, out, metrics,
        unsafe_no_sandbox, as_json,
    )  # fmt: skip
    toolchain = find_rust()
    judges: list[RustJudge] = []

    def build() -> BuiltCrates:
        return build_crates(cache_folder(load_settings(), _CRATES), crates, toolchain)

    def judge(sandbox: Sandbox) -> SampleJudge:
        compiling, testing = request.limits()
        judges.append(
            RustJudge(
                sandbox,
                toolchain,
                run_tests=run_tests,
                build=build if crates else None,
                crate_names=list(crates),
                compiling=compiling,
                testing=testing,
            )
        )
        return judges[0]

    _evaluate(
        request,
        "rust",
        {"rust": toolchain.folder},
        judge,
        lambda: {"compiler": f"rustc {toolchain.version}", "crates": dict(judges[0].crate_versions)},
    )


def eval_python_command(
    file: File = None,
    topic: Topic = False,
    split: Split = None,
    run_tests: Tests = False,
    no_prefilter: NoPrefilter = False,
    jobs: Jobs = None,
    compile_limit: CompileLimit = 30.0,
    test_limit: TestLimit = 15.0,
    out: Out = None,
    metrics: Metrics = _METRICS,
    unsafe_no_sandbox: Unsafe = False,
    as_json: AsJson = False,
) -> None:
    """Judge Python samples in a sandbox: the compiler, ruff, scores of the syntax tree, and tests.

    A line has `code`, or `prompt` and `completion`, and perhaps `tests`, `entry_point` and `task_id`, as in HumanEval.
    """
    from consumers.code_evaluation.python_judge import PythonJudge, python_facts, python_tools

    request = _request(
        file, topic, split, False, run_tests, no_prefilter, jobs, compile_limit, test_limit, out, metrics,
        unsafe_no_sandbox, as_json,
    )  # fmt: skip

    def judge(sandbox: Sandbox) -> SampleJudge:
        compiling, testing = request.limits()
        return PythonJudge(sandbox, run_tests=run_tests, compiling=compiling, testing=testing)

    _evaluate(request, "python", python_tools(), judge, python_facts)


def _request(
    file: Path | None,
    topic: bool,
    split: str | None,
    programs: bool,
    run_tests: bool,
    no_prefilter: bool,
    *further: Any,
) -> _Request:
    """Return the request of a command line.

    Raises:
        UsageError: the options contradict each other.
    """
    if (file is None) == (not topic):
        raise UsageError("give either a file of code samples, or --topic for the documents of the topic code.clean")
    if split is not None and (not topic or split not in ("train", "val", "test")):
        raise UsageError(f"--split {split} applies to --topic, and is one of train, val, test")
    request = _Request(file, topic, split, programs, run_tests, not no_prefilter, *further)
    paths = [path.resolve() for path in (file, request.out, request.metrics) if path is not None]
    if len(set(paths)) < len(paths):
        raise UsageError("the file of samples, --out and --metrics are three different files: choose another name")
    return request


def _evaluate(
    request: _Request,
    language: str,
    tools: Mapping[str, Path],
    make_judge: Callable[[Sandbox], SampleJudge],
    facts: Callable[[], Mapping[str, Any]],
) -> None:
    """Evaluate samples, and write and show what was found."""
    from consumers.code_evaluation.evaluation import evaluate, usable_cores
    from consumers.code_evaluation.sandbox import make_sandbox
    from consumers.code_evaluation.verdicts import VerdictTotals

    stopping = threading.Event()
    sandbox = make_sandbox(tools, stopping, unsafe=request.unsafe)
    judge = make_judge(sandbox)
    jobs = request.jobs or usable_cores()
    totals, verdicts = VerdictTotals(judge.linter), []
    began = time.monotonic()
    with ExitStack() as stack:
        samples, bad_lines = _samples(request, language)
        lines = stack.enter_context(_appending(request.metrics))
        written = None if request.out is None else in_making(request.out, "part")
        if written is not None:
            stack.callback(written.unlink, missing_ok=True)
        to_file = None if written is None else stack.enter_context(_writing(written))
        advance = stack.enter_context(progress("judging", None, "samples", quiet=request.as_json))
        judged = evaluate(samples, judge, stopping, jobs=jobs, prefilter=request.prefilter)
        # After an interrupt here, it ends the programs that run.
        for done, verdict in enumerate(stack.enter_context(closing(judged)), 1):
            totals.add(verdict)
            line = verdict.as_json(judge.linter)
            if request.as_json:
                verdicts.append(line)
            if to_file is not None:
                to_file.write(f"{json.dumps(line)}\n")
            advance(done, _note(totals))
        report = _report(request, language, totals, judge.linter, time.monotonic() - began)
        report |= {"sandbox": sandbox.kind, **facts(), **bad_lines()}
        lines.write(f"{json.dumps(report)}\n")
        if to_file is not None and written is not None and request.out is not None:
            to_file.close()
            written.replace(request.out)
    if request.as_json:
        print(json.dumps({**report, "verdicts": verdicts}))
        return
    from rich.console import Console

    from feedmill.code_evaluation_tables import code_evaluation_tables

    Console().print(code_evaluation_tables(report))


def _samples(request: _Request, language: str) -> tuple[Iterable[CodeSample], Callable[[], dict[str, Any]]]:
    """Return the samples, and a function that returns what was no sample once all are read."""
    if request.file is None:
        from broker.clients import connect
        from consumers.code_evaluation.clean_samples import clean_samples

        return clean_samples(connect(load_settings()), language, request.split), lambda: {"bad_lines": {}}
    from consumers.code_evaluation.sample_files import SampleFile

    file = SampleFile(request.file, language, programs=request.programs)
    file.check()
    return file, lambda: {"bad_lines": dict(file.bad_lines), "bad_places": file.bad_places}


def _report(request: _Request, language: str, totals: VerdictTotals, linter: str, elapsed_s: float) -> dict[str, Any]:
    from consumers.code_evaluation.verdicts import targets_of

    summary = totals.summary()
    judged = totals.evaluated
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "source": "code.clean" if request.file is None else str(request.file),
        "language": language,
        "run_tests": request.run_tests,
        **summary,
        "targets": targets_of(summary, linter),
        "elapsed_s": round(elapsed_s, 3),
        "samples_per_minute": round(judged * 60 / elapsed_s, 1) if elapsed_s > 0 else None,
    }


def _note(totals: VerdictTotals) -> str:
    share = totals.summary()["compile_rate"]
    return "" if share is None else f"{share:.0%} compile"


def _appending(path: Path) -> IO[str]:
    try:
        return path.open("a", encoding="utf-8")
    except OSError as error:
        raise UsageError(f"--metrics {path} cannot be written ({error.strerror}): choose another place") from error


def _writing(path: Path) -> IO[str]:
    try:
        return path.open("w", encoding="utf-8")
    except OSError as error:
        raise UsageError(
            f"--out cannot be written at {path.parent} ({error.strerror}): choose another place"
        ) from error
