"""Each rule of the code family rejects the documents that break it, and only those."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest

from schema.json_form import json_lines
from schema.json_rows import read_lines
from schema.source_code import FAMILY
from schema.source_code.columns import COMPUTED, EVOLUTION_COLUMNS
from tests import source_code

EVOLUTION = {
    "kind": "evolution",
    "commit": "a1b2",
    "before": "x = 1\n",
    "after": "x = 2\n",
    "diff": "--- a/x.py\n+++ b/x.py\n@@ -1 +1 @@\n-x = 1\n+x = 2\n",
    "message": "Set x to two",
    "author_date": "2024-05-06T07:08:09Z",
}
EVOLUTION["text"] = f"{EVOLUTION['message']}\n\n{EVOLUTION['diff']}"


def broken(changes: dict[str, Any] | None = None, augmented_from: int | None = None, **document: Any) -> set[str]:
    """Return the rules that a document breaks; `changes` are made after it is scored."""
    rows = source_code.frame([source_code.document(0, **document)])
    types = FAMILY.wire
    rows = rows.with_columns(
        augmented_from=pl.lit(augmented_from, dtype=pl.UInt64),
        record=pl.lit(0, dtype=pl.UInt32),
        **{name: pl.lit(value, dtype=types[name]) for name, value in (changes or {}).items()},
    )
    _, failures = FAMILY.rules.filter(FAMILY.derive(rows))
    return set(failures.counts())


_WHOLE = source_code.document(0)["text"]
COMPLETION = {"kind": "completion", "prompt": _WHOLE[:100]}
EXPERT = {**COMPLETION, "origin": "expert", "lint_warnings": 1}


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"role": "core"}, "role_mismatch"),
        ({"weight": 2.0}, "weight_mismatch"),
        ({"characters": 1}, "scores_mismatch"),
        ({"idiomatic": 8}, "scores_mismatch"),
        ({"idiomatic_score": 0.9}, "scores_mismatch"),
        ({"documented": False}, "scores_mismatch"),
        ({"parses": False}, "scores_mismatch"),
        ({"complexity": 1.0}, "scores_mismatch"),
        ({"phase": 3}, "phase_mismatch"),
    ],
)
def test_a_label_that_differs_from_the_recomputed_one_is_a_mismatch(changes: dict[str, Any], rule: str) -> None:
    assert broken(changes) == {rule}


@pytest.mark.parametrize(
    ("document", "rule"),
    [
        ({"kind": "copied"}, "kind_unknown"),
        ({"language": "klingon"}, "language_unknown"),
        ({"repository": " "}, "repository_unnamed"),
        ({"group": ""}, "group_unnamed"),
        ({"text": "x = 1\0\n"}, "text_has_nul"),
        *(({"path": path}, "path_invalid") for path in ("", "/a.py", "../a.py", "a/../b.py", "a/..", "a\0.py")),
        ({"kind": "renamed"}, "origin_mismatch"),
        ({"before": "x"}, "evolution_misplaced"),
        ({"message": "x"}, "evolution_misplaced"),
    ],
)
def test_an_invalid_document_breaks_its_rule(document: dict[str, Any], rule: str) -> None:
    assert broken(**document) == {rule}


def test_dots_inside_a_path_are_valid() -> None:
    assert broken(path="a..b/..c/.d/e.py") == set()


def test_a_snapshot_has_no_origin_and_an_augmentation_has_one() -> None:
    assert broken(augmented_from=7) == {"origin_mismatch"}
    assert broken(augmented_from=7, kind="renamed") == set()


def test_an_augmentation_must_parse_and_a_snapshot_need_not() -> None:
    assert broken(text="def (:\n") == set()
    assert broken(text="def (:\n", kind="comments", augmented_from=7) == {"parse_error"}


def test_an_evolution_is_scored_by_the_file_after_it() -> None:
    assert broken(**EVOLUTION) == set()
    row = source_code.frame([source_code.document(0, **EVOLUTION)])
    assert row["parses"].item()
    assert row["characters"].item() == len(EVOLUTION["text"])


@pytest.mark.parametrize("missing", [*EVOLUTION_COLUMNS, "commit"])
def test_an_evolution_without_one_of_its_columns_is_incomplete(missing: str) -> None:
    assert "evolution_incomplete" in broken({missing: None}, **EVOLUTION)


def test_the_text_of_an_evolution_is_its_message_and_diff() -> None:
    assert "evolution_text_mismatch" in broken(**{**EVOLUTION, "message": "Other"})


@pytest.mark.parametrize("date", ["2024-05-06", "2024-13-06T07:08:09Z", "2024-05-06T07:08:09+02:00", "now"])
def test_an_author_date_that_is_no_time_in_utc_is_invalid(date: str) -> None:
    assert broken(**{**EVOLUTION, "author_date": date}) == {"author_date_invalid"}


@pytest.mark.parametrize("column", [*COMPUTED, "text", "path", "kind", "language", "group", "repository"])
def test_a_missing_value_breaks_only_its_nullability(column: str) -> None:
    assert broken({column: None}) == {f"{column}|nullability"}


def test_documents_are_read_back_from_json_unchanged() -> None:
    renamed = source_code.document(4, kind="renamed")
    rows = source_code.frame(
        [source_code.document(0), source_code.document(1), renamed, source_code.document(2, **EVOLUTION)]
    )
    read, others = read_lines(json_lines(rows, FAMILY).splitlines(), FAMILY)
    assert others == []
    assert read.select(list(FAMILY.columns)).equals(rows.select(list(FAMILY.columns)))


@pytest.mark.parametrize("document", [COMPLETION, EXPERT, {**EXPERT, "lint_warnings": 0}])
def test_completions_and_experts_rows_are_valid(document: dict[str, Any]) -> None:
    assert broken(**document) == set()


@pytest.mark.parametrize(
    ("document", "rule"),
    [
        ({"kind": "completion"}, "prompt_misplaced"),
        ({"prompt": _WHOLE[:100]}, "prompt_misplaced"),
        ({**COMPLETION, "prompt": _WHOLE}, "prompt_mismatch"),
        ({**COMPLETION, "prompt": ""}, "prompt_mismatch"),
        ({**COMPLETION, "prompt": "another beginning"}, "prompt_mismatch"),
        ({**COMPLETION, "origin": "somebody"}, "origin_unknown"),
        ({**COMPLETION, "origin": "expert"}, "expert_incomplete"),
        ({**EXPERT, "lint_warnings": -1}, "expert_incomplete"),
        ({"origin": "expert", "lint_warnings": 0}, "expert_incomplete"),
        ({**COMPLETION, "lint_warnings": 0}, "expert_incomplete"),
    ],
)
def test_prompts_and_origins_have_their_place(document: dict[str, Any], rule: str) -> None:
    assert rule in broken(**document)


def test_an_experts_weight_is_that_of_its_scores() -> None:
    rows = source_code.frame([source_code.document(0, **EXPERT, path="src/core.py")])
    idiomatic = rows["idiomatic_score"].item()
    assert rows["documented"].item()
    assert rows["weight"].item() == pytest.approx(0.4 / 2 + 0.4 * idiomatic + 0.2)
    assert broken({"weight": 1.0}, **EXPERT) == {"weight_mismatch"}
