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

from tree_sitter import Tree

from streams.augmentation.source_code.python_scopes import MODULE, TYPES, Scope, ScopeWalk

_KEPT = frozenset(("self", "cls", "_"))


def renamable(source: bytes, module: ast.Module, tree: Tree) -> dict[str, list[int]]:
    """Return the byte offsets of every occurrence of each renamable variable, by name.

    Args:
        source: the file as UTF-8.
        module: its syntax tree by `ast`.
        tree: its syntax tree by tree-sitter, without errors; it gives the places inside f-strings.

    Raises:
        ValueError: the two syntax trees disagree on an f-string.
    """
    walk = ScopeWalk(source, tree)
    walk.add(module, walk.scope(MODULE, None), 0, source)
    _keep_visible(walk)
    _keep_parameters(walk)
    return _occurrences(source, walk.scopes)


def _keep_visible(walk: ScopeWalk) -> None:
    """Keep the names that code can see, that an f-string shows, and that `nonlocal` states."""
    for scope in walk.scopes:
        if scope.sees_names:
            seen: Scope | None = scope
            while seen is not None:
                seen.kept.update(seen.bound)
                seen = seen.parent
        for name in scope.outer:
            owner = scope.parent.owner(name) if scope.parent else None
            if owner is not None:
                owner.kept.add(name)
    for scope, name in walk.shown:
        owner = scope.owner(name)
        if owner is not None:
            owner.kept.add(name)


def _keep_parameters(walk: ScopeWalk) -> None:
    """Keep the parameters of local functions that are used in another way than calls without keywords."""
    if not walk.local_functions:
        return
    called = set(walk.calls)
    used_otherwise: set[tuple[int, str]] = set()
    watched = {local.name for local in walk.local_functions}
    for scope in walk.scopes:
        for name, offset in scope.places:
            if name in watched and (scope, name, offset) not in called:
                owner = scope.owner(name)
                if owner is not None:
                    used_otherwise.add((id(owner), name))
    for local in walk.local_functions:
        around = local.scope
        is_local = local.name not in around.not_local and local.name not in around.outer
        if around.bound[local.name] > 1 or not is_local or (id(around), local.name) in used_otherwise:
            local.own.kept.update(local.parameters)


def _occurrences(source: bytes, scopes: list[Scope]) -> dict[str, list[int]]:
    """Return the byte offsets of the occurrences of all variables that are not kept, by name."""
    owned: list[tuple[tuple[int, str], int]] = []
    misspelt: set[tuple[int, str]] = set()
    for scope in scopes:
        for name, offset in scope.places:
            if name in _KEPT or name.startswith("__"):
                continue
            owner = scope.owner(name)
            if owner is None or name in owner.kept or owner.kind == TYPES:
                continue
            variable = (id(owner), name)
            encoded = name.encode()
            # A name can be written with other letters that Python counts as the same.
            if source[offset : offset + len(encoded)] != encoded:
                misspelt.add(variable)
            owned.append((variable, offset))
    found: dict[str, list[int]] = {}
    for variable, offset in owned:
        if variable not in misspelt:
            found.setdefault(variable[1], []).append(offset)
    return found
