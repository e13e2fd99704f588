"""A code sample, i.e. a program to be judged, and how one is made of a row of JSON.

A row has `code` (or `text`), or a `prompt` with `completion` (or `generation`, or `canonical_solution`). It may have
`tests` (or `test`), `task_id` (or `id`) and `entry_point`. The rows of HumanEval-X are read as they are: their
`declaration` holds the imports, and they need a `main`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from schema.errors import RecordError
from schema.source_code.source_scan import PYTHON, RUST, has_main, last_line, scan

_WHOLE = ("code", "text")
# What a model generated comes before the solution that a benchmark holds.
_COMPLETIONS = ("completion", "generation", "canonical_solution")
_OTHERS = ("prompt", "declaration", "entry_point")
_TESTS = ("tests", "test")
_IDS = ("task_id", "id")
_NAME_CHARACTERS = 200
_MAIN = "\n\nfn main() {}\n"


@dataclass(frozen=True)
class CodeSample:
    """A program to be judged.

    Attributes:
        task_id: the row's own id, or the place that it was read from.
        language: `rust` or `python`.
        program: the whole source, without the tests of the row.
        generated: the part of the source that a model wrote; the whole of it without a prompt.
        tests: source that is added to the program to test it; empty if there is none.
        entry_point: the function that Python's `check` tests; empty if it is not known.
        is_program_asked_for: whether the sample must have a `main`.
    """

    task_id: str
    language: str
    program: str
    generated: str
    tests: str = ""
    entry_point: str = ""
    is_program_asked_for: bool = False


def sample_of(row: Mapping[str, Any], language: str, place: str, *, programs: bool = False) -> CodeSample:
    """Return the sample of a row.

    Args:
        place: the sample's id if the row has none, such as a line number.
        programs: every sample must have a `main`. Otherwise only those whose prompt has one must.

    Raises:
        RecordError: `wrong_type` or `no_code`.

    >>> sample_of({"prompt": "fn one() -> i32 {", "completion": " 1 }", "id": 7}, "rust", "line 1").program
    'fn one() -> i32 { 1 }'
    """
    texts = {name: _text(row, name) for name in (*_WHOLE, *_COMPLETIONS, *_TESTS, *_OTHERS)}
    prompt, declaration = texts["prompt"], texts["declaration"]
    whole = next((texts[name] for name in _WHOLE if texts[name]), "")
    completion = next((texts[name] for name in _COMPLETIONS if texts[name]), "")
    if not whole and not completion and not any(row.get(name) is not None for name in (*_WHOLE, *_COMPLETIONS)):
        raise RecordError("no_code", f"none of {', '.join((*_WHOLE, *_COMPLETIONS))} is a text")
    generated = whole or completion
    program = generated
    if not whole or _continues(whole, prompt, language):
        program = prompt + generated
        if language == RUST and declaration:
            program = _with_declaration(program, declaration, prompt)
    return CodeSample(
        task_id=next((str(row[name]) for name in _IDS if row.get(name) is not None), place),
        language=language,
        program=program,
        generated=generated,
        tests=next((texts[name] for name in _TESTS if texts[name]), ""),
        entry_point=_entry_point(texts["entry_point"], prompt) if language == PYTHON else "",
        is_program_asked_for=language == RUST and (programs or (bool(prompt) and has_main(prompt))),
    )


def _text(row: Mapping[str, Any], name: str) -> str:
    value = row.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise RecordError("wrong_type", f"{name} is a JSON {type(value).__name__} instead of a text")
    return value


def _entry_point(named: str, prompt: str) -> str:
    """Return the function that is tested: the one that is named, or the last one that the prompt begins.

    Raises:
        RecordError: `wrong_type`, because it is no name.
    """
    if not named:
        return next(iter(reversed(re.findall(r"^def (\w{1,200})", prompt, re.MULTILINE))), "")
    if not named.isidentifier() or len(named) > _NAME_CHARACTERS:
        raise RecordError("wrong_type", "entry_point is not the name of a function")
    return named


def _continues(code: str, prompt: str, language: str) -> bool:
    """Return whether `code` goes on where the prompt ends, instead of being a whole program."""
    if not prompt.strip() or last_line(prompt) in code:
        return False
    if language == PYTHON:
        first = next((line for line in code.splitlines() if line.strip()), "")
        return first[:1].isspace()
    return scan(prompt, language).open_brackets > 0


def _with_declaration(program: str, declaration: str, prompt: str) -> str:
    """Return the program of a row of HumanEval-X: its imports come first, and it has a `main`.

    In another form of that file, the prompt holds the imports and the declaration repeats the head of the function.
    """
    is_imports = scan(declaration, RUST).open_brackets == 0 and declaration.strip() not in prompt
    whole = declaration + program if is_imports else program
    return whole if has_main(whole) else whole + _MAIN
