"""Verdicts on samples in Rust and Python, by the real compilers and linters, on bad input too."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from consumers.code_evaluation.evaluation import evaluate
from consumers.code_evaluation.python_judge import PythonJudge, python_tools
from consumers.code_evaluation.rust_judge import RustJudge
from consumers.code_evaluation.rust_toolchain import find_rust
from consumers.code_evaluation.samples import sample_of
from consumers.code_evaluation.sandbox import make_sandbox
from consumers.code_evaluation.verdicts import CodeVerdict, Judged, VerdictTotals, targets_of, wilson
from tests.consumers.code_evaluation.judges import judge, judged, verdicts

pytestmark = pytest.mark.slow

TESTS = "#[cfg(test)] mod tests { use super::*; #[test] fn test() { assert_eq!(f(), 1); } }"


# Fails for S<2>, which only the generation of code makes.
LATE = "struct S<const N: usize>;\nimpl<const N: usize> S<N> { const OK: () = assert!(N > 3); fn f() { Self::OK } }\n"
# Rust never ends to evaluate it, or to expand it.
CONSTANT = "const X: u64 = { let mut a = 0u64; while a < u64::MAX { a += 1; } a };\n"
MACRO = "macro_rules! m { ($($t:tt)*) => { m!($($t)* a) } }\n"
FILL = 'let mut v = vec![]; loop { v.push(1); std::fs::write(format!("f{}", v.len()), vec![1; 1 << 20]).unwrap() }'
# It sleeps where it cannot fork, because other samples need the cores.
FORK = """loop {
    if std::process::Command::new(std::env::current_exe().unwrap()).spawn().is_err() {
        std::thread::sleep(std::time::Duration::from_secs(9));
    }
}"""


def function(body: str, head: str = "") -> dict[str, str]:
    return {"code": f"{head}pub fn f() -> i32 {{ {body} }}\n", "tests": TESTS}


def program(body: str, head: str = "") -> dict[str, str]:
    return {"code": f"{head}fn main() {{ {body} }}\n"}


@pytest.mark.parametrize(
    ("row", "errors", "failure"),
    [
        (function("1"), {}, None),
        (function("2"), {}, "failed"),
        (function('"a"'), {"E0308": 1}, "not_compiled"),
        (function("1 + }"), {"uncoded": 1}, "not_compiled"),
        # Only the generation of code finds it.
        (
            program("S::<2>::f();", LATE),
            {"E0080": 1},
            "not_compiled",
        ),
        # Only the linker finds it.
        (program("unsafe { nowhere() }", 'extern "C" { fn nowhere(); }\n'), {"uncoded": 1}, "not_compiled"),
        # An error by default, but one of clippy and not of the compiler.
        (function("let x = 1; if x == x { 1 } else { 2 }"), {}, None),
        (function("std::process::exit(0)"), {}, "ended_early"),
        (function("2", "#![cfg(not(test))]\n"), {}, "no_test_ran"),
        ({"code": "pub fn f() -> i32 { 1 }", "tests": "#[test] fn test() { g(); }"}, {}, "tests_not_compiled"),
        (program("std::process::exit(3)"), {}, "failed"),
        (program(""), {}, None),
        # It reads the end of its input at once.
        (program("let mut s = String::new(); assert_eq!(std::io::stdin().read_line(&mut s).unwrap(), 0);"), {}, None),
    ],
)  # fmt: skip
def test_a_rust_sample_gets_its_verdict(row: dict[str, str], errors: dict[str, int], failure: str | None) -> None:
    said = judged(row)
    assert (said.errors, said.failure, said.compiled, said.passed) == (errors, failure, not errors, failure is None)


def test_warnings_are_counted_by_lint_even_where_the_source_makes_them_errors() -> None:
    body = "let v: Vec<i32> = Vec::new(); if v.len() == 0 { return 1; } return 1;"
    plain, denied = judged(function(body)), judged(function(body, "#![deny(clippy::all)]\n"))
    assert plain.warnings == {"clippy::len_zero": 1, "clippy::needless_return": 1}
    assert (denied.warnings, denied.errors, denied.passed) == (plain.warnings, {}, True)
    # The compiler's own warnings are no warnings of clippy.
    assert judged(function("let unused = 3; 1")).warnings == {}


HOSTILE = {
    "reads a file when it is compiled": (
        program("", 'const X: &str = include_str!("/etc/passwd");\n'),
        "uncoded",
        "not_compiled",
    ),
    "is no text": (function("1", "// \udcff\n"), "invalid_utf8", "not_compiled"),
    "has half a character": (function("1", "// \ud800\n"), "invalid_utf8", "not_compiled"),
    "expands for ever": (program("m!(a)", MACRO), "uncoded", "not_compiled"),
    "is nested deeply": (program("let _ = " + "(" * 100_000 + ")" * 100_000), "compiler_crash", "not_compiled"),
    "reads a file when it runs": (program('std::fs::read("/etc/passwd").unwrap();'), None, "failed"),
    "writes two megabytes": (
        program('for _ in 0..20_000 { println!("{}", "x".repeat(100)); }'),
        None,
        "output_limit",
    ),
    "is larger than its folder": (
        program('assert_eq!(X[std::env::args().count()], 1)', "static X: [u8; 90 << 20] = [1; 90 << 20];\n"),
        None,
        "output_limit",
    ),
    "sleeps for ever": (
        program("loop { std::thread::sleep(std::time::Duration::from_secs(9)) }"),
        None,
        "time_limit",
    ),
    "kills its parents": (
        program("unsafe { kill(-1, 9); kill(0, 9); }", 'extern "C" { fn kill(p: i32, s: i32) -> i32; }\n'),
        None,
        "killed",
    ),
    "fills its folder": (program(FILL), None, "failed"),
    "takes all memory": (program("let mut v = vec![]; loop { v.push(vec![1u8; 1 << 24]) }"), None, "memory_limit"),
    "forks": (program(FORK), None, "time_limit"),
}  # fmt: skip


def test_forced_lints_count_where_the_source_allows_them() -> None:
    allowing = "pub fn f(x: &Vec<u8>) -> bool {\n    #![allow(clippy::all)]\n    x.len() == 0\n}\n"
    unused = "import os  # noqa\n"
    tools = {"rust": find_rust().folder, **python_tools()}
    box = make_sandbox(tools, threading.Event())
    for forced, found in ((False, ({}, {})), (True, ({"clippy::ptr_arg": 1, "clippy::len_zero": 1}, {"F401": 1}))):
        rust = RustJudge(box, find_rust(), force_lints=forced).judge(sample_of({"code": allowing}, "rust", "row"), 0)
        python = PythonJudge(box, force_lints=forced).judge(sample_of({"code": unused}, "python", "row"), 0)
        assert (rust.compiled, python.compiled) == (True, True)
        assert (rust.warnings, python.warnings) == found


def test_hostile_samples_are_counted_verdicts_and_the_next_one_is_judged() -> None:
    rows = [row for row, _, _ in HOSTILE.values()] + [function("1")]
    said = verdicts(rows, prefilter=False)
    found = {
        name: (next(iter(each.judged.errors), None), each.judged.failure)
        for name, each in zip([*HOSTILE, "last"], said, strict=True)
        if each.judged is not None
    }
    assert found == {**{name: (error, failure) for name, (_, error, failure) in HOSTILE.items()}, "last": (None, None)}
    totals = VerdictTotals("clippy")
    for each in said:
        totals.add(each)
    assert totals.summary()["tested_samples"] == len(rows)
    assert totals.summary()["test_failures"]["not_compiled"] == 5


def test_a_sample_that_never_ends_to_compile_gets_a_verdict() -> None:
    endless = program('println!("{}", X)', f"#![allow(long_running_const_eval)]\n{CONSTANT}")
    said = judged(endless, compile_limit_s=2.0)
    assert (said.errors, said.failure) == ({"time_limit": 1}, "not_compiled")


PYTHON_TESTS = "import unittest\nclass Tests(unittest.TestCase):\n    def test_f(self): self.assertEqual(f(), 1)\n"
FUNCTION_TEST = "def test_f(): assert f() == 1\n"
CLASS_TEST = "class TestF:\n    def test_f(self): assert f() == 1\n"
HUMAN_EVAL = {"prompt": "def f():\n", "test": "def check(g): assert g() == 1\n", "entry_point": "f"}


@pytest.mark.parametrize(
    ("row", "error", "failure"),
    [
        ({"code": "def f(): return 1\n", "tests": PYTHON_TESTS}, None, None),
        ({"code": "def f(): return 2\n", "tests": PYTHON_TESTS}, None, "failed"),
        ({"code": "def f(): return 2\n", "tests": "def test_f(): assert f() == 1\n"}, None, "failed"),
        (
            {**HUMAN_EVAL, "completion": "    return 1\n"},
            None,
            None,
        ),
        (
            {**HUMAN_EVAL, "completion": "    return 2\n"},
            None,
            "failed",
        ),
        ({"code": "import os\nos._exit(0)\n", "tests": PYTHON_TESTS}, None, "ended_early"),
        # Every kind of test runs.
        ({"code": "def f(): return 2\n", "tests": "async def test_f(): assert f() == 1\n"}, None, "failed"),
        ({"code": "async def f(): return 1\n", "tests": "async def test_f(): assert await f() == 1\n"}, None, None),
        ({"code": "def f(): return 2\n", "tests": "def test_f():\n    assert f() == 1\n    yield\n"}, None, "failed"),
        ({"code": "def f(): return 2\n", "tests": CLASS_TEST}, None, "failed"),
        ({"code": "def f(): return 1\n", "tests": CLASS_TEST}, None, None),
        (
            {"code": "def f(): return 2\n", "tests": f"import functools\n@functools.cache\n{FUNCTION_TEST}"},
            None,
            "failed",
        ),
        ({"code": "def f(): return 1\n", "tests": "assert f() == 1\n"}, None, None),
        # A test that does not run proves nothing.
        ({"code": "def g(): return 1\n", "tests": HUMAN_EVAL["test"], "entry_point": "f"}, None, "failed"),
        ({"code": "def f(): return 1\n", "tests": HUMAN_EVAL["test"]}, None, "no_test_ran"),
        ({"code": "def f(): return 1\n", "tests": f"{HUMAN_EVAL['test']}check(f)\n"}, None, None),
        ({"code": "def f(): return 1\n", "tests": f"if 0:\n    {FUNCTION_TEST}"}, None, "no_test_ran"),
        # A function of the program may have the name of a test's.
        (
            {"code": "def check(a): return a\ndef f(): return check(1)\n", "tests": FUNCTION_TEST, "entry_point": "f"},
            None,
            None,
        ),
        ({"code": f"import atexit\ndef f(): return 1\natexit.register(print, 2)\n{FUNCTION_TEST}"}, None, None),
        ({"code": "print(open('/etc/passwd').read())\n"}, None, "failed"),
        ({"code": "import sys\nif __name__ == '__main__': sys.exit(0)\n"}, None, None),
        ({"code": "import os\nwhile True: os.fork()\n"}, None, "failed"),
        ({"code": "import time\ntime.sleep(99)\n"}, None, "time_limit"),
        ({"code": "x = = 1\n"}, "SyntaxError", "not_compiled"),
        ({"code": "return 1\n"}, "SyntaxError", "not_compiled"),
        ({"code": "def f():\nreturn 1\n"}, "IndentationError", "not_compiled"),
        ({"code": "# \udcff\n"}, "invalid_utf8", "not_compiled"),
    ],
)  # fmt: skip
def test_a_python_sample_gets_its_verdict(row: dict[str, str], error: str | None, failure: str | None) -> None:
    said = judged(row, "python")
    assert (next(iter(said.errors), None), said.failure) == (error, failure)
    assert (said.compiled, said.passed) == (error is None, failure is None)


def test_python_that_is_nested_too_deeply_is_not_compiled() -> None:
    # The error differs between versions of Python.
    said = judged({"code": "x = " + "-" * 500_000 + "1\n"}, "python")
    assert (said.compiled, said.failure, len(said.errors)) == (False, "not_compiled", 1)


def test_python_warnings_are_counted_by_rule_and_compiling_runs_nothing() -> None:
    said = judge("python", run_tests=False).judge(
        sample_of({"code": "import os\nraise SystemExit(3)\n"}, "python", "row"), 0
    )
    assert (said.compiled, said.warnings["F401"], said.passed) == (True, 1, None)


def test_verdicts_come_in_the_order_of_the_samples_with_the_scores_of_the_syntax_tree() -> None:
    documented = {"code": "/// One.\npub fn f() -> Option<i32> { Some(1) }\n", "id": "documented"}
    said = verdicts([function("1"), {"code": "", "id": "empty"}, documented])
    assert [(each.task_id, each.filter_reason) for each in said] == [
        ("row 0", None),
        ("empty", "empty"),
        ("documented", None),
    ]
    assert (said[2].documented, said[2].idiomatic) == (True, 1 / 8)
    line = said[1].as_json("clippy")
    assert (line["filtered"], line["compiled"], line["clippy"]) == (True, None, {})


def test_a_failed_judge_ends_the_evaluation_with_its_error() -> None:
    class Failing:
        language, linter = "rust", "clippy"

        def judge(self, sample: Any, slot: int) -> Judged:
            raise RuntimeError("no sandbox")

    stopping = threading.Event()
    samples = (sample_of({"code": "fn f() {}"}, "rust", f"{number}") for number in range(100))
    with pytest.raises(RuntimeError, match="no sandbox"):
        list(evaluate(samples, Failing(), stopping, jobs=2))
    assert stopping.is_set()


def test_the_figures_are_over_the_samples_that_they_name() -> None:
    totals = VerdictTotals("clippy")
    assert totals.summary()["compile_rate"] is None
    assert totals.summary()["compile_rate_interval"] is None
    totals.add(CodeVerdict("1", None, Judged(True, {}, {"clippy::a": 3}, True), 0.5, True))
    totals.add(CodeVerdict("2", None, Judged(False, {"E1": 1}, {}, False, "not_compiled"), 0.25, False))
    totals.add(CodeVerdict("3", None, Judged(True, {}, {}), 0.0, False))
    totals.add(CodeVerdict("4", "empty"))
    summary = totals.summary()
    assert summary == {
        "evaluated_samples": 3,
        "filtered_samples": 1,
        "filter_reasons": {"empty": 1},
        "compile_rate": 2 / 3,
        "compile_rate_interval": wilson(2, 3),
        "avg_clippy_warnings": 1.5,
        "avg_idiomatic_score": 0.25,
        "doc_comment_rate": 1 / 3,
        "pass_rate": 0.5,
        "tested_samples": 2,
        "errors_by_code": {"E1": 1},
        "warnings_by_lint": {"clippy::a": 3},
        "test_failures": {"not_compiled": 1},
    }
    assert {name: target["met"] for name, target in targets_of(summary, "clippy").items()} == {
        "compile_rate": False,
        "avg_clippy_warnings": True,
        "avg_idiomatic_score": False,
        "doc_comment_rate": False,
    }


def test_wilsons_interval_equals_published_values() -> None:
    # Newcombe (1998), table I.
    for successes, trials, low, high in ((81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611)):
        interval = wilson(successes, trials)
        assert interval is not None
        assert [round(bound, 4) for bound in interval] == [low, high]
