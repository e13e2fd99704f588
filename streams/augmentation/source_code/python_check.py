"""The check of augmented Python files: their syntax tree is the same, except for the names of local variables."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

# The field of each kind of node that can be the name of a local variable.
_RENAMED = {
    ast.Name: "id",
    ast.arg: "arg",
    ast.ExceptHandler: "name",
    ast.MatchAs: "name",
    ast.MatchStar: "name",
}
# These fields do not say anything about what the code does.
_IGNORED = frozenset(("ctx", "type_comment", "type_ignores"))
_FIELDS: dict[type, tuple[str, ...]] = {}


def same_code(one: ast.AST, other: ast.AST, names: Mapping[str, str]) -> bool:
    """Return whether two syntax trees are equal, if each name of `one` may be replaced by the name that `names` gives.

    Only names of variables, parameters, `except ... as` and patterns may be replaced: not attributes, keywords,
    imports or definitions.

    >>> same_code(ast.parse("a + b.a"), ast.parse("c + b.a"), {"a": "c"})
    True
    >>> same_code(ast.parse("a + b.a"), ast.parse("c + b.c"), {"a": "c"})
    False
    """
    if one.__class__ is not other.__class__:
        return False
    is_node = ast.AST
    # Pairs of nodes of the same class.
    stack: list[Any] = [one, other]
    pop, push = stack.pop, stack.append
    while stack:
        second, first = pop(), pop()
        kind = first.__class__
        fields = _FIELDS.get(kind)
        if fields is None:
            fields = _FIELDS[kind] = tuple(name for name in kind._fields if name not in _IGNORED)
        for field in fields:
            left, right = getattr(first, field), getattr(second, field)
            of_class = left.__class__
            if of_class is not right.__class__:
                return False
            if of_class is list:
                if len(left) != len(right):
                    return False
                for item, its_pair in zip(left, right, strict=True):
                    if item.__class__ is not its_pair.__class__:
                        return False
                    if isinstance(item, is_node):
                        push(item)
                        push(its_pair)
                    elif item != its_pair:
                        return False
            elif isinstance(left, is_node):
                push(left)
                push(right)
            elif left != right and (field != _RENAMED.get(kind) or names.get(left) != right):
                return False
    return True
