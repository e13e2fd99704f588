"""Whether two versions of a file differ in their form only: in whitespace, line breaks and comments."""

from __future__ import annotations

import ast
import re
import warnings
from functools import cache

from tree_sitter import Query, QueryCursor

from producers.source_code.line_diff import changed_blocks
from schema.source_code.grammar import grammar_of, parse
from schema.source_code.isolated_marks import isolated_marks

# Nodes whose text is kept as it is, and nodes that are left out, by language.
_LITERALS = {
    "rust": "[(string_literal) (raw_string_literal) (char_literal)] @literal [(line_comment) (block_comment)] @comment",
    "javascript": "[(string) (template_string) (regex)] @literal (comment) @comment",
    "typescript": "[(string) (template_string) (regex)] @literal (comment) @comment",
    "go": "[(interpreted_string_literal) (raw_string_literal) (rune_literal)] @literal (comment) @comment",
    "c": "[(string_literal) (char_literal)] @literal (comment) @comment",
    "cpp": "[(string_literal) (raw_string_literal) (char_literal)] @literal (comment) @comment",
    "java": "[(string_literal) (character_literal)] @literal [(line_comment) (block_comment)] @comment",
}
_TOKENS = re.compile(rb"\w+|[^\w\s]")
_WORDS = re.compile(r"\w+")
# The parser of Python raises these for text that is no Python, or is nested too deeply.
_NO_PYTHON = (SyntaxError, ValueError, RecursionError, MemoryError, SystemError)


def differ_in_form_only(before: str, after: str, language: str | None) -> bool:
    """Return whether a change leaves the meaning of a file as it is.

    Python: both versions have the same syntax tree except for positions. Other languages with a grammar: both have the
    same tokens and literals; comments do not count. All others: both are equal without whitespace.

    >>> differ_in_form_only("x = f(1,2)", "# a\\nx = f(\\n    1, 2\\n)", "python")
    True
    >>> differ_in_form_only('let s = "a b";', 'let s = "ab";', "rust")
    False
    """
    if language == "python":
        if not _may_have_same_tree(before, after):
            return False
        if (tree := _python_tree(before)) is not None:
            return tree == _python_tree(after)
    if language is not None and language in _LITERALS:
        tokens = _tokens(before.encode(), language)
        if tokens is not None:
            return tokens == _tokens(after.encode(), language)
    return "".join(before.split()) == "".join(after.split())


def _may_have_same_tree(before: str, after: str) -> bool:
    """Return False if the changed lines have other words and no comments; this spares most changes the parser."""
    old, new = before.split("\n"), after.split("\n")
    removed: list[str] = []
    added: list[str] = []
    for begin, end, new_begin, new_end in changed_blocks(old, new):
        removed += old[begin:end]
        added += new[new_begin:new_end]
    left, right = "\n".join(removed), "\n".join(added)
    return "#" in left or "#" in right or _WORDS.findall(left.lower()) == _WORDS.findall(right.lower())


def _python_tree(text: str) -> str | None:
    try:
        with warnings.catch_warnings():
            # Python warns of odd escapes in the texts.
            warnings.simplefilter("ignore")
            return ast.dump(ast.parse(text))
    except _NO_PYTHON:
        return None


@cache
def _literals(language: str) -> Query | None:
    grammar = grammar_of(language)
    return None if grammar is None else Query(grammar, _LITERALS[language])


def _tokens(source: bytes, language: str) -> list[bytes] | None:
    """Return the tokens of a file, literals whole and without comments; None if it does not parse."""
    # Only a text that parsed in the process for parsing is parsed in this one: others may crash it, or take minutes.
    if not isolated_marks([(source, language)])[0].parses:
        return None
    query, tree = _literals(language), parse(source, language)
    if query is None or tree is None or tree.root_node.has_error:
        return None
    spans = sorted(
        (node.start_byte, node.end_byte, name)
        for name, nodes in QueryCursor(query).captures(tree.root_node).items()
        for node in nodes
    )
    tokens: list[bytes] = []
    at = 0
    for begin, end, name in spans:
        if begin < at:
            continue
        tokens += _TOKENS.findall(source, at, begin)
        if name == "literal":
            tokens.append(source[begin:end])
        at = end
    return tokens + _TOKENS.findall(source, at)
