"""Which local variables and parameters of a Rust file can be renamed, and every place where each of them occurs.

In each function a name is renamed everywhere or not at all, so variables that shadow each other keep doing so. A name
keeps its spelling in a function if one of these holds:

- it is not lower case, because a capitalised name in a pattern may be a constant or a variant;
- the file declares a constant, static, variant, nested function or const parameter of that name, or imports it;
- a use of it is not covered by a `let`, parameter, closure parameter or pattern of this function before it;
- it occurs as a word anywhere in a macro's tokens, strings such as `"{name}"` included, or in an attribute.

A function keeps all its names if it uses `include!`, or if it or an item around it has an attribute that is not one of
`HARMLESS`: a procedural macro may read the names. Fields, methods, labels, paths, strings and comments are never
changed. A field that is written as `S { name }` becomes `S { name: new }`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from tree_sitter import Node, Tree

from schema.source_code.rust_items import items_of
from streams.augmentation.source_code.edits import Edit
from streams.augmentation.source_code.tree_queries import captured

# Attributes that do not read the names inside the item.
HARMLESS = frozenset(
    (
        *("allow", "automatically_derived", "cfg", "cfg_attr", "cold", "deny", "deprecated", "derive", "doc", "expect"),
        *("forbid", "ignore", "inline", "macro_use", "must_use", "no_mangle", "non_exhaustive", "path", "repr"),
        *("rustfmt", "should_panic", "stable", "target_feature", "test", "track_caller", "unstable", "warn", "clippy"),
        *("rustc_const_stable", "rustc_const_unstable", "bench", "export_name", "link_section", "global_allocator"),
    )
)
_LOWER = re.compile(rb"_*[a-z][a-z0-9_]*")
_WORD = re.compile(rb"[A-Za-z_][A-Za-z0-9_]*")
_ATTRIBUTE_NAME = re.compile(rb"#!?\s*\[\s*(?:unsafe\s*\(\s*)?([A-Za-z_][A-Za-z0-9_:]*)")

_QUERY = """
(identifier) @name
(shorthand_field_initializer (identifier) @short)
(field_pattern name: (shorthand_field_identifier) @bind_short) @short_field

(let_declaration pattern: (identifier) @bind)
(parameter pattern: (identifier) @bind)
(closure_parameters (identifier) @bind)
(for_expression pattern: (identifier) @bind)
(match_pattern . (identifier) @bind)
(let_condition pattern: (identifier) @bind)
(tuple_pattern (identifier) @bind)
(tuple_struct_pattern (identifier) @bind)
(slice_pattern (identifier) @bind)
(or_pattern (identifier) @bind)
(captured_pattern . (identifier) @bind)
(ref_pattern (identifier) @bind)
(mut_pattern (identifier) @bind)
(reference_pattern (identifier) @bind)
(field_pattern pattern: (identifier) @bind)

(tuple_struct_pattern type: (identifier) @other)
(scoped_identifier (identifier) @other)
(scoped_type_identifier (identifier) @other)
(function_item name: (identifier) @other)
(function_signature_item name: (identifier) @other)
(mod_item name: (identifier) @other)
(lifetime (identifier) @other)
(label (identifier) @other)
(macro_invocation macro: (identifier) @other)

(const_item name: (identifier) @item)
(static_item name: (identifier) @item)
(const_parameter name: (identifier) @item)
(enum_variant name: (identifier) @item)
(block (function_item name: (identifier) @item))
(use_declaration) @import
(extern_crate_declaration) @import

(function_item) @function
(block) @block
(let_declaration) @let
(parameters) @parameters
(closure_expression) @closure
(closure_parameters) @closure_parameters
(for_expression body: (block) @for_body) @for
(match_arm) @arm
(match_pattern) @pattern
(let_condition) @condition
(if_expression) @if
(while_expression) @if
(macro_invocation) @macro
(macro_definition) @macro
(attribute_item) @attribute
(inner_attribute_item) @attribute
[(impl_item) (trait_item) (mod_item)] @around
"""
# Containers in which names are bound; a binding belongs to the innermost one around it.
_BINDERS = ("let", "parameters", "closure_parameters", "for", "pattern", "condition")
_CONTAINERS = (*_BINDERS, "function", "block", "closure", "arm", "if", "macro", "attribute")


@dataclass(eq=False)
class _Function:
    """The names of one function: where each is in scope, and where each occurs."""

    start: int
    end: int
    kept: set[bytes] = field(default_factory=set)
    all_kept: bool = False
    scopes: dict[bytes, list[tuple[int, int]]] = field(default_factory=dict)
    places: dict[bytes, list[int]] = field(default_factory=dict)


@dataclass(frozen=True)
class RustNames:
    """The renamable occurrences of a file.

    Attributes:
        places: byte offsets of the occurrences of each name.
        short: the offset of a name that is also a field's, in `S { name }`, and where `name: ` is inserted.
    """

    places: dict[str, list[int]]
    short: dict[int, int]

    def edits(self, names: dict[str, str]) -> list[Edit]:
        """Return the edits that rename each variable to the name that `names` gives."""
        made = []
        for old, offsets in self.places.items():
            new = names[old].encode()
            for offset in offsets:
                made.append(Edit(offset, offset + len(old), new))
                if offset in self.short:
                    at = self.short[offset]
                    made.append(Edit(at, at, old.encode() + b": "))
        return made


def renamable(source: bytes, tree: Tree) -> RustNames:
    """Return the renamable names of UTF-8 source code, whose syntax tree has no errors."""
    found = captured(tree, "rust", _QUERY)
    bindings = {node.start_byte for name in ("bind", "bind_short") for node in found.get(name, ())}
    others = {node.start_byte for name in ("other", "item") for node in found.get(name, ())}
    bindings -= others
    items = {source[node.start_byte : node.end_byte] for node in found.get("item", ())}
    for node in found.get("import", ()):
        items.update(_WORD.findall(source, node.start_byte, node.end_byte))
    short = {node.start_byte: node.start_byte for node in found.get("short", ())}
    fields = sorted((node.start_byte, node.end_byte) for node in found.get("short_field", ()))
    ends = {end: start for start, end in fields}
    short.update((node.start_byte, ends[node.end_byte]) for node in found.get("bind_short", ()))

    functions = _functions(source, found, _events(found), bindings, others)
    places: dict[str, list[int]] = {}
    for function in functions:
        if function.all_kept:
            continue
        for name, offsets in function.places.items():
            scopes = function.scopes.get(name)
            if scopes is None or name in items or name in function.kept or not _LOWER.fullmatch(name):
                continue
            if all(offset in bindings or any(low <= offset < high for low, high in scopes) for offset in offsets):
                places.setdefault(name.decode(), []).extend(offsets)
    return RustNames(places, short)


def _events(found: dict[str, list[Node]]) -> list[tuple[int, int, str]]:
    """Return (first byte, -(one past the last), kind) of every container and name, outer ones first."""
    events = [(node.start_byte, -node.end_byte, kind) for kind in _CONTAINERS for node in found.get(kind, ())]
    events += (
        (node.start_byte, -node.end_byte, "~name") for kind in ("name", "bind_short") for node in found.get(kind, ())
    )
    events.sort()
    return events


def _functions(
    source: bytes,
    found: dict[str, list[Node]],
    events: list[tuple[int, int, str]],
    bindings: set[int],
    others: set[int],
) -> list[_Function]:
    """Return the functions of a file with their names and scopes, in one pass over its containers and names."""
    loop_bodies = {-node.end_byte: node.start_byte for node in found.get("for_body", ())}
    then_ends = _ends_of_then(found)
    foreign = _foreign(source, found)
    functions: list[_Function] = []
    stack: list[tuple[int, int, str]] = []  # (start, end, kind)
    open_functions: list[_Function] = []
    for start, negative_end, kind in events:
        while stack and stack[-1][1] <= start:
            if stack.pop()[2] == "function":
                open_functions.pop()
        end = -negative_end
        if kind == "function":
            function = _Function(start, end, all_kept=any(low <= start < high for low, high in foreign))
            functions.append(function)
            open_functions.append(function)
        if kind != "~name":
            if kind in ("macro", "attribute") and open_functions:
                words = _WORD.findall(source, start, end)
                for function in open_functions:
                    function.kept.update(words)
                    function.all_kept |= kind == "macro" and words[:1] == [b"include"]
            stack.append((start, end, kind))
            continue
        if not open_functions or start in others:
            continue
        function, name = open_functions[-1], source[start:end]
        if any(each == "macro" or each == "attribute" for _, _, each in stack[-3:]):
            continue
        function.places.setdefault(name, []).append(start)
        if start in bindings:
            function.scopes.setdefault(name, []).append(_scope(stack, end, loop_bodies, then_ends))
    return functions


def _scope(
    stack: list[tuple[int, int, str]], end: int, loop_bodies: dict[int, int], then_ends: dict[tuple[int, int], int]
) -> tuple[int, int]:
    """Return the bytes in which a name is known that ends at `end`, inside the containers of `stack`."""
    place = len(stack) - 1
    while place >= 0 and stack[place][2] not in _BINDERS:
        place -= 1
    nothing = (end, end)
    if place < 0:
        return nothing
    _, binder_end, binder = stack[place]
    owners = {
        "let": "block",
        "parameters": "function",
        "closure_parameters": "closure",
        "pattern": "arm",
        "condition": "if",
    }
    if binder == "for":
        return loop_bodies.get(-binder_end, binder_end), binder_end
    for owner_start, owner_end, owner in reversed(stack[:place]):
        if owner == owners[binder]:
            if binder == "condition":
                return binder_end, then_ends.get((owner_start, owner_end), binder_end)
            return (end if binder == "pattern" else binder_end), owner_end
        if owner == "arm" and binder == "condition":
            return binder_end, owner_end
    return nothing


def _ends_of_then(found: dict[str, list[Node]]) -> dict[tuple[int, int], int]:
    """Return where the first block of each `if` and `while` ends, by the range of the whole expression."""
    ends = {}
    # From the expression down, because finding a node's parent takes time that grows with its depth.
    for node in found.get("if", ()):
        block = node.child_by_field_name("consequence") or node.child_by_field_name("body")
        if block is not None:
            ends[node.start_byte, node.end_byte] = block.end_byte
    return ends


def _foreign(source: bytes, found: dict[str, list[Node]]) -> list[tuple[int, int]]:
    """Return the ranges of the items whose attributes may be procedural macros."""
    ranges = []
    items = items_of(found.get("attribute", []))
    for node in found.get("attribute", ()):
        match = _ATTRIBUTE_NAME.match(source, node.start_byte, node.end_byte)
        name = match[1].partition(b"::")[0].decode() if match else ""
        if name in HARMLESS:
            continue
        if node.type == "inner_attribute_item":
            parent = node.parent
            # `#![no_std]` and similar at the top of a file are of the compiler.
            if parent is not None and parent.type != "source_file":
                ranges.append((parent.start_byte, parent.end_byte))
            continue
        item = items[node.start_byte]
        if item is not None:
            ranges.append((item.start_byte, item.end_byte))
    # Attributes of one item give one range.
    return sorted(set(ranges))
