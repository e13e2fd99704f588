"""Verdicts on solutions in the form of HumanEval-X equal those of `cargo test`, sample by sample, in both directions.

The solutions are those of `bench.rust_tasks`: a right one for each task, and wrong ones that give a wrong result,
panic, overflow or do not compile. cargo gets each sample as a program of its own, in one project. A program that does
not compile would end the build of all, so such programs get a call each.
"""

from __future__ import annotations

import os
import re
import subprocess
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from bench.rust_tasks import solution_rows
from consumers.code_evaluation.evaluation import evaluate
from consumers.code_evaluation.rust_crates import build_crates
from consumers.code_evaluation.rust_judge import RustJudge
from consumers.code_evaluation.rust_toolchain import find_rust
from consumers.code_evaluation.samples import CodeSample, sample_of
from consumers.code_evaluation.sandbox import make_sandbox

pytestmark = pytest.mark.slow

CRATES = {"md5": "0.7.0"}
MANIFEST = """
[package]
name = "solutions"
version = "0.0.0"
edition = "2021"

[dependencies]
md5 = "0.7.0"

[profile.test]
debug = 0
"""


def cargo_test(folder: Path, samples: Iterable[CodeSample], names: dict[str, str], *options: str) -> tuple[int, str]:
    """Write samples as programs of a project, run `cargo test` there, and return (status, stderr)."""
    programs = folder / "src" / "bin"
    programs.mkdir(parents=True, exist_ok=True)
    (folder / "Cargo.toml").write_text(MANIFEST)
    for sample in samples:
        (programs / f"{names[sample.task_id]}.rs").write_text(f"{sample.program}\n{sample.tests}", encoding="utf-8")
    done = subprocess.run(
        ["cargo", "test", "--quiet", "--no-fail-fast", *options],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=500,
        env={**os.environ, "CARGO_TERM_COLOR": "never", "CARGO_TARGET_DIR": str(folder / "target")},
        check=False,
    )
    return done.returncode, done.stderr


def test_verdicts_equal_those_of_cargo_test(tmp_path: Path) -> None:
    rows: list[tuple[dict[str, Any], bool]] = solution_rows()
    samples = [sample_of(row, "rust", row["task_id"]) for row, _ in rows]
    toolchain, stopping = find_rust(), threading.Event()
    judge = RustJudge(
        make_sandbox({"rust": toolchain.folder}, stopping),
        toolchain,
        run_tests=True,
        build=lambda: build_crates(tmp_path / "crates", CRATES, toolchain),
        crate_names=list(CRATES),
    )
    own = {}
    for verdict in evaluate(samples, judge, stopping, jobs=2, prefilter=False):
        assert verdict.judged is not None
        own[verdict.task_id] = (verdict.judged.compiled, verdict.judged.passed)

    names = {sample.task_id: re.sub(r"\W", "_", sample.task_id.lower()) for sample in samples}
    project = tmp_path / "project"
    status, said = cargo_test(project, [each for each in samples if own[each.task_id][0]], names, "--bins")
    # cargo names the programs whose tests failed; without any, it could not build one of them.
    failed = set(re.findall(r"^    `(?:-p \S+ )?--bin (\w+)`$", said, re.MULTILINE))
    assert status, said
    assert failed, said
    theirs = {each.task_id: (True, names[each.task_id] not in failed) for each in samples}
    broken = [each for each in samples if not own[each.task_id][0]]
    assert 2 <= len(broken) <= 8
    for sample in broken:
        status, said = cargo_test(project, [sample], names, "--bin", names[sample.task_id])
        theirs[sample.task_id] = ("could not compile" not in said, status == 0)
    assert own == theirs
    assert {row["task_id"]: passed for row, passed in rows} == {name: passed for name, (_, passed) in own.items()}
    assert len(samples) >= 50
