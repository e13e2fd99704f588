"""Syntax trees of source code, by the tree-sitter grammars that are installed.

The objects of tree-sitter are made on first use, once in each process. No grammar is downloaded.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module

from tree_sitter import Language, Parser, Query, Tree

from schema.source_code.marks import QUERIES

# The module and the function that give each language's grammar.
_GRAMMARS = {
    "python": ("tree_sitter_python", "language"),
    "rust": ("tree_sitter_rust", "language"),
    "javascript": ("tree_sitter_javascript", "language"),
    "typescript": ("tree_sitter_typescript", "language_typescript"),
    "go": ("tree_sitter_go", "language"),
    "c": ("tree_sitter_c", "language"),
    "cpp": ("tree_sitter_cpp", "language"),
    "java": ("tree_sitter_java", "language"),
}


@cache
def grammar_of(language: str) -> Language | None:
    """Return the grammar of a language, or None for a language without one."""
    if language not in _GRAMMARS:
        return None
    module, function = _GRAMMARS[language]
    return Language(getattr(import_module(module), function)())


@cache
def _parser(language: str) -> Parser | None:
    grammar = grammar_of(language)
    return None if grammar is None else Parser(grammar)


@cache
def marks_query(language: str) -> Query | None:
    """Return the compiled query of `marks.QUERIES` for a language, or None for a language without grammar."""
    grammar = grammar_of(language)
    return None if grammar is None else Query(grammar, QUERIES[language])


def parse(source: bytes, language: str) -> Tree | None:
    """Return the syntax tree of UTF-8 source code, or None for a language without grammar.

    Source code that does not follow the grammar has a tree with error nodes: `tree.root_node.has_error`.
    """
    parser = _parser(language)
    return None if parser is None else parser.parse(source)


def parses(source: bytes, language: str) -> bool:
    """Return whether source code has a syntax tree without errors; true for a language without grammar.

    >>> parses(b"x = 1", "python"), parses(b"x = = 1", "python"), parses(b"x = = 1", "lua")
    (True, False, True)
    """
    tree = parse(source, language)
    return tree is None or not tree.root_node.has_error
