"""The scopes of a Python file: which names each scope binds, and where each name is used.

The rules of Python's own scopes decide which variable a name means (`Scope.owner`).
"""

from __future__ import annotations

import ast
import re
from bisect import bisect_right
from dataclasses import dataclass, field
from typing import Any

from tree_sitter import Tree

from streams.augmentation.source_code.tree_queries import captured

# Functions and attributes through which code can see the names of local variables.
SEES_NAMES = frozenset(
    ("locals", "vars", "eval", "exec", "execfile", "dir", "globals", "_getframe", "currentframe", "f_locals")
)
MODULE, CLASS, FUNCTION, COMPREHENSION, TYPES = range(5)
# Fields of syntax nodes that hold no names.
_NO_CODE = frozenset(("ctx", "op", "ops", "type_comment", "type_ignores", "simple", "is_async", "conversion"))
_FIELDS: dict[type, tuple[str, ...]] = {}
_NEW_LINE = re.compile(rb"\r\n|\r|\n")
_AS_NAME = re.compile(rb"(?:[\s\\)]|#[^\n]*\n)*as[\s\\]+")
_SHOWN = re.compile(rb"\s*=")
_INTERPOLATIONS = """
[(interpolation expression: (_) @expression) (format_expression expression: (_) @expression)]
"""


Below = list[tuple[ast.AST, "Scope"]]


@dataclass(eq=False)
class Scope:
    """One scope of a file: its variables and the places of names that are used in it."""

    kind: int
    parent: Scope | None
    bound: dict[str, int] = field(default_factory=dict)  # how often each name is bound
    kept: set[str] = field(default_factory=set)
    not_local: set[str] = field(default_factory=set)  # `global`
    outer: set[str] = field(default_factory=set)  # `nonlocal`
    places: list[tuple[str, int]] = field(default_factory=list)  # bytes of both bindings and uses
    sees_names: bool = False

    def owner(self, name: str) -> Scope | None:
        """Return the function scope whose variable `name` is, or None if it is global or of a class."""
        scope: Scope | None = self
        while scope is not None:
            if name in scope.not_local:
                return None
            # A class's names are seen in its own body only.
            if name in scope.bound and name not in scope.outer and (scope is self or scope.kind != CLASS):
                return scope if scope.kind in (FUNCTION, COMPREHENSION, TYPES) else None
            scope = scope.parent
        return None

    def binder(self) -> Scope:
        """Return the scope in which `:=` binds."""
        scope = self
        while scope.kind == COMPREHENSION and scope.parent is not None:
            scope = scope.parent
        return scope


@dataclass(eq=False)
class LocalFunction:
    """A function inside another function, whose calls may all be known."""

    name: str
    scope: Scope  # that binds the function's name
    own: Scope
    parameters: list[str]


class ScopeWalk:
    """One pass over a syntax tree; the order of nodes does not matter, because scopes do not depend on it.

    Attributes:
        scopes: all scopes of the file.
        local_functions: the functions without decorators that are defined inside another function.
        calls: (scope, name, byte offset) of each function that is called by its name and without keywords.
        shown: (scope, name) of each name that an f-string shows, as in `f"{total=}"`.
    """

    def __init__(self, source: bytes, tree: Tree) -> None:
        self._source = source
        self._interpolations = _interpolations(tree)
        self._starts = [start for start, _ in self._interpolations]
        self.scopes: list[Scope] = []
        self.local_functions: list[LocalFunction] = []
        self.calls: list[tuple[Scope, str, int]] = []
        self.shown: list[tuple[Scope, str]] = []

    def add(self, root: ast.AST, scope: Scope, shift: int, text: bytes, shown: bool = False) -> None:
        """Add the nodes below `root`, whose text begins at byte `shift` of the source; `shown` keeps all its names."""
        lines = [0, *(match.end() for match in _NEW_LINE.finditer(text))]
        stack: Below = [(root, scope)]
        push, pop = stack.append, stack.pop
        node: Any
        while stack:
            node, scope = pop()
            kind = node.__class__
            if kind is ast.Name:
                offset = shift + lines[node.lineno - 1] + node.col_offset
                name = node.id
                scope.places.append((name, offset))
                if node.ctx.__class__ is not ast.Load:
                    scope.bound[name] = scope.bound.get(name, 0) + 1
                elif name in SEES_NAMES:
                    scope.sees_names = True
                if shown:
                    self.shown.append((scope, name))
                continue
            if kind is ast.Constant:
                continue
            special = _SPECIAL.get(kind)
            if special is not None:
                stack += special(self, node, scope, shift, lines)
                continue
            fields = _FIELDS.get(kind)
            if fields is None:
                fields = _FIELDS[kind] = tuple(name for name in kind._fields if name not in _NO_CODE)
            for name in fields:
                value = getattr(node, name)
                if value.__class__ is list:
                    for child in value:
                        if isinstance(child, ast.AST):
                            push((child, scope))
                elif isinstance(value, ast.AST):
                    push((value, scope))

    # Each method adds what one kind of node binds, and yields the nodes below it with the scopes that they belong to.

    def _function(self, node: Any, scope: Scope, shift: int, lines: list[int]) -> Below:
        is_lambda = node.__class__ is ast.Lambda
        outside: Below = []
        decorated = False
        around = scope
        if not is_lambda:
            self._bind_and_keep(scope, node.name)
            decorated = bool(node.decorator_list)
            outside += ((each, scope) for each in node.decorator_list)
            around = self._type_scope(node, scope, outside)
            if node.returns is not None:
                outside.append((node.returns, around))
        own = self.scope(FUNCTION, around)
        arguments = node.args
        outside += ((each, scope) for each in (*arguments.defaults, *arguments.kw_defaults) if each is not None)
        by_name = [*arguments.args, *arguments.kwonlyargs]
        never_by_name = [*arguments.posonlyargs, *(each for each in (arguments.vararg, arguments.kwarg) if each)]
        for argument in (*by_name, *never_by_name):
            own.bound[argument.arg] = own.bound.get(argument.arg, 0) + 1
            own.places.append((argument.arg, shift + lines[argument.lineno - 1] + argument.col_offset))
            if argument.annotation is not None:
                outside.append((argument.annotation, around))
        if decorated:
            own.kept.update(argument.arg for argument in (*by_name, *never_by_name))
        elif not is_lambda and scope.kind == FUNCTION:
            self.local_functions.append(LocalFunction(node.name, scope, own, [argument.arg for argument in by_name]))
        else:
            own.kept.update(argument.arg for argument in by_name)
        outside += ((each, own) for each in (node.body if isinstance(node.body, list) else [node.body]))
        return outside

    def _class(self, node: Any, scope: Scope, shift: int, lines: list[int]) -> Below:
        self._bind_and_keep(scope, node.name)
        nodes: Below = [(each, scope) for each in node.decorator_list]
        around = self._type_scope(node, scope, nodes)
        nodes += ((each, around) for each in (*node.bases, *node.keywords))
        own = self.scope(CLASS, around)
        return [*nodes, *((each, own) for each in node.body)]

    def _alias(self, node: Any, scope: Scope, shift: int, lines: list[int]) -> Below:
        """`type Name[T] = value`."""
        nodes: Below = [(node.name, scope)]
        scope.kept.add(node.name.id)
        around = self._type_scope(node, scope, nodes)
        return [*nodes, (node.value, self.scope(TYPES, around))]

    def _type_scope(self, node: ast.AST, scope: Scope, nodes: Below) -> Scope:
        """Return the scope of a node's type parameters, or `scope` if it has none."""
        parameters = getattr(node, "type_params", None)
        if not parameters:
            return scope
        around = self.scope(TYPES, scope)
        for parameter in parameters:
            around.bound[parameter.name] = 1
            nodes += ((child, around) for child in ast.iter_child_nodes(parameter))
        return around

    def _comprehension(self, node: Any, scope: Scope, shift: int, lines: list[int]) -> Below:
        own = self.scope(COMPREHENSION, scope)
        nodes: Below = []
        for name, value in ast.iter_fields(node):
            if name != "generators":
                nodes.append((value, own))
                continue
            for place, generator in enumerate(value):
                nodes.append((generator.target, own))
                # The first iterable belongs to the surroundings.
                nodes.append((generator.iter, own if place else scope))
                nodes += ((condition, own) for condition in generator.ifs)
        return nodes

    def _walrus(self, node: Any, scope: Scope, shift: int, lines: list[int]) -> Below:
        return [(node.target, scope.binder()), (node.value, scope)]

    def _call(self, node: Any, scope: Scope, shift: int, lines: list[int]) -> Below:
        if isinstance(node.func, ast.Name) and not node.keywords:
            offset = shift + lines[node.func.lineno - 1] + node.func.col_offset
            self.calls.append((scope, node.func.id, offset))
        return [(each, scope) for each in (node.func, *node.args, *node.keywords)]

    def _attribute(self, node: Any, scope: Scope, shift: int, lines: list[int]) -> Below:
        if node.attr in SEES_NAMES:
            scope.sees_names = True
        return [(node.value, scope)]

    def _import(self, node: Any, scope: Scope, shift: int, lines: list[int]) -> Below:
        for alias in node.names:
            self._bind_and_keep(scope, alias.asname or alias.name.partition(".")[0])
        return []

    def _global(self, node: Any, scope: Scope, shift: int, lines: list[int]) -> Below:
        scope.not_local.update(node.names)
        return []

    def _nonlocal(self, node: Any, scope: Scope, shift: int, lines: list[int]) -> Below:
        scope.outer.update(node.names)
        return []

    def _handler(self, node: Any, scope: Scope, shift: int, lines: list[int]) -> Below:
        if node.name is not None and node.type is not None:
            end = shift + lines[(node.type.end_lineno or 1) - 1] + (node.type.end_col_offset or 0)
            match = _AS_NAME.match(self._source, end)
            scope.bound[node.name] = scope.bound.get(node.name, 0) + 1
            if match is None:
                scope.kept.add(node.name)
            else:
                scope.places.append((node.name, match.end()))
        return [(each, scope) for each in (node.type, *node.body) if each is not None]

    def _capture(self, node: Any, scope: Scope, shift: int, lines: list[int]) -> Below:
        """`case name`, `case pattern as name` and `case [*name]`: the name is the last word of the node."""
        if node.name is not None:
            end = shift + lines[(node.end_lineno or 1) - 1] + (node.end_col_offset or 0)
            scope.bound[node.name] = scope.bound.get(node.name, 0) + 1
            scope.places.append((node.name, end - len(node.name.encode())))
        pattern = getattr(node, "pattern", None)
        return [] if pattern is None else [(pattern, scope)]

    def _mapping(self, node: Any, scope: Scope, shift: int, lines: list[int]) -> Below:
        if node.rest is not None:
            self._bind_and_keep(scope, node.rest)
        return [(each, scope) for each in (*node.keys, *node.patterns)]

    def _f_string(self, node: Any, scope: Scope, shift: int, lines: list[int]) -> Below:
        """Parse each replacement field by itself: Python 3.11 gives wrong places for the names in an f-string."""
        begin = shift + lines[node.lineno - 1] + node.col_offset
        finish = shift + lines[(node.end_lineno or 1) - 1] + (node.end_col_offset or 0)
        expected = sum(isinstance(each, ast.FormattedValue) for each in ast.walk(node))
        if not expected:
            return []
        done, at = begin, bisect_right(self._starts, begin)
        parsed = 0
        while at < len(self._starts) and self._starts[at] < finish:
            start, end = self._interpolations[at]
            at += 1
            if start < done:
                continue  # it is part of the expression before it, which is parsed as a whole
            text = b"(" + self._source[start:end] + b")"
            expression = ast.parse(text.decode(), mode="eval")
            parsed += 1 + sum(isinstance(each, ast.FormattedValue) for each in ast.walk(expression))
            self.add(expression, scope, start - 1, text, _SHOWN.match(self._source, end) is not None)
            done = end
        if parsed != expected:
            raise ValueError(f"an f-string has {expected} replacement fields and {parsed} were found")
        return []

    def scope(self, kind: int, parent: Scope | None) -> Scope:
        """Add a scope to the file and return it."""
        scope = Scope(kind, parent)
        self.scopes.append(scope)
        return scope

    @staticmethod
    def _bind_and_keep(scope: Scope, name: str) -> None:
        scope.bound[name] = scope.bound.get(name, 0) + 1
        scope.kept.add(name)


_SPECIAL = {
    ast.FunctionDef: ScopeWalk._function,
    ast.AsyncFunctionDef: ScopeWalk._function,
    ast.Lambda: ScopeWalk._function,
    ast.ClassDef: ScopeWalk._class,
    ast.ListComp: ScopeWalk._comprehension,
    ast.SetComp: ScopeWalk._comprehension,
    ast.DictComp: ScopeWalk._comprehension,
    ast.GeneratorExp: ScopeWalk._comprehension,
    ast.NamedExpr: ScopeWalk._walrus,
    ast.Call: ScopeWalk._call,
    ast.Attribute: ScopeWalk._attribute,
    ast.Import: ScopeWalk._import,
    ast.ImportFrom: ScopeWalk._import,
    ast.Global: ScopeWalk._global,
    ast.Nonlocal: ScopeWalk._nonlocal,
    ast.ExceptHandler: ScopeWalk._handler,
    ast.MatchAs: ScopeWalk._capture,
    ast.MatchStar: ScopeWalk._capture,
    ast.MatchMapping: ScopeWalk._mapping,
    ast.JoinedStr: ScopeWalk._f_string,
    **({ast.TypeAlias: ScopeWalk._alias} if hasattr(ast, "TypeAlias") else {}),
}


def _interpolations(tree: Tree) -> list[tuple[int, int]]:
    """Return the byte ranges of the expressions in f-strings, in order."""
    nodes = captured(tree, "python", _INTERPOLATIONS).get("expression", [])
    return sorted((node.start_byte, node.end_byte) for node in nodes)
