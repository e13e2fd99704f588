"""The languages of documents: which language a file's name means, and which languages have a grammar or patterns."""

from __future__ import annotations

from pathlib import PurePosixPath

# Languages whose documents can be augmented, and that have idiomatic patterns and low-quality marks.
FIRST_CLASS = ("python", "rust")
# Languages with a tree-sitter grammar: their documents have a complexity from the syntax tree.
WITH_GRAMMAR = (*FIRST_CLASS, "javascript", "typescript", "go", "c", "cpp", "java")
# Documentation, configuration and data; documents in these languages have the role docs.
PROSE = ("markdown", "restructuredtext", "text", "toml", "yaml", "json", "ini", "xml", "html", "css")
_OTHER = (
    *("shell", "ruby", "php", "perl", "lua", "r", "julia", "sql", "kotlin", "swift", "scala", "csharp", "haskell"),
    *("ocaml", "elixir", "erlang", "clojure", "dart", "zig", "nim", "assembly", "make", "cmake", "dockerfile"),
    *("protobuf", "cuda", "fortran", "tsx"),
)
LANGUAGES = (*WITH_GRAMMAR, *PROSE, *_OTHER)

_BY_EXTENSION = {
    **dict.fromkeys(("py", "pyi", "pyw"), "python"),
    "rs": "rust",
    **dict.fromkeys(("js", "mjs", "cjs", "jsx"), "javascript"),
    **dict.fromkeys(("ts", "mts", "cts"), "typescript"),
    "tsx": "tsx",
    "go": "go",
    **dict.fromkeys(("c", "h"), "c"),
    **dict.fromkeys(("cc", "cpp", "cxx", "hh", "hpp", "hxx"), "cpp"),
    "java": "java",
    **dict.fromkeys(("md", "markdown"), "markdown"),
    "rst": "restructuredtext",
    "txt": "text",
    "toml": "toml",
    **dict.fromkeys(("yaml", "yml"), "yaml"),
    "json": "json",
    **dict.fromkeys(("ini", "cfg"), "ini"),
    "xml": "xml",
    **dict.fromkeys(("html", "htm"), "html"),
    "css": "css",
    **dict.fromkeys(("sh", "bash", "zsh"), "shell"),
    "rb": "ruby",
    "php": "php",
    **dict.fromkeys(("pl", "pm"), "perl"),
    "lua": "lua",
    "r": "r",
    "jl": "julia",
    "sql": "sql",
    **dict.fromkeys(("kt", "kts"), "kotlin"),
    "swift": "swift",
    "scala": "scala",
    "cs": "csharp",
    "hs": "haskell",
    **dict.fromkeys(("ml", "mli"), "ocaml"),
    **dict.fromkeys(("ex", "exs"), "elixir"),
    "erl": "erlang",
    **dict.fromkeys(("clj", "cljs"), "clojure"),
    "dart": "dart",
    "zig": "zig",
    "nim": "nim",
    **dict.fromkeys(("s", "asm"), "assembly"),
    "mk": "make",
    "cmake": "cmake",
    "dockerfile": "dockerfile",
    "proto": "protobuf",
    **dict.fromkeys(("cu", "cuh"), "cuda"),
    **dict.fromkeys(("f", "f90", "f95"), "fortran"),
}
_BY_NAME = {
    "makefile": "make",
    "gnumakefile": "make",
    "cmakelists.txt": "cmake",
    "dockerfile": "dockerfile",
    "license": "text",
    "readme": "text",
}


def language_of(path: str) -> str | None:
    """Return the language of a file by its name and extension, or None if they are unknown.

    >>> language_of("src/main.rs"), language_of("Makefile"), language_of("photo.png")
    ('rust', 'make', None)
    """
    name = PurePosixPath(path).name.lower()
    return _BY_NAME.get(name) or _BY_EXTENSION.get(name.rpartition(".")[2] if "." in name else "")
