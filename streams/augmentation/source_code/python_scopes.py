"""Which local variables and parameters of a Python file can be renamed, and every place where each of them occurs.

The rules of Python's own scopes decide which variable a name means. A variable is renamed everywhere or not at all. It
keeps its name if one of these holds:

- it is global, an attribute or a name of a class body, or it is named in `global` or `nonlocal`;
- an import, `def`, `class`, type parameter or `**rest` of a pattern binds it;
- it is `self`, `cls`, `_`, or begins with two underscores;
- it is a parameter that a caller may pass by its name. Parameters that can be renamed are `*args`, `**kwargs`, those
  before `/`, and those of a function that is defined inside another one, if every use of the function is a call
  without keywords. Parameters of decorated functions keep their names.
- its function, or one inside it, uses `locals`, `eval` or another name of `SEES_NAMES`;
- an f-string shows its name, as in `f"{total=}"`.

Strings and comments are never changed.
"""

from __future__ import annotations

import ast
import re
from bisect import bisect_right
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from tree_sitter import Query, QueryCursor, Tree

from schema.source_code.grammar import grammar_of

# Functions and attributes through which code can see the names of local variables.
SEES_NAMES = frozenset(
    ("locals", "vars", "eval", "exec", "execfile", "dir", "globals", "_getframe", "currentframe", "f_locals")
)
_KEPT = frozenset(("self", "cls", "_"))
_MODULE, _CLASS, _FUNCTION, _COMPREHENSION, _TYPES = range(5)
# Fields of syntax nodes that hold no names.
_NO_CODE = frozenset(("ctx", "op", "ops", "type_comment", "type_ignores", "simple", "is_async", "conversion"))
_FIELDS: dict[type, tuple[str, ...]] = {}
_NEW_LINE = re.compile(rb"\r\n|\r|\n")
_AS_NAME = re.compile(rb"(?:[\s\\)]|#[^\n]*\n)*as[\s\\]+")
_SHOWN = re.compile(rb"\s*=")


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
            if name in scope.bound and name not in scope.outer and (scope is self or scope.kind != _CLASS):
                return scope if scope.kind in (_FUNCTION, _COMPREHENSION, _TYPES) else None
            scope = scope.parent
        return None

    def binder(self) -> Scope:
        """Return the scope in which `:=` binds."""
        scope = self
        while scope.kind == _COMPREHENSION and scope.parent is not None:
            scope = scope.parent
        return scope


@dataclass(eq=False)
class _Local:
    """A function inside another function, whose calls may all be known."""

    name: str
    scope: Scope  # that binds the function's name
    own: Scope
    parameters: list[str]


def renamable(source: bytes, module: ast.Module, tree: Tree) -> dict[str, list[int]]:
    """Return the byte offsets of every occurrence of each renamable variable, by name.

    Args:
        source: the file as UTF-8.
        module: its syntax tree by `ast`.
        tree: its syntax tree by tree-sitter, without errors; it gives the places inside f-strings.

    Raises:
        ValueError: the two syntax trees disagree on an f-string.
    """
    walk = _Walk(source, tree)
    walk.add(module, walk.scope(_MODULE, None), 0, source)
    return walk.renamable()


class _Walk:
    """One pass over a syntax tree; the order of nodes does not matter, because scopes do not depend on it."""

    def __init__(self, source: bytes, tree: Tree) -> None:
        self._source = source
        self._interpolations = _interpolations(tree)
        self._starts = [start for start, _ in self._interpolations]
        self._scopes: list[Scope] = []
        self._locals: list[_Local] = []
        # The functions of calls without keywords: (scope, name, offset).
        self._calls: list[tuple[Scope, str, int]] = []
        self._keep: list[tuple[Scope, str]] = []

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
                    self._keep.append((scope, name))
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

    def renamable(self) -> dict[str, list[int]]:
        """Return the occurrences of each renamable variable, by name, after all nodes were added."""
        for scope in self._scopes:
            if scope.sees_names:
                seen: Scope | None = scope
                while seen is not None:
                    seen.kept.update(seen.bound)
                    seen = seen.parent
            for name in scope.outer:
                owner = scope.parent.owner(name) if scope.parent else None
                if owner is not None:
                    owner.kept.add(name)
        for scope, name in self._keep:
            owner = scope.owner(name)
            if owner is not None:
                owner.kept.add(name)
        self._keep_parameters()

        found: dict[str, list[int]] = {}
        wrong: set[tuple[int, str]] = set()
        owned: list[tuple[Scope, str, int]] = []
        for scope in self._scopes:
            for name, offset in scope.places:
                if name in _KEPT or name.startswith("__"):
                    continue
                owner = scope.owner(name)
                if owner is None or name in owner.kept or owner.kind == _TYPES:
                    continue
                encoded = name.encode()
                # A name can be written with other letters that Python counts as the same.
                if self._source[offset : offset + len(encoded)] != encoded:
                    wrong.add((id(owner), name))
                owned.append((owner, name, offset))
        for owner, name, offset in owned:
            if (id(owner), name) not in wrong:
                found.setdefault(name, []).append(offset)
        return found

    def _keep_parameters(self) -> None:
        """Keep the parameters of local functions that are used in another way than calls without keywords."""
        if not self._locals:
            return
        called = set(self._calls)
        by_owner: dict[tuple[int, str], bool] = {}
        watched = {local.name for local in self._locals}
        for scope in self._scopes:
            for name, offset in scope.places:
                if name in watched:
                    owner = scope.owner(name)
                    if owner is not None and (scope, name, offset) not in called:
                        by_owner[id(owner), name] = True
        for local in self._locals:
            bound_once = local.scope.bound.get(local.name) == 1 and local.name not in local.scope.not_local
            if not bound_once or local.name in local.scope.outer or (id(local.scope), local.name) in by_owner:
                local.own.kept.update(local.parameters)

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
        own = self.scope(_FUNCTION, around)
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
        elif not is_lambda and scope.kind == _FUNCTION:
            self._locals.append(_Local(node.name, scope, own, [argument.arg for argument in by_name]))
        else:
            own.kept.update(argument.arg for argument in by_name)
        outside += ((each, own) for each in (node.body if isinstance(node.body, list) else [node.body]))
        return outside

    def _class(self, node: Any, scope: Scope, shift: int, lines: list[int]) -> Below:
        self._bind_and_keep(scope, node.name)
        nodes: Below = [(each, scope) for each in node.decorator_list]
        around = self._type_scope(node, scope, nodes)
        nodes += ((each, around) for each in (*node.bases, *node.keywords))
        own = self.scope(_CLASS, around)
        return [*nodes, *((each, own) for each in node.body)]

    def _alias(self, node: Any, scope: Scope, shift: int, lines: list[int]) -> Below:
        """`type Name[T] = value`."""
        nodes: Below = [(node.name, scope)]
        scope.kept.add(node.name.id)
        around = self._type_scope(node, scope, nodes)
        return [*nodes, (node.value, self.scope(_TYPES, around))]

    def _type_scope(self, node: ast.AST, scope: Scope, nodes: Below) -> Scope:
        """Return the scope of a node's type parameters, or `scope` if it has none."""
        parameters = getattr(node, "type_params", None)
        if not parameters:
            return scope
        around = self.scope(_TYPES, scope)
        for parameter in parameters:
            around.bound[parameter.name] = 1
            nodes += ((child, around) for child in ast.iter_child_nodes(parameter))
        return around

    def _comprehension(self, node: Any, scope: Scope, shift: int, lines: list[int]) -> Below:
        own = self.scope(_COMPREHENSION, scope)
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
            self._calls.append((scope, node.func.id, offset))
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
        scope = Scope(kind, parent)
        self._scopes.append(scope)
        return scope

    @staticmethod
    def _bind_and_keep(scope: Scope, name: str) -> None:
        scope.bound[name] = scope.bound.get(name, 0) + 1
        scope.kept.add(name)


_SPECIAL = {
    ast.FunctionDef: _Walk._function,
    ast.AsyncFunctionDef: _Walk._function,
    ast.Lambda: _Walk._function,
    ast.ClassDef: _Walk._class,
    ast.ListComp: _Walk._comprehension,
    ast.SetComp: _Walk._comprehension,
    ast.DictComp: _Walk._comprehension,
    ast.GeneratorExp: _Walk._comprehension,
    ast.NamedExpr: _Walk._walrus,
    ast.Call: _Walk._call,
    ast.Attribute: _Walk._attribute,
    ast.Import: _Walk._import,
    ast.ImportFrom: _Walk._import,
    ast.Global: _Walk._global,
    ast.Nonlocal: _Walk._nonlocal,
    ast.ExceptHandler: _Walk._handler,
    ast.MatchAs: _Walk._capture,
    ast.MatchStar: _Walk._capture,
    ast.MatchMapping: _Walk._mapping,
    ast.JoinedStr: _Walk._f_string,
    **({ast.TypeAlias: _Walk._alias} if hasattr(ast, "TypeAlias") else {}),
}


@cache
def _query() -> Query:
    grammar = grammar_of("python")
    assert grammar is not None  # noqa: S101
    return Query(
        grammar, "[(interpolation expression: (_) @expression) (format_expression expression: (_) @expression)]"
    )


def _interpolations(tree: Tree) -> list[tuple[int, int]]:
    """Return the byte ranges of the expressions in f-strings, in order."""
    nodes = QueryCursor(_query()).captures(tree.root_node).get("expression", [])
    return sorted((node.start_byte, node.end_byte) for node in nodes)
