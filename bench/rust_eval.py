"""`feedmill bench rust-eval`: Rust samples a minute, beside cargo build and cargo clippy for each sample.

The samples are the solutions of `rust_tasks`, right and wrong, and variants of them that differ in a comment. Both
sides judge all of them on the same cores, one sample for each core at a time, and the verdicts must be equal: whether a
sample compiles, and how many warnings clippy has by lint.

The other side has what cargo offers: its project is built before, dependencies included, and each core keeps one. Only
the source of a sample changes. It needs no sandbox, because these samples are trusted.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.rust_tasks import solution_rows
from consumers.code_evaluation.evaluation import evaluate, usable_cores
from consumers.code_evaluation.rust_crates import build_crates
from consumers.code_evaluation.rust_diagnostics import diagnostics_of
from consumers.code_evaluation.rust_judge import RustJudge
from consumers.code_evaluation.rust_toolchain import find_rust
from consumers.code_evaluation.samples import CodeSample, sample_of
from consumers.code_evaluation.sandbox import make_sandbox
from schema.cache_folder import cache_folder
from schema.errors import EvaluationError
from schema.settings import load_settings

_SAMPLES = 120
# Both sides take turns after so many samples, so that other work on the machine slows both.
_TURN = 20
_CRATES = {"md5": "0.7.0"}
_MANIFEST = (
    '[package]\nname = "sample"\nversion = "0.0.0"\nedition = "2021"\n\n[dependencies]\nmd5 = "0.7.0"\n[workspace]\n'
)
_CALL_LIMIT_S = 120.0

# Whether a sample compiles, and clippy's warnings by lint.
_Verdict = tuple[bool, dict[str, int]]
_Judging = Callable[[list[CodeSample]], list[_Verdict]]


def run(rows: int = _SAMPLES) -> dict[str, Any]:
    """Return the rate of `rows` samples, with cargo as its peer.

    Keys: name, rate, unit, elapsed_s, rows, jobs, compiling (samples that compile), sandbox, and peers, a list of such
    objects with the ratio of the rates.

    Raises:
        EvaluationError: a verdict differs.
    """
    samples = _samples(rows)
    jobs = usable_cores()
    kind, judge_here = _judging_here(jobs)
    own: list[_Verdict] = []
    theirs: list[_Verdict] = []
    own_s = their_s = 0.0
    with _judging_by_cargo(jobs) as judge_by_cargo:
        for part in (samples[place : place + _TURN] for place in range(0, rows, _TURN)):
            for judge, verdicts in ((judge_here, own), (judge_by_cargo, theirs)):
                began = time.perf_counter()
                verdicts += judge(part)
                elapsed_s = time.perf_counter() - began
                own_s, their_s = (own_s + elapsed_s, their_s) if judge is judge_here else (own_s, their_s + elapsed_s)
    different = [each.task_id for each, one, other in zip(samples, own, theirs, strict=True) if one != other]
    if different:
        place = [each.task_id for each in samples].index(different[0])
        raise EvaluationError(
            f"{len(different)} of {rows} verdicts differ, first that of {different[0]} ({own[place]}, by cargo "
            f"{theirs[place]}): report it"
        )
    peer = _figures("cargo build + cargo clippy per sample", rows, their_s)
    return {
        **_figures("feedmill eval rust", rows, own_s),
        "jobs": jobs,
        "compiling": sum(compiled for compiled, _ in own),
        "sandbox": kind,
        "peers": [{**peer, "ratio": their_s / own_s}],
    }


def _figures(name: str, rows: int, elapsed_s: float) -> dict[str, Any]:
    return {"name": name, "rate": rows * 60 / elapsed_s, "unit": "samples/min", "elapsed_s": elapsed_s, "rows": rows}


def _samples(count: int) -> list[CodeSample]:
    """Return `count` samples, no two of them equal."""
    each = [sample_of(row, "rust", row["task_id"]) for row, _ in solution_rows()]
    samples = []
    for number in range(count):
        sample, turn = each[number % len(each)], number // len(each)
        program = f"// Variant {turn}.\n{sample.program}"
        samples.append(replace(sample, task_id=f"{sample.task_id}#{turn}", program=program))
    return samples


def _judging_here(jobs: int) -> tuple[str, _Judging]:
    """Return what protects this machine, and a function that judges samples in the sandbox."""
    toolchain, stopping = find_rust(), threading.Event()
    crates = build_crates(cache_folder(load_settings(), "rust-crates"), _CRATES, toolchain)
    sandbox = make_sandbox({"rust": toolchain.folder}, stopping)
    judge = RustJudge(sandbox, toolchain, build=lambda: crates, crate_names=list(_CRATES))

    def judge_samples(samples: list[CodeSample]) -> list[_Verdict]:
        verdicts = evaluate(samples, judge, stopping, jobs=jobs, prefilter=False)
        return [(each.judged.compiled, dict(each.judged.warnings)) for each in verdicts if each.judged is not None]

    judge_samples(_samples(jobs))
    return sandbox.kind, judge_samples


@contextmanager
def _judging_by_cargo(jobs: int) -> Iterator[_Judging]:
    """Yield a function that judges samples by cargo."""
    with tempfile.TemporaryDirectory(prefix="feedmill-bench-") as top, ThreadPoolExecutor(jobs) as pool:
        folders: queue.SimpleQueue[Path] = queue.SimpleQueue()
        for number in range(jobs):
            folder = Path(top, str(number))
            (folder / "src").mkdir(parents=True)
            (folder / "Cargo.toml").write_text(_MANIFEST)
            # Builds the dependencies, for both commands.
            _cargo_verdict(folder, "fn main() {}\n")
            folders.put(folder)

        def judge(sample: CodeSample) -> _Verdict:
            folder = folders.get()
            try:
                return _cargo_verdict(folder, sample.program)
            finally:
                folders.put(folder)

        yield lambda samples: list(pool.map(judge, samples))


def _cargo_verdict(folder: Path, program: str) -> _Verdict:
    """Return the verdict of cargo on a program.

    Raises:
        EvaluationError: cargo failed for another reason than the program.
    """
    (folder / "src" / "main.rs").write_text(program, encoding="utf-8")
    messages = []
    for command in ("build", "clippy"):
        done = subprocess.run(
            ["cargo", command, "--message-format=json", "--quiet"],
            cwd=folder,
            env={**os.environ, "CARGO_TARGET_DIR": str(folder / "target"), "CARGO_TERM_COLOR": "never"},
            capture_output=True,
            timeout=_CALL_LIMIT_S,
            check=False,
        )
        entries = [json.loads(line) for line in done.stdout.splitlines() if line.startswith(b"{")]
        said = [json.dumps(entry["message"]) for entry in entries if entry.get("reason") == "compiler-message"]
        counts = diagnostics_of("\n".join(said).encode())
        messages.append((done.returncode, counts))
        if done.returncode and not counts.errors and not counts.denied:
            line = done.stderr.decode("utf-8", "replace").strip().partition("\n")[0]
            raise EvaluationError(f"cargo {command} fails ({line}): check that cargo works here")
    (status, _), (_, linted) = messages
    return status == 0, dict(linted.warnings + linted.denied) if status == 0 else {}
