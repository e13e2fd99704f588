"""`feedmill bench rust-eval`: verdicts are compared with those of cargo, and one that differs is an error."""

from __future__ import annotations

from contextlib import nullcontext

import pytest

from bench import rust_eval
from bench.rust_tasks import solution_rows
from schema.errors import EvaluationError

pytestmark = pytest.mark.slow


def test_both_sides_give_the_same_verdicts_and_their_rates() -> None:
    figures = rust_eval.run(12)
    (peer,) = figures["peers"]
    assert (figures["rows"], figures["compiling"], peer["rows"]) == (12, 11, 12)
    assert peer["ratio"] == pytest.approx(figures["rate"] / peer["rate"])


def test_a_verdict_that_differs_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rust_eval, "_judging_here", lambda jobs: ("none", lambda samples: [(False, {})] * len(samples)))
    cargo = nullcontext(lambda samples: [(True, {})] * len(samples))
    monkeypatch.setattr(rust_eval, "_judging_by_cargo", lambda jobs: cargo)
    with pytest.raises(EvaluationError, match="10 of 10 verdicts differ, first that of Rust/0#0"):
        rust_eval.run(10)


def test_every_task_has_a_right_solution_and_a_wrong_one() -> None:
    rows = solution_rows()
    right = {row["task_id"] for row, passed in rows if passed}
    wrong = {row["task_id"].rpartition("/wrong-")[0] for row, passed in rows if not passed}
    assert right == wrong
    assert len(right) >= 20
