"""Remove the comments of a source file, or add comments that say what each function takes and returns.

Comments that stay: a first line `#!`, an encoding line, a licence notice, comments that tools read (`KEPT`), and in
Rust all doc comments (`///`, `//!`, `/**`, `/*!`), because they are attributes of the program. Docstrings are code.

A comment is added above a function that has none there. In Python it is the first sentence of the docstring; without a
docstring, and in Rust without a doc comment, it names the parameters and the returned type.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from tree_sitter import Node, Tree

from streams.augmentation.source_code.edits import Edit
from streams.augmentation.source_code.tree_queries import captured

# Comments that tools read, or that people must not lose.
KEPT = re.compile(
    rb"(?is)[#/*!\s]*(?:type:|noqa\b|pragma\b|pylint:|fmt:|ruff:|mypy:|pyright:|flake8:|isort:|yapf:|nosec\b|doctest:)"
    rb"|.*(?:copyright|spdx-license-identifier|licen[cs]ed? )"
)
_ENCODING = re.compile(rb"[ \t\f]*#.*?coding[:=]")
_BLANKS = b" \t\f"
_DOC = re.compile(rb"///(?!/)|//!|/\*!|/\*\*(?![*/])")
# Characters of a new comment, without its mark.
_LONGEST = 100
# Bytes of a comment, or before a function, that are looked at.
_LOOK_BACK = 4096
_SENTENCE_END = re.compile(r"(?<=[.!?])\s|\n\s*\n")
_SPACE = re.compile(r"\s+")

_QUERIES = {
    "python": """
(comment) @comment
(function_definition name: (identifier) @name) @function
(decorated_definition definition: (function_definition)) @decorated
(function_definition body: (block . (expression_statement . (string) @docstring .)))
""",
    "rust": """
[(line_comment !doc) (block_comment !doc)] @comment
(function_item name: (identifier) @name) @function
""",
}


def removed(source: bytes, tree: Tree, language: str) -> list[Edit]:
    """Return the edits that remove the comments of UTF-8 source code, with lines that hold nothing else."""
    edits: list[Edit] = []
    for node in captured(tree, language, _QUERIES[language]).get("comment", ()):
        start, end = node.start_byte, node.end_byte
        if _stays(source, start, end):
            continue
        line = source.rfind(b"\n", 0, start) + 1
        after = source.find(b"\n", end)
        after = len(source) if after < 0 else after
        alone = not source[line:start].strip(_BLANKS)
        last = not source[end:after].strip(b" \t\f\r")
        if alone and last:
            edits.append(Edit(line, min(after + 1, len(source)), b""))
        elif last:
            edits.append(Edit(line + len(source[line:start].rstrip(_BLANKS)), end, b""))
        else:
            # Between two tokens: a space keeps them apart.
            edits.append(Edit(start, end, b" "))
    return _without_overlaps(edits)


def added(source: bytes, tree: Tree, language: str) -> list[Edit]:
    """Return the edits that add a comment above each function of UTF-8 source code that has none."""
    found = captured(tree, language, _QUERIES[language])
    begins = {}
    for node in found.get("decorated", ()):
        definition = node.child_by_field_name("definition")
        if definition is not None:
            begins[definition.start_byte] = node.start_byte
    docstrings = {}
    for node in found.get("docstring", ()):
        owner = node.parent.parent.parent if node.parent and node.parent.parent else None
        if owner is not None:
            docstrings[owner.start_byte] = node
    edits = []
    for node in found.get("function", ()):
        start = begins.get(node.start_byte, node.start_byte) if language == "python" else _first_attribute(node)
        if start is None:
            continue
        line = source.rfind(b"\n", 0, start) + 1
        indent = source[line:start]
        before = source[max(0, line - _LOOK_BACK) : line].rstrip().rpartition(b"\n")[2]
        if (
            indent.strip(_BLANKS)
            or before.lstrip().startswith((b"#!", b"# ", b"//"))
            or before.endswith((b"*/", b"\\"))
        ):
            continue
        text = _first_sentence(source, docstrings.get(node.start_byte)) or _signature(source, node, language)
        mark = b"# " if language == "python" else b"// "
        new_line = b"\r\n" if source[:line].endswith(b"\r\n") else b"\n"
        edits.append(Edit(line, line, indent + mark + text.encode() + new_line))
    return edits


def _stays(source: bytes, start: int, end: int) -> bool:
    text = source[start : min(end, start + _LOOK_BACK)]
    if KEPT.match(text) or _DOC.match(text) or (start == 0 and text.startswith(b"#!")):
        return True
    return start < _LOOK_BACK and source.count(b"\n", 0, start) < 2 and _ENCODING.match(text) is not None


def _without_overlaps(edits: list[Edit]) -> list[Edit]:
    """Return edits in order, without those that begin inside the one before."""
    kept: list[Edit] = []
    for edit in sorted(edits):
        if not kept or edit.start >= kept[-1].end:
            kept.append(edit)
    return kept


def _first_attribute(function: Node) -> int | None:
    """Return where a Rust function with its attributes begins, or None if a comment is above it."""
    start = function.start_byte
    node = function.prev_named_sibling
    while node is not None and node.type in ("attribute_item", "line_comment", "block_comment"):
        if node.type != "attribute_item":
            return None
        start = node.start_byte
        node = node.prev_named_sibling
    return start


def _first_sentence(source: bytes, docstring: Node | None) -> str:
    if docstring is None:
        return ""
    text = source[docstring.start_byte : min(docstring.end_byte, docstring.start_byte + 1000)].decode(errors="ignore")
    bare = text.lstrip("rRuU").strip("\"'").strip()
    sentence = _plain(_SENTENCE_END.split(bare, maxsplit=1)[0])
    return sentence if len(sentence) <= _LONGEST and "\\" not in sentence else ""


def _signature(source: bytes, function: Node, language: str) -> str:
    """Return a sentence about the parameters and the returned type of a function."""
    name = _text(source, function.child_by_field_name("name"))
    parameters = [each for each in _parameter_names(source, function) if each not in ("self", "cls")]
    returned = _text(source, function.child_by_field_name("return_type"))
    takes = f"takes {', '.join(parameters)}" if parameters else "takes nothing"
    gives = f", returns {returned}" if returned else ""
    sentence = f"{name}: {takes}{gives}."
    return sentence if len(sentence) <= _LONGEST else f"{name}: takes {len(parameters)} parameters."


def _parameter_names(source: bytes, function: Node) -> Iterator[str]:
    parameters = function.child_by_field_name("parameters")
    for node in parameters.named_children if parameters is not None else ():
        if node.type in ("line_comment", "block_comment", "comment", "attribute_item", "self_parameter"):
            continue
        named = node.child_by_field_name("pattern") or node.child_by_field_name("name") or node
        text = _text(source, named).partition(":")[0].partition("=")[0]
        if text.strip("*/ "):
            yield text.strip()


def _text(source: bytes, node: Node | None) -> str:
    return "" if node is None else _plain(source[node.start_byte : node.end_byte].decode(errors="replace"))


def _plain(text: str) -> str:
    """Return a text on one line, printable, so that it ends no comment."""
    return "".join(each for each in _SPACE.sub(" ", text).strip() if each.isprintable())
