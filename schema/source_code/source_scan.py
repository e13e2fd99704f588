"""A look at source text without a parser: its comments, and the brackets that it leaves open.

The texts are untrusted, and a parser in C may crash on them. This takes time in proportion to the length.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

RUST, PYTHON = "rust", "python"

_PIECES = {
    RUST: re.compile(
        r"""(?P<line>//[^\n]*) | (?P<block>/\*)
        | \b(?:b|c)?r(?P<raw>\#*)" | (?P<string>")
        | (?P<character>b?'(?:\\(?:x[0-9a-fA-F]{2}|u\{[0-9a-fA-F_]{1,8}\}|[^xu])|[^'\\\n])')
        | (?P<open>[(\[{]) | (?P<close>[)\]}])""",
        re.VERBOSE,
    ),
    PYTHON: re.compile(
        r"""(?P<line>\#[^\n]*) | (?P<long>\"\"\"|''') | (?P<short>"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')
        | (?P<open>[(\[{]) | (?P<close>[)\]}])""",
        re.VERBOSE | re.DOTALL,
    ),
}
_STRING_END = re.compile(r'\\.|"', re.DOTALL)
_BLOCK_EDGE = re.compile(r"/\*|\*/")
_LITERAL = "0"


@dataclass(frozen=True)
class SourceScan:
    """What a scan found.

    Attributes:
        code: the text without comments, and with `0` for each literal; line feeds stay.
        comments: the text of all comments.
        open_brackets: brackets that are not closed at the end; an unclosed string or comment counts as one.
    """

    code: str
    comments: str
    open_brackets: int

    @property
    def code_lines(self) -> int:
        """The lines that hold code."""
        return sum(1 for line in self.code.splitlines() if line.strip())

    @property
    def comment_lines(self) -> int:
        """The lines of comments."""
        return sum(1 for line in self.comments.splitlines() if line.strip(" \t/*!#"))


def scan(text: str, language: str) -> SourceScan:
    """Return what a scan of `text` finds.

    >>> scan("fn main() { // {", "rust")
    SourceScan(code='fn main() { ', comments='// {\\n', open_brackets=1)
    """
    code: list[str] = []
    comments: list[str] = []
    place = depth = 0
    for kind, begin, end, depth_here in _pieces(text, language):
        code.append(text[place:begin])
        if kind in ("line", "block"):
            comments.append(f"{text[begin:end]}\n")
        else:
            code.append(text[begin:end] if kind in ("open", "close") else _LITERAL)
        # The lines of a comment or literal stay lines, but hold no code.
        code.append("\n" * text.count("\n", begin, end))
        place, depth = end, depth_here
    code.append(text[place:])
    return SourceScan("".join(code), "".join(comments), depth)


def block_end(text: str, begin: int, language: str) -> int | None:
    """Return the place after the first bracket at or after `begin` that closes the outermost open one, or None.

    >>> block_end("fn f() { g() } fn h() {}", 8, "rust")
    14
    """
    ends = (end for kind, _, end, depth in _pieces(text, language) if kind == "close" and depth == 0 and end > begin)
    return next(ends, None)


def block_begin(text: str, language: str) -> int | None:
    """Return the place after the first `{` that is within no other bracket, or None.

    >>> block_begin("fn f(x: [u8; 4]) {", "rust")
    18
    """
    begins = (
        end
        for kind, begin, end, depth in _pieces(text, language)
        if kind == "open" and depth == 1 and text[begin] == "{"
    )
    return next(begins, None)


def _pieces(text: str, language: str) -> Iterator[tuple[str, int, int, int]]:
    """Yield (kind, begin, end, brackets open after it) of each comment, literal and bracket."""
    pieces = _PIECES[language]
    place = depth = 0
    while match := pieces.search(text, place):
        kind, place = match.lastgroup or "raw", match.end()
        if kind == "open":
            depth += 1
        elif kind == "close":
            depth = max(0, depth - 1)
        elif kind not in ("line", "character", "short"):
            closed = _closed(text, place, kind, match[kind])
            place = len(text) if closed is None else closed
            depth += closed is None
        yield kind, match.start(), place, depth


def _closed(text: str, place: int, kind: str, opening: str) -> int | None:
    """Return where the literal or comment that begins before `place` ends; None if it does not."""
    if kind == "raw":
        end = text.find(f'"{opening}', place)
        return None if end < 0 else end + 1 + len(opening)
    if kind == "long":
        end = text.find(opening, place)
        return None if end < 0 else end + len(opening)
    if kind == "string":
        return next((match.end() for match in _STRING_END.finditer(text, place) if match[0] == '"'), None)
    depth = 1
    for match in _BLOCK_EDGE.finditer(text, place):
        depth += 1 if match[0] == "/*" else -1
        if depth == 0:
            return match.end()
    return None


def has_main(text: str) -> bool:
    """Return whether Rust source has a function `main`.

    >>> has_main("/* fn main() {} */ fn mainly() {}")
    False
    """
    return re.search(r"\bfn\s+main\s*[(<]", scan(text, RUST).code) is not None


def last_line(text: str) -> str:
    """Return the last line that is not blank, without the space around it."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")
