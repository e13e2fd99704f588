"""Verdicts on solutions in the form of HumanEval-X equal those of `cargo test`, sample by sample, in both directions.

The solutions are those of `bench.rust_tasks`: a right one for each task, and wrong ones that give a wrong result,
panic, overflow or do not compile. Peculiar programs are added to them. cargo gets each sample as a program of its own,
in one project. A program that does not compile would end the build of all, so such programs get a call each.
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
from consumers.code_evaluation.verdicts import NOT_COMPILED, TESTS_NOT_COMPILED

pytestmark = pytest.mark.slow

CRATES = {"md5": "0.7.0"}
# Programs by what is peculiar about them. Each has a test.
PECULIAR = {
    "expects a panic": "#[test] #[should_panic] fn a() { panic!() }",
    "expects another panic": '#[test] #[should_panic(expected = "b")] fn a() { panic!("a") }',
    "is ignored": "#[test] #[ignore] fn a() { panic!() }",
    "returns an error": "#[test] fn a() -> Result<(), String> { Err(String::new()) }",
    "prints ten megabytes": '#[test] fn a() { for _ in 0..100_000 { println!("{}", "x".repeat(100)); } }',
    "has a hundred threads": "#[test] fn a() { for each in (0..100).map(|i| std::thread::spawn(move || i))"
    ".collect::<Vec<_>>() { each.join().unwrap(); } }",
    "nearly fills the stack": "fn f(n: u64) -> u64 { let x = [n; 20]; if n == 0 { 0 } else { std::hint::black_box(&x); "
    "1 + f(n - 1) } } #[test] fn a() { assert_eq!(f(9_000), 9000); }",
    "aborts": "#[test] fn a() { std::process::abort() }",
    "talks to itself": '#[test] fn a() { let l = std::net::TcpListener::bind("127.0.0.1:0").unwrap(); '
    "std::net::TcpStream::connect(l.local_addr().unwrap()).unwrap(); }",
    "fails where a generic constant is made": "struct S<const N: usize>; impl<const N: usize> S<N> { const OK: () = "
    "assert!(N > 3); fn f() { Self::OK } } pub fn g() { S::<2>::f() } #[test] fn a() { g() }",
    "overflows as a constant": "pub fn f() -> u8 { 255 + 1 } #[test] fn a() { f(); }",
    "denies a warning": "#![deny(unused_variables)]\npub fn f() { let x = 1; } #[test] fn a() { f(); }",
    "denies a lint of clippy": "#![deny(clippy::all)]\npub fn f() -> i32 { return 1; } #[test] fn a() { f(); }",
}
MANIFEST = """
[package]
name = "solutions"
version = "0.0.0"
edition = "2021"

[dependencies]
md5 = "0.7.0"
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
    peculiar = [{"task_id": name, "code": f"{code}\nfn main() {{}}\n"} for name, code in PECULIAR.items()]
    samples = [sample_of(row, "rust", "") for row in (*(row for row, _ in rows), *peculiar)]
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
        is_compiled = verdict.judged.failure not in (NOT_COMPILED, TESTS_NOT_COMPILED)
        own[verdict.task_id] = (is_compiled, verdict.judged.passed)

    names = {sample.task_id: re.sub(r"\W", "_", sample.task_id.lower()) for sample in samples}
    project = tmp_path / "project"
    status, said = cargo_test(project, [each for each in samples if own[each.task_id][0]], names, "--bins")
    # cargo names the programs whose tests failed; without any, it could not build one of them.
    failed = set(re.findall(r"^    `(?:-p \S+ )?--bin (\w+)`$", said, re.MULTILINE))
    assert status, said
    assert failed, said
    theirs = {each.task_id: (True, names[each.task_id] not in failed) for each in samples}
    broken = [each for each in samples if not own[each.task_id][0]]
    assert 5 <= len(broken) <= 10
    for sample in broken:
        status, said = cargo_test(project, [sample], names, "--bin", names[sample.task_id])
        theirs[sample.task_id] = ("could not compile" not in said, status == 0)
    assert own == theirs
    assert {row["task_id"]: own[row["task_id"]][1] for row, _ in rows} == {row["task_id"]: right for row, right in rows}
    assert len(samples) >= 60
