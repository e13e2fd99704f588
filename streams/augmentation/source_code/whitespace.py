"""Reformat a source file: other indentation, and other spaces around commas and operators. Only whitespace changes.

The style is drawn from a number. Strings and comments keep their bytes, and so do the lines inside them. In Rust the
spaces inside macros and attributes stay, too, because a macro may see them.

The result depends on the text and the number only. rustfmt and ruff are not called: their output depends on the version
that a machine has, and ruff changes docstrings, which are part of a Python program.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass

from tree_sitter import Tree

from streams.augmentation.source_code.edits import Edit
from streams.augmentation.source_code.tree_queries import captured

UNITS = (b"  ", b"    ", b"        ", b"\t")
_TAB_STOP = 8
_BLANKS = re.compile(rb"[ \t\f]*")
# Only operators between a word or a closing bracket and a word or an opening bracket: no token can join another.
_OPERATOR = re.compile(rb"(?<=[\w)\]}])[ \t]*(==|!=|<=|>=|->|[-+*/%]=)[ \t]*(?=[\w(\[{])")
_COMMA = re.compile(rb",[ \t]*(?=[\w(\[{])")
_TRAILING = re.compile(rb"(?<=\S)[ \t]+(?=\r?(?:\n|$))")
_BLANK_LINES = re.compile(rb"(?<=\n)(?:[ \t]*\r?\n){2,}")

_QUERIES = {
    "python": "(string) @string (comment) @comment",
    "rust": """
[(string_literal) (raw_string_literal) (char_literal)] @string
[(line_comment) (block_comment)] @comment
[(macro_invocation) (macro_definition) (attribute_item) (inner_attribute_item)] @macro
""",
}
# What replaces the bytes of a string and of a comment while whitespace is searched.
_STRING, _COMMENT, _MACRO = b"s", b"#", b"."


@dataclass(frozen=True)
class Style:
    """How a file is laid out; `one_blank_line` joins blank lines."""

    unit: bytes
    comma: bytes
    around_operator: bytes
    one_blank_line: bool


def style_of(number: int, used: bytes) -> Style:
    """Return a style for a file that is indented by `used`; its unit differs from that."""
    units = [unit for unit in UNITS if unit != used]
    number, place = divmod(number, len(units))
    return Style(
        unit=units[place],
        comma=(b", ", b",")[number & 1],
        around_operator=(b" ", b"")[number >> 1 & 1],
        one_blank_line=bool(number >> 2 & 1),
    )


def reformatted(source: bytes, tree: Tree, language: str, number: int) -> list[Edit]:
    """Return the edits that lay out UTF-8 source code in the style of a number, at least 0."""
    found = captured(tree, language, _QUERIES[language])
    ranges = [
        (node.start_byte, node.end_byte, mark)
        for kind, mark in (("string", _STRING), ("comment", _COMMENT))
        for node in found.get(kind, ())
    ]
    masked = _masked(source, ranges)
    style = style_of(number, _unit(masked))
    edits = _indented_python(masked, style) if language == "python" else _indented(masked, style)

    macros = [(node.start_byte, node.end_byte, _MACRO) for node in found.get("macro", ())]
    spaced = _masked(masked, macros) if macros else masked
    for match in _COMMA.finditer(spaced):
        edits.append(Edit(match.start(), match.end(), b"," if style.comma == b"," else b", "))
    for match in _OPERATOR.finditer(spaced):
        edits.append(Edit(match.start(), match.end(), style.around_operator + match[1] + style.around_operator))
    edits += (Edit(match.start(), match.end(), b"") for match in _TRAILING.finditer(masked))
    if style.one_blank_line:
        edits += (Edit(match.start(), match.end(), b"\n") for match in _BLANK_LINES.finditer(masked))
    return [edit for edit in edits if source[edit.start : edit.end] != edit.new]


def _masked(source: bytes, ranges: list[tuple[int, int, bytes]]) -> bytes:
    """Return `source` with the bytes of each range replaced by a mark; of ranges inside others the outer one counts."""
    parts: list[bytes] = []
    at = 0
    for start, end, mark in sorted(ranges, key=lambda each: (each[0], -each[1])):
        if start < at:
            continue
        # A comment's line feed, which Rust's grammar counts as part of a doc comment, ends a line.
        stop = end - 1 if mark == _COMMENT and source[end - 1 : end] == b"\n" else end
        parts += (source[at:start], mark * (stop - start))
        at = stop
    return b"".join((*parts, source[at:]))


def _lines(masked: bytes) -> list[tuple[int, int, bytes]]:
    """Return (first byte, end of the indentation, content without line feed and blanks) of each line."""
    lines = []
    start = 0
    for line in masked.split(b"\n"):
        blanks = _BLANKS.match(line)
        width = blanks.end() if blanks else 0
        lines.append((start, start + width, line[width:].strip()))
        start += len(line) + 1
    return lines


def _width(indent: bytes) -> int:
    """Return the columns of an indentation, as Python counts them."""
    if b"\t" not in indent and b"\f" not in indent:
        return len(indent)
    width = 0
    for byte in indent:
        width = 0 if byte == 12 else width // _TAB_STOP * _TAB_STOP + _TAB_STOP if byte == 9 else width + 1
    return width


def _unit(masked: bytes) -> bytes:
    """Return the indentation that the most lines of a file begin with, in which all others may be counted."""
    indents = Counter(match.group() for match in re.finditer(rb"^[ \t]+(?=[^\s#])", masked, re.MULTILINE))
    tabs = sum(count for indent, count in indents.items() if indent.startswith(b"\t"))
    total = sum(indents.values())
    if tabs * 2 > total:
        return b"\t"
    for size in (8, 4, 3, 2):
        if total and sum(count for indent, count in indents.items() if len(indent) % size == 0) > 0.8 * total:
            return b" " * size
    return b"    "


def _indented_python(masked: bytes, style: Style) -> list[Edit]:
    """Return the edits that give each block one more `unit` than the block around it; other lines move with theirs."""
    edits = []
    stack = [0]
    base, level, depth, continued = 0, b"", 0, False
    for start, text_start, content in _lines(masked):
        inside = depth > 0 or continued
        is_comment = content.startswith(_COMMENT)
        if not is_comment:
            depth += sum(map(content.count, (b"(", b"[", b"{"))) - sum(map(content.count, (b")", b"]", b"}")))
            continued = content.endswith(b"\\")
        if not content:
            continue
        width = _width(masked[start:text_start])
        if inside:
            new = level + b" " * max(0, width - base)
        elif is_comment:
            place = bisect_left(stack, width)
            known = place < len(stack) and stack[place] == width
            new = style.unit * place if known else level + b" " * max(0, width - base)
        else:
            while stack[-1] > width:
                stack.pop()
            if width > stack[-1]:
                stack.append(width)
            base, level = width, style.unit * (len(stack) - 1)
            new = level
        edits.append(Edit(start, text_start, new))
    return edits


def _indented(masked: bytes, style: Style) -> list[Edit]:
    """Return the edits that replace each old unit of indentation by a new one, and keep what is less than one."""
    old = _unit(masked)
    columns = _TAB_STOP if old == b"\t" else len(old)
    edits = []
    for start, text_start, content in _lines(masked):
        if content:
            units, rest = divmod(_width(masked[start:text_start]), columns)
            edits.append(Edit(start, text_start, style.unit * units + b" " * rest))
    return edits
