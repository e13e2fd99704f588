"""Augment one document: it is analysed once for all of its copies, and the result of each augmentation is checked."""

from __future__ import annotations

import ast
import builtins
import keyword
from functools import cached_property

from schema.source_code.grammar import parse
from streams.augmentation.source_code import comments, python_names, rust_names, whitespace
from streams.augmentation.source_code.edits import Edit, edited
from streams.augmentation.source_code.new_names import new_names, words_of
from streams.augmentation.source_code.python_check import same_code

_RUST_WORDS = (
    *("as", "async", "await", "break", "const", "continue", "crate", "dyn", "else", "enum", "extern", "false", "fn"),
    *("for", "gen", "if", "impl", "in", "let", "loop", "match", "mod", "move", "mut", "pub", "ref", "return", "self"),
    *("static", "struct", "super", "trait", "true", "type", "union", "unsafe", "use", "where", "while", "abstract"),
    *("become", "box", "do", "final", "macro", "override", "priv", "raw", "safe", "try", "typeof", "unsized"),
    *("virtual", "yield", "drop", "bool", "char", "str", "u8", "f32", "f64", "std", "core", "alloc"),
)
_RESERVED = {
    "python": frozenset((*keyword.kwlist, *keyword.softkwlist, *dir(builtins))),
    "rust": frozenset(_RUST_WORDS),
}
# Python's parser raises each of these for a text that it cannot read; MemoryError means that its own stack is full.
_UNREADABLE = (SyntaxError, ValueError, RecursionError, MemoryError, SystemError)


class LeftOut(Exception):  # noqa: N818
    """An augmentation is left out; the argument is the reason, a word for counts."""


class Document:
    """A source file and its analyses, each made when it is first needed.

    Args:
        text: source code whose syntax tree by tree-sitter has no errors.
        language: "python" or "rust".
    """

    def __init__(self, text: str, language: str) -> None:
        self.text, self.language = text, language
        self.source = text.encode()
        tree = parse(self.source, language)
        if tree is None or tree.root_node.has_error:
            raise LeftOut("not_parsed")
        self._tree = tree

    def augmented(self, kind: str, seed: int) -> str:
        """Return the text after an augmentation.

        Args:
            kind: "renamed", "comments" or "reformatted".
            seed: below 2**64; it decides on the new names, on adding or removing comments, and on the style.

        Raises:
            LeftOut: the augmentation changes nothing ("unchanged"), Python cannot parse the original ("not_parsed"),
                or the result failed its check ("check_failed").
        """
        names: dict[str, str] = {}
        if kind == "renamed":
            names, edits = self._renaming(seed)
        elif kind == "comments":
            edits = self._comments(seed)
        else:
            edits = whitespace.reformatted(self.source, self._tree, self.language, seed >> 1)
        try:
            result = edited(self.source, edits).decode()
        except ValueError as error:
            raise LeftOut("check_failed") from error
        if result == self.text or not result.strip():
            raise LeftOut("unchanged")
        if self.language == "python" and not self._is_same(result, names):
            raise LeftOut("check_failed")
        return result

    def _comments(self, seed: int) -> list[Edit]:
        """Return the edits that remove or add comments, as the seed says; the other one if that changes nothing."""
        ways = (comments.removed, comments.added) if seed & 1 else (comments.added, comments.removed)
        first, second = ways
        return first(self.source, self._tree, self.language) or second(self.source, self._tree, self.language)

    def _renaming(self, seed: int) -> tuple[dict[str, str], list[Edit]]:
        if self.language == "rust":
            found = self._rust_names
            names = new_names(found.places, self._taken, seed)
            return names, found.edits(names)
        places = self._python_names
        names = new_names(places, self._taken, seed)
        new = {old: name.encode() for old, name in names.items()}
        size = {old: len(old.encode()) for old in names}
        return names, [Edit(at, at + size[old], new[old]) for old, offsets in places.items() for at in offsets]

    def _is_same(self, result: str, names: dict[str, str]) -> bool:
        module = self._module
        try:
            return same_code(module, ast.parse(result), names)
        except _UNREADABLE:
            return False

    @cached_property
    def _module(self) -> ast.Module:
        try:
            return ast.parse(self.text)
        except _UNREADABLE as error:
            raise LeftOut("not_parsed") from error

    @cached_property
    def _python_names(self) -> dict[str, list[int]]:
        try:
            return python_names.renamable(self.source, self._module, self._tree)
        except _UNREADABLE as error:
            raise LeftOut("not_parsed") from error

    @cached_property
    def _rust_names(self) -> rust_names.RustNames:
        return rust_names.renamable(self.source, self._tree)

    @cached_property
    def _taken(self) -> set[str]:
        return words_of(self.source) | _RESERVED[self.language]
