"""Queries of syntax trees: what they capture, compiled once for each language."""

from __future__ import annotations

from functools import cache

from tree_sitter import Node, Query, QueryCursor, Tree

from schema.errors import ConfigError
from schema.source_code.grammar import grammar_of


def captured(tree: Tree, language: str, query: str) -> dict[str, list[Node]]:
    """Return the captured nodes of a syntax tree by the names of the query's captures.

    Raises:
        ConfigError: the language has no grammar.
    """
    return QueryCursor(_compiled(language, query)).captures(tree.root_node)


@cache
def _compiled(language: str, query: str) -> Query:
    grammar = grammar_of(language)
    if grammar is None:
        raise ConfigError(f"{language} has no grammar: augment only Python and Rust")
    return Query(grammar, query)
