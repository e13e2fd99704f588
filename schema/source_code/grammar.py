"""Syntax trees of source code, by the tree-sitter grammars that are installed.

The objects of tree-sitter are made on first use, in each process. No grammar is downloaded.

Some texts that follow no grammar take time that grows with the square of their
length, such as thousands of `->` in JavaScript (6 s for 8 kB). So parsing has a budget of steps, which depends on the
length only: the result is the same on every machine. Ordinary code takes 2 to 18 steps per kB.

The budget does not cover the parser's last step, at the end of the text. There, repeated invalid C or Java such as
60 kB of `xxxxxxxxxxxxx=>` makes tree-sitter 0.26.1 run for minutes or end the process. So the refine stage parses in a
child process (`isolated_marks`), and in its own process only documents that parsed there.
"""

from __future__ import annotations

import threading
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
# The languages with a grammar.
LANGUAGES = tuple(_GRAMMARS)
# Steps are calls of the parser's progress callback; in the worst case one takes some 40 us.
_STEPS_PER_KB = 25
_LEAST_STEPS = 200
_PIECE_BYTES = 1 << 16
_of_thread = threading.local()


@cache
def grammar_of(language: str) -> Language | None:
    """Return the grammar of a language, or None for a language without one."""
    if language not in _GRAMMARS:
        return None
    module, function = _GRAMMARS[language]
    return Language(getattr(import_module(module), function)())


def _parser(language: str) -> Parser | None:
    """Return this thread's parser of a language, because threads must not share one."""
    parsers: dict[str, Parser] = _of_thread.__dict__
    if language not in parsers:
        grammar = grammar_of(language)
        if grammar is None:
            return None
        parsers[language] = Parser(grammar)
    return parsers[language]


@cache
def marks_query(language: str) -> Query | None:
    """Return the compiled query of `marks.QUERIES` for a language, or None for a language without grammar."""
    grammar = grammar_of(language)
    return None if grammar is None else Query(grammar, QUERIES[language])


def parse(source: bytes, language: str) -> Tree | None:
    """Return the syntax tree of UTF-8 source code; None for a language without grammar, or beyond the budget of steps.

    Source code that does not follow the grammar has a tree with error nodes: `tree.root_node.has_error`.
    """
    parser = _parser(language)
    if parser is None:
        return None
    left = _LEAST_STEPS + len(source) * _STEPS_PER_KB // 1000

    def is_over(_offset: int, _has_error: bool) -> bool:
        nonlocal left
        left -= 1
        return left < 0

    try:
        tree = parser.parse(lambda offset, _: source[offset : offset + _PIECE_BYTES], progress_callback=is_over)
    except ValueError:
        # Without a reset the parser would go on with this source.
        parser.reset()
        return None
    # A tree that was read in pieces cannot give its nodes' text. Parsing again takes over all nodes without errors.
    return parser.parse(source, tree)
