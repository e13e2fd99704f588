"""What an expert keeps, and that the documents made of it are valid."""

from __future__ import annotations

from dataclasses import replace

import polars as pl
import pytest

from consumers.code_evaluation.verdicts import CodeVerdict, Judged
from consumers.expert_iteration.completions import figures
from consumers.expert_iteration.experts import Bounds, does_nothing, expert_document, left_out
from consumers.expert_iteration.prompts import FunctionPrompt
from producers.source_code.documents import document_rows
from schema.errors import UsageError
from schema.source_code import FAMILY

PROMPT = FunctionPrompt(
    task_id="1:1",
    prompt="/// One.\npub fn one() -> i32 {",
    body=" 1 }",
    split="train",
    language="rust",
    repository="ones",
    path="src/one.rs",
    license="MIT",
    group="ones",
)


def verdict(
    *, compiled: bool = True, warnings: int = 0, idiomatic: float = 0.75, documented: bool = True
) -> CodeVerdict:
    judged = Judged(compiled, {} if compiled else {"E0308": 1}, {"clippy::a": warnings} if warnings else {})
    return CodeVerdict("1", None, judged, idiomatic, documented)


@pytest.mark.parametrize(
    ("judged", "fault"),
    [
        (verdict(), None),
        (verdict(warnings=2), None),
        (verdict(warnings=3), "warnings"),
        (verdict(idiomatic=0.6), "not_idiomatic"),
        (verdict(documented=False), "not_documented"),
        (verdict(compiled=False), "not_compiled"),
        (CodeVerdict("1", "incomplete"), "incomplete"),
    ],
)
def test_the_first_bound_that_is_missed_is_the_reason(judged: CodeVerdict, fault: str | None) -> None:
    assert list(left_out([(PROMPT, " 1 }", judged)], Bounds())) == [fault]


def test_a_text_is_kept_once() -> None:
    judged = [(PROMPT, text, verdict()) for text in (" 1 }", " 2 }", " 1 }")]
    assert list(left_out(judged, Bounds())) == [None, None, "repeated"]


def test_bounds_out_of_range_are_refused() -> None:
    for wrong in ({"most_warnings": -1}, {"least_idiomatic": 1.1}, {"least_documented": float("nan")}):
        with pytest.raises(UsageError, match="--max-warnings"):
            Bounds(**wrong)  # type: ignore[arg-type]


def test_the_document_of_a_completion_passes_the_rules_and_keeps_its_split() -> None:
    rows = document_rows([expert_document(PROMPT, " 2 }", 1)])
    assert rows.select("text", "kind", "origin", "lint_warnings", "path").row(0) == (
        PROMPT.prompt + " 2 }",
        "completion",
        "expert",
        1,
        "src/one.rs",
    )
    assert rows["weight"].item() == pytest.approx(0.4 / 2 + 0.4 * rows["idiomatic_score"].item() + 0.2)
    people = document_rows([{"text": "x", "language": "rust", "kind": "snapshot", "path": "a.rs", "group": "ones"}])
    assert rows["split"].item() == people["split"].item()
    _, failures = FAMILY.rules.filter(FAMILY.derive(rows.with_columns(record=pl.lit(0, pl.UInt32))))
    assert failures.counts() == {}


def test_a_sample_that_was_filtered_counts_as_one_that_does_not_compile() -> None:
    judged = [verdict(warnings=1), verdict(compiled=False), CodeVerdict("1", "incomplete"), verdict(documented=False)]
    found = figures([each.as_json("clippy") for each in judged], "clippy")
    assert (found["samples"], found["filtered"], found["compiled"]) == (4, 1, 2)
    assert found["compile_rate"] == 0.5
    assert (found["avg_warnings"], found["doc_comment_rate"]) == (0.5, 0.5)
    assert figures([], "clippy")["compile_rate"] is None


@pytest.mark.parametrize(
    ("body", "language", "nothing"),
    [
        ("\n}", "rust", True),
        (" /* later */ }", "rust", True),
        (' panic!("a {} b", c) }', "rust", True),
        (" std::panic!(); }", "rust", True),
        (" loop {} }", "rust", True),
        (" return; }", "rust", True),
        (" loop { step(); } }", "rust", False),
        (" panic!(); 1 }", "rust", False),
        (" None }", "rust", False),
        ("    pass\n", "python", True),
        ("    # later\n    ...\n", "python", True),
        ('    """Only a text."""\n', "python", True),
        ("    raise NotImplementedError()\n", "python", True),
        ("    return None\n", "python", True),
        ("    return 1\n", "python", False),
    ],
)
def test_a_body_that_does_nothing_is_not_kept(body: str, language: str, nothing: bool) -> None:
    assert does_nothing(body, language) == nothing
    expected = "does_nothing" if nothing else None
    assert list(left_out([(replace(PROMPT, language=language), body, verdict())], Bounds())) == [expected]
