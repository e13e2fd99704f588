"""Removes test items from Rust source code: `#[cfg(test)]` modules, `#[test]` functions and the like.

The items are found on the syntax tree, so the same words in a string, a comment or a macro remove nothing.
"""

from __future__ import annotations

import re

from tree_sitter import Node, Query, QueryCursor

from schema.source_code.grammar import grammar_of, parse
from schema.source_code.isolated_marks import is_parsed_in_time
from schema.source_code.rust_items import items_of

# #[cfg(test)], #[cfg(all(test, ...))], #[test], #[bench] and other crates' #[tokio::test], also with arguments.
_TEST = re.compile(
    rb"#!?\s*\[\s*(?:cfg\s*\(\s*(?:test|all\s*\(\s*(?:[^()]*,\s*)?test\s*[,)].*)\s*\)"
    rb"|(?:\w+\s*::\s*)*(?:test|bench)\s*(?:\(.*\))?)\s*\]",
    re.DOTALL,
)
_QUERY = "[(attribute_item) (inner_attribute_item)] @attribute"


def without_tests(text: str) -> str:
    """Return Rust source code without its test items, with their attributes and doc comments.

    A file with `#![cfg(test)]` becomes empty. Source code that does not parse is read as far as its tree goes.

    >>> without_tests("fn a() {}\\n\\n#[cfg(test)]\\nmod tests {\\n    use super::*;\\n}\\n")
    'fn a() {}\\n\\n'
    """
    if "test" not in text and "bench" not in text:
        return text
    source = text.encode()
    if not is_parsed_in_time(source, "rust"):
        return text
    grammar, tree = grammar_of("rust"), parse(source, "rust")
    if grammar is None or tree is None:
        return text
    attributes = QueryCursor(Query(grammar, _QUERY)).captures(tree.root_node).get("attribute", [])
    spans = []
    items = items_of(attributes)
    begins: dict[int, int] = {}
    for attribute in attributes:
        if not _TEST.fullmatch(source, attribute.start_byte, attribute.end_byte):
            continue
        if attribute.type == "inner_attribute_item":
            # It belongs to what it is in: a module, or the whole file.
            module = attribute.parent.parent if attribute.parent is not None else None
            whole = module if module is not None else tree.root_node
            spans.append((_begin_of(whole, source, begins), whole.end_byte))
        elif (item := items[attribute.start_byte]) is not None:
            spans.append((_begin_of(attribute, source, begins), item.end_byte))
    return _without(source, spans).decode()


def _begin_of(node: Node, source: bytes, begins: dict[int, int]) -> int:
    """Return where an item or attribute begins, with the attributes and doc comments before it.

    Args:
        begins: what earlier calls returned, by the node's first byte; the result is added.
    """
    first = node
    while (before := first.prev_named_sibling) is not None and (
        before.type == "attribute_item" or source.startswith((b"///", b"/**"), before.start_byte)
    ):
        first = before
        if first.start_byte in begins:
            break
    begins[node.start_byte] = begins.get(first.start_byte, first.start_byte)
    return begins[node.start_byte]


def _without(source: bytes, spans: list[tuple[int, int]]) -> bytes:
    """Return `source` without the spans, which may nest, and without what is left of their lines if that is blank."""
    kept, end = [], 0
    for begin, stop in sorted(spans):
        # A span inside the one before it begins before `end`, and then nothing is kept between the two.
        line = source.rfind(b"\n", end, begin) + 1 or end
        kept.append(source[end : line if source[line:begin].isspace() else begin])
        if stop > end:
            newline = source.find(b"\n", stop)
            blank = newline >= 0 and not source[stop:newline].strip()
            end = newline + 1 if blank else stop
    kept.append(source[end:])
    return b"".join(kept)
