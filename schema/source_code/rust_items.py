"""The items of Rust source code that attributes belong to."""

from __future__ import annotations

from collections.abc import Sequence

from tree_sitter import Node

_BETWEEN = ("attribute_item", "line_comment", "block_comment")


def items_of(attributes: Sequence[Node]) -> dict[int, Node | None]:
    """Return the item of each attribute by the attribute's first byte; None if no item follows.

    The item is the next sibling that is no attribute and no comment. Each sibling is looked at once, because a file
    may have thousands of attributes in a row.

    Args:
        attributes: all `attribute_item` nodes of a tree; other nodes are passed over.
    """
    items: dict[int, Node | None] = {}
    for attribute in sorted(attributes, key=lambda node: node.start_byte, reverse=True):
        if attribute.type != "attribute_item":
            continue
        node = attribute.next_named_sibling
        while node is not None and node.type in _BETWEEN and node.start_byte not in items:
            node = node.next_named_sibling
        items[attribute.start_byte] = None if node is None else items.get(node.start_byte, node)
    return items
