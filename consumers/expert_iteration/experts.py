"""Which completions an expert keeps, and the documents that they become."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from consumers.code_evaluation.verdicts import CodeVerdict
from consumers.expert_iteration.prompts import FunctionPrompt
from schema.errors import UsageError
from schema.source_code.columns import COMPLETION, EXPERT
from schema.source_code.source_scan import PYTHON, RUST, scan

# A body that does nothing, or only ends the program; strings are `0` after a scan. Such bodies compile everywhere.
_DOES_NOTHING = {
    RUST: re.compile(
        r"\s*(?:(?:(?:std|core)::)?(?:panic|unreachable|todo|unimplemented)!\s*[(\[{][^;]*;?|loop\s*\{\s*\}|return;?)?\s*\}\s*"
    ),
    PYTHON: re.compile(r"\s*(?:pass|\.\.\.|0|return(?:[ ]None)?|raise\b[^\n]*)?\s*"),
}


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """What a completion must reach to be kept; it must also compile.

    Attributes:
        most_warnings: of the linter.
        least_idiomatic: score, 0 to 1.
        least_documented: 1 for code with a doc comment or docstring, 0 for other code; 0.5 asks for one.

    Raises:
        UsageError: a value is out of range.
    """

    most_warnings: int = 2
    least_idiomatic: float = 0.7
    least_documented: float = 0.5

    def __post_init__(self) -> None:
        if self.most_warnings < 0 or not (0 <= self.least_idiomatic <= 1 and 0 <= self.least_documented <= 1):
            raise UsageError("--max-warnings is at least 0, and --min-idiomatic and --min-doc are from 0 to 1")

    def fault(self, verdict: CodeVerdict) -> str | None:
        """Return why a completion is not kept, or None: the first bound that it misses."""
        if verdict.filter_reason is not None:
            return verdict.filter_reason
        if verdict.judged is None or not verdict.judged.compiled:
            return "not_compiled"
        if sum(verdict.judged.warnings.values()) > self.most_warnings:
            return "warnings"
        if (verdict.idiomatic or 0.0) < self.least_idiomatic:
            return "not_idiomatic"
        if float(verdict.documented or False) < self.least_documented:
            return "not_documented"
        return None


def left_out(judged: Iterable[tuple[FunctionPrompt, str, CodeVerdict]], bounds: Bounds) -> Iterator[str | None]:
    """Yield for each (prompt, completion, verdict) why it is not kept, or None.

    The same text is kept once, and a body that does nothing is not kept: a model would soon write nothing else.
    """
    seen: set[str] = set()
    for prompt, completion, verdict in judged:
        text = prompt.prompt + completion
        fault = bounds.fault(verdict)
        if fault is None and does_nothing(completion, prompt.language):
            fault = "does_nothing"
        if fault is None and text in seen:
            fault = "repeated"
        if fault is None:
            seen.add(text)
        yield fault


def does_nothing(body: str, language: str) -> bool:
    """Return whether a function's body has no statement, or one that ends the program.

    >>> [does_nothing(body, "rust") for body in (" // later\n}", " panic!(\"no\") }", " None }")]
    [True, True, False]
    """
    return _DOES_NOTHING[language].fullmatch(scan(body, language).code) is not None


def expert_document(prompt: FunctionPrompt, completion: str, warnings: int) -> Mapping[str, Any]:
    """Return the document of a kept completion.

    It has the place and the group of the prompt's own document, so it is in the same split.
    """
    return {
        "text": prompt.prompt + completion,
        "prompt": prompt.prompt,
        "kind": COMPLETION,
        "origin": EXPERT,
        "lint_warnings": warnings,
        **{name: getattr(prompt, name) for name in ("language", "repository", "path", "license", "group")},
    }
