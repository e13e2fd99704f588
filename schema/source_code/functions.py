"""Functions in source code: the beginning that a model is given, and the body that it is to write.

Functions are found by the layout of lines, without a parser, because the texts are untrusted: they begin at the left
margin. Methods, nested functions and functions of over `_MOST_CHARACTERS` are not looked for.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from schema.source_code.source_scan import PYTHON, RUST, block_begin, block_end, scan

_MOST_CHARACTERS = 6_000
# At most so many lines of comments and attributes come before a function. An unbounded number would let a text of
# comments alone take time in proportion to the square of its length.
_BEGINNINGS = {
    RUST: re.compile(
        r"^(?:(?://|\#\[)[^\n]*\n){0,100}(?:pub(?:\([^)\n]*\))?[ ])?(?:(?:const|async|unsafe)[ ])*fn[ ]\w+",
        re.MULTILINE | re.VERBOSE,
    ),
    PYTHON: re.compile(r"^(?:@[^\n]*\n){0,100}(?:async )?def \w+", re.MULTILINE),
}
# Attributes of functions that are only compiled under a condition, or whose body is not what they do.
_CONDITIONAL = re.compile(r"#\[\s*(?:cfg|test|bench|target_feature|proc_macro|no_mangle|export_name|link)|fn main\b")
# Names in a Rust function's head that need no import: of the prelude, edition 2021.
_PRELUDE = {
    *("AsMut", "AsRef", "Box", "Clone", "Copy", "Default", "DoubleEndedIterator", "Drop", "Eq", "Err", "Error"),
    *("ExactSizeIterator", "Extend", "Fn", "FnMut", "FnOnce", "From", "FromIterator", "Into", "IntoIter"),
    *("IntoIterator", "Item", "Iterator", "None", "Ok", "Option", "Ord", "Output", "Owned", "PartialEq", "PartialOrd"),
    *("Result", "Send", "Sized", "Some", "String", "Sync", "Target", "ToOwned", "ToString", "TryFrom", "TryInto"),
    *("Unpin", "Vec"),
}
_NAMED = re.compile(r"(?<![\w:'])[A-Z]\w*")
_DECLARED = re.compile(r"[<,]\s*(?:const\s+)?([A-Z]\w*)\s*(?=[:,>=])")
_NAME_AND_GENERICS = re.compile(r"\bfn\s+(\w+)\s*(<[^(]*)?")
# The rest of a Python function's head, after its name: to a colon that ends a line.
_HEAD_END = re.compile(r":[ \t]*(?:#[^\n]*)?\n")
_DOCSTRING = re.compile(r'[ \t]+[rR]?(?P<quotes>"""|\'\'\').*?(?P=quotes)[ \t]*\n', re.DOTALL)
_MARGIN = re.compile(r"^(?=[^\s#)\]}])", re.MULTILINE)


@dataclass(frozen=True)
class Function:
    """A function: `prompt` ends where its body begins, and `prompt + body` is its whole text.

    `line` counts from 1, in the text that it was found in.
    """

    prompt: str
    body: str
    line: int


def functions_of(text: str, language: str) -> Iterator[Function]:
    """Yield the functions of a source text that begin at the left margin; see the module.

    A prompt in Rust ends with the brace that begins the body. In Python it ends with the head or the docstring.

    >>> [function] = functions_of("/// One.\\nfn one() -> i32 {\\n    1\\n}\\n", "rust")
    >>> function.prompt, function.body
    ('/// One.\\nfn one() -> i32 {', '\\n    1\\n}')
    """
    line, counted = 1, 0
    beginnings = list(_BEGINNINGS[language].finditer(text))
    following = [*(match.start() for match in beginnings[1:]), len(text)]
    for match, end_of_part in zip(beginnings, following, strict=False):
        # A function ends before the next one, so the whole text is looked at once.
        here = text[match.start() : min(end_of_part, match.start() + _MOST_CHARACTERS)]
        begin = _body_begin(here, match.end() - match.start(), language)
        if begin is None or _CONDITIONAL.search(here, 0, begin):
            continue
        end = end_of_function(here[:begin], here[begin:], language)
        if end is None and language == PYTHON and len(here) < _MOST_CHARACTERS:
            end = len(here) - begin
        if end is None or not here[begin : begin + end].strip():
            continue
        line += text.count("\n", counted, match.start())
        counted = match.start()
        yield Function(here[:begin], here[begin : begin + end], line)


def end_of_function(prompt: str, text: str, language: str) -> int | None:
    """Return where the function that `prompt` begins ends in the `text` after it, or None if it goes on.

    >>> end_of_function("fn one() -> i32 {", " 1 } fn two()", "rust")
    4
    >>> end_of_function("def one():\\n", "    return 1\\n\\n\\nprint(one())", "python")
    15
    """
    if language == RUST:
        end = block_end(prompt + text, len(prompt), RUST)
        return None if end is None else end - len(prompt)
    match = _MARGIN.search(text)
    return None if match is None else match.start()


def names_others(prompt: str, language: str) -> bool:
    """Return whether a function's head names a type or constant of its crate, so that it cannot compile alone.

    It finds most of them in Rust, and none in Python.

    >>> [names_others(head, "rust") for head in ("fn f(x: &Thing) {", "fn f<T: Clone>(x: Vec<T>) -> Option<T> {")]
    [True, False]
    """
    if language != RUST:
        return False
    code = scan(prompt, RUST).code
    head = _NAME_AND_GENERICS.search(code)
    own = set() if head is None else {head[1], *_DECLARED.findall(head[2] or "")}
    return not set(_NAMED.findall(code)) <= _PRELUDE | own


def _body_begin(text: str, name_end: int, language: str) -> int | None:
    """Return where the body of the function at the begin of `text` begins."""
    if language == RUST:
        return block_begin(text, RUST)
    head = _HEAD_END.search(text, name_end)
    if head is None:
        return None
    docstring = _DOCSTRING.match(text, head.end())
    return head.end() if docstring is None else docstring.end()
