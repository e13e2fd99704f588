"""Signatures and imports of a source file, from its syntax tree: for the documents with their dependencies' signatures.

Python: functions, classes and their methods. Rust: functions, structs, enums, traits, type aliases, and the methods of
types. Each is its header on one line, and the first line of its documentation. Bodies are left out, and so are
functions inside functions and the items of inline modules.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import cache
from typing import NamedTuple

from tree_sitter import Node, Query, QueryCursor

from schema.source_code.grammar import grammar_of, parse
from schema.source_code.isolated_marks import is_parsed_in_time

_PYTHON_FUNCTION = "(function_definition name: (_) @name body: (_) @body) @item"
_PYTHON_CLASS = "(class_definition name: (_) @name body: (_) @body) @item"
_PYTHON_METHOD = "(function_definition name: (_) @method body: (_) @body) @item"
_RUST_HEADED = """
    (function_item name: (_) @{name} body: (_) @body) @item
    (function_signature_item name: (_) @{name}) @item
"""
_RUST_TYPES = """
    (struct_item name: (_) @name body: (field_declaration_list)? @body) @item
    (enum_item name: (_) @name body: (_) @body) @item
    (trait_item name: (_) @name body: (_) @body) @item
    (impl_item type: (_) @name body: (_) @body) @item
    (type_item name: (_) @name) @item
"""
_SIGNATURES = {
    "python": f"""
        (module [{_PYTHON_FUNCTION} {_PYTHON_CLASS}])
        (module (decorated_definition definition: [{_PYTHON_FUNCTION} {_PYTHON_CLASS}]))
        (module (class_definition name: (_) @name body: (block {_PYTHON_METHOD})))
        (module (class_definition name: (_) @name body: (block (decorated_definition definition: {_PYTHON_METHOD}))))
        (module (decorated_definition definition: (class_definition name: (_) @name body: (block {_PYTHON_METHOD}))))
        (module (decorated_definition definition: (class_definition name: (_) @name
          body: (block (decorated_definition definition: {_PYTHON_METHOD})))))
        (block . (comment)* . (expression_statement . (string) @doc)) @documented
    """,
    "rust": f"""
        (source_file [{_RUST_HEADED.format(name="name")} {_RUST_TYPES}])
        (source_file (impl_item !trait type: (_) @name body: (declaration_list [{_RUST_HEADED.format(name="method")}])))
        (source_file (trait_item name: (_) @name body: (declaration_list [{_RUST_HEADED.format(name="method")}])))
    """,
}
_IMPORTS = {
    "python": """
        (import_statement name: (dotted_name) @module)
        (import_statement name: (aliased_import name: (dotted_name) @module))
        (import_from_statement module_name: (_) @module name: (dotted_name) @name)
        (import_from_statement module_name: (_) @module name: (aliased_import name: (_) @name alias: (_) @alias))
        (import_from_statement module_name: (_) @module (wildcard_import) @name)
    """,
    "rust": """
        (source_file (use_declaration argument: (_) @use))
        (source_file (mod_item name: (_) @mod !body))
    """,
}
LANGUAGES = tuple(_SIGNATURES)
_LONGEST_HEADER = 400
_LONGEST_DOC = 200
_LONGEST_USE = 4_000
_MOST_IMPORTS = 2_000
_RUST_ITEM = re.compile(rb"[ \t]*(///|#!?\[)")


class Signature(NamedTuple):
    """The header of a function, class or type.

    Attributes:
        name: of the item; of a method, that of its class or type.
        method: the name of a method, else an empty text.
        header: on one line.
        doc: the first line of the documentation, or an empty text.
    """

    name: str
    method: str
    header: str
    doc: str

    @property
    def public(self) -> bool:
        """Whether neither name begins with an underscore, special methods excepted."""
        return not any(each.startswith("_") and not each.startswith("__") for each in (self.name, self.method))


class Import(NamedTuple):
    """What a file imports.

    Attributes:
        module: Python: the dotted name, with leading dots if it is relative. Rust: the path of segments with `::`; for
            `mod x;` it is `self::x`.
        name: of what is imported from the module; `*` for all; empty if the module itself is imported.
        alias: the name of it in the file.
    """

    module: str
    name: str
    alias: str


def signatures_of(text: str, language: str) -> list[Signature]:
    """Return the signatures of a file in their order; none for a language that is not Python or Rust.

    >>> signatures_of("def area(r: float) -> float:\\n    'The area.'\\n    return r * r", "python")
    [Signature(name='area', method='', header='def area(r: float) -> float:', doc='The area.')]
    """
    source = text.encode("utf-8", "replace")
    items: dict[int, tuple[Node, str, str, Node | None]] = {}
    docs: dict[int, str] = {}
    for found in _matches(_SIGNATURES, source, language):
        if "doc" in found:
            docs[found["documented"][0].start_byte] = _python_doc(_text(found["doc"][0]))
            continue
        node = found["item"][0]
        method = _text(found["method"][0]) if "method" in found else ""
        body = found["body"][0] if "body" in found else None
        items[node.start_byte] = node, _bare(_text(found["name"][0])), method, body
    signatures = []
    for start, (node, name, method, body) in sorted(items.items()):
        header = _one_line(source[start : body.start_byte if body else node.end_byte], language)
        if len(header) <= _LONGEST_HEADER:
            doc = docs.get(body.start_byte, "") if language == "python" and body else _rust_doc(source, start)
            signatures.append(Signature(name, method, header, doc[:_LONGEST_DOC]))
    return signatures


def imports_of(text: str, language: str) -> list[Import]:
    """Return the imports of a file in their order, each once; none for a language that is not Python or Rust.

    >>> imports_of("from .shapes import Circle as C", "python")
    [Import(module='.shapes', name='Circle', alias='C')]
    >>> [each.module for each in imports_of("use crate::a::{B, c::*}; mod d;", "rust")]
    ['crate::a', 'crate::a::c', 'self::d']
    """
    found: dict[Import, None] = {}
    for match in _matches(_IMPORTS, text.encode("utf-8", "replace"), language):
        if len(found) >= _MOST_IMPORTS:
            break
        if "mod" in match:
            found[Import(f"self::{_text(match['mod'][0])}", "", "")] = None
        elif "use" in match:
            found |= dict.fromkeys(_use_paths(_text(match["use"][0])))
        else:
            name = _text(match["name"][0]) if "name" in match else ""
            alias = _text(match["alias"][0]) if "alias" in match else name
            found[Import("".join(_text(match["module"][0]).split()), name, alias)] = None
    return list(found)


def rendered(signatures: Iterable[Signature], language: str) -> Iterator[str]:
    """Yield each signature as lines of code with a newline at the end; methods are indented."""
    for each in signatures:
        indent = "    " if each.method else ""
        if language == "rust":
            doc = f"{indent}/// {each.doc}\n" if each.doc else ""
            yield f"{doc}{indent}{each.header}\n"
        elif each.doc:
            yield f'{indent}{each.header}\n{indent}    """{each.doc}"""\n'
        else:
            yield f"{indent}{each.header}{'' if each.header.startswith('class') else ' ...'}\n"


@cache
def _query(queries: str, language: str) -> Query | None:
    grammar = grammar_of(language)
    return None if grammar is None else Query(grammar, queries)


def _matches(queries: dict[str, str], source: bytes, language: str) -> Iterator[dict[str, list[Node]]]:
    if language not in queries or not is_parsed_in_time(source, language):
        return
    query, tree = _query(queries[language], language), parse(source, language)
    if query is not None and tree is not None:
        for _, match in QueryCursor(query).matches(tree.root_node):
            yield match


def _text(node: Node) -> str:
    return (node.text or b"").decode("utf-8", "replace")


def _bare(name: str) -> str:
    """Return a type's name without its parameters and path."""
    return name.partition("<")[0].rpartition("::")[2].strip()


def _one_line(header: bytes, language: str) -> str:
    mark = rb"#[^\n]*" if language == "python" else rb"//[^\n]*"
    lines = re.sub(mark, b"", header) if b"\n" in header else header
    return " ".join(lines.decode("utf-8", "replace").split())


def _python_doc(literal: str) -> str:
    text = literal.lstrip("rRbBuUfF").strip("\"'").strip()
    return text.partition("\n")[0].strip().replace('"""', "'''").removesuffix("\\")


def _rust_doc(source: bytes, start: int) -> str:
    """Return the first line of the `///` comments above an item, between which attributes may be."""
    doc = b""
    end = source.rfind(b"\n", 0, start)
    while end >= 0:
        begin = source.rfind(b"\n", 0, end) + 1
        match = _RUST_ITEM.match(source, begin, end)
        if not match:
            break
        if match[1] == b"///":
            doc = source[match.end() : end]
        end = begin - 1
    return doc.decode("utf-8", "replace").strip()


def _use_paths(text: str) -> list[Import]:
    """Return the paths of a `use` tree: `a::{b, c::*}` has `b` of `a`, and all of `a::c`."""
    paths: list[Import] = []
    prefixes: list[str] = [""]
    word = ""
    for piece in re.findall(r"[{},]|[^{},]+", re.sub(r"//[^\n]*|/\*.*?\*/", "", text[:_LONGEST_USE], flags=re.DOTALL)):
        if piece == "{":
            prefixes.append(prefixes[-1] + word)
            word = ""
        elif piece in ",}":
            paths += _use_path(prefixes[-1] + word)
            word = ""
            if piece == "}" and len(prefixes) > 1:
                prefixes.pop()
        else:
            word = piece.strip()
    return paths + _use_path(prefixes[-1] + word)


def _use_path(path: str) -> list[Import]:
    words, _, alias = path.partition(" as ")
    module, _, name = "".join(words.split()).rpartition("::")
    if not name:
        return []
    if name == "self":
        module, _, name = module.rpartition("::")
    return [Import(module, name, alias.strip() or name)]
