"""The signatures of what a file imports from its own repository.

Imports are resolved by the names of the repository's files. Python: absolute and relative imports, packages with and
without `__init__.py`, `src` folders, and names that a package imports from its modules. Rust: `mod x;`, `use` of
`crate`, `self`, `super`, child modules, and the repository's other crates by the names in their `Cargo.toml`. Other
imports are not of the repository, and give nothing.

Texts are read when they are needed and not kept. Signatures and imports of the files used last are kept.
"""

from __future__ import annotations

import tomllib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from producers.source_code.signatures import Import, Signature, imports_of, rendered, signatures_of
from schema.source_code.languages import language_of

ReadBytes = Callable[[], bytes]
MAX_CHARACTERS = 4_000
# Files over this size have no signatures.
_LARGEST_FILE_BYTES = 1_000_000
_LARGEST_MANIFEST_BYTES = 200_000
# Characters of signatures and imports that are kept: some 30 MB.
_KEPT_CHARACTERS = 8_000_000
# Steps from a package to the module that defines a name which the package imports.
_MOST_STEPS = 4
# Imports that are followed for one file, those of the packages that it imports included.
_MOST_RESOLVED = 1_000
_ROOT_MODULES = ("lib.rs", "main.rs")


class _Outline(NamedTuple):
    """What is kept of a file."""

    signatures: list[Signature]
    imports: list[Import]
    characters: int


class _Target(NamedTuple):
    """A file of the repository, and the name that is wanted of it; an empty name means all public ones."""

    path: str
    name: str


class Dependencies:
    """The imports between the files of one repository.

    Args:
        files: path inside the repository, with `/` -> a function that returns the file's bytes, or raises OSError.
        max_characters: the longest result of `signatures`.
    """

    def __init__(self, files: Mapping[str, ReadBytes], *, max_characters: int = MAX_CHARACTERS) -> None:
        self._files = files
        self._max_characters = max_characters
        self._kept: OrderedDict[str, _Outline] = OrderedDict()
        self._kept_characters = 0
        self._roots = _python_roots(files)
        self._crates = self._crate_sources()

    def signatures(self, path: str) -> str | None:
        """Return the signatures of what a file imports from its repository, or None if it imports nothing from it.

        Each imported file is a comment with its path, then its signatures as lines of code. Whole signatures are left
        out at the end to keep to the limit.
        """
        language = language_of(path)
        wanted: dict[str, set[str]] = {}
        for target in self._targets(path, language):
            if target.path != path:
                wanted.setdefault(target.path, set()).add(target.name)
        mark = "#" if language == "python" else "//"
        parts: list[str] = []
        room = self._max_characters
        for file, names in wanted.items():
            chosen = [each for each in self._outline(file).signatures if _is_wanted(each, names)]
            for number, part in enumerate(rendered(chosen, language or "")):
                whole = part if number else f"{mark} {file}\n{part}"
                if len(whole) > room:
                    return "".join(parts) or None
                parts.append(whole)
                room -= len(whole)
        return "".join(parts) or None

    def _targets(self, path: str, language: str | None) -> Iterator[_Target]:
        seen = set[tuple[str, Import]]()
        for each in self._outline(path).imports:
            yield from self._resolved(path, language, each, _MOST_STEPS, seen)

    def _resolved(
        self, path: str, language: str | None, wanted: Import, steps: int, seen: set[tuple[str, Import]]
    ) -> Iterator[_Target]:
        if (path, wanted) in seen or len(seen) >= _MOST_RESOLVED:
            return
        seen.add((path, wanted))
        if language == "python":
            found = self._python_target(path, wanted)
        elif language == "rust":
            found = self._rust_target(path, wanted)
        else:
            return
        if found is None:
            return
        if not found.name or any(each.name == found.name for each in self._outline(found.path).signatures):
            yield found
        if not steps:
            return
        # The file may import the name itself, and so give it to others.
        for each in self._outline(found.path).imports:
            if each.alias == "*" or (found.name and each.alias == found.name):
                name = found.name if each.alias == "*" else each.name
                inner = Import(each.module, name or "*", name)
                yield from self._resolved(found.path, language, inner, steps - 1, seen)

    def _outline(self, path: str) -> _Outline:
        if path in self._kept:
            self._kept.move_to_end(path)
            return self._kept[path]
        language = language_of(path) or ""
        text = self._text(path, _LARGEST_FILE_BYTES)
        signatures, imports = signatures_of(text, language), imports_of(text, language)
        characters = 100 * (len(signatures) + len(imports)) + sum(map(len, map("".join, [*signatures, *imports])))
        outline = self._kept[path] = _Outline(signatures, imports, characters)
        self._kept_characters += characters
        while self._kept_characters > _KEPT_CHARACTERS and len(self._kept) > 1:
            self._kept_characters -= self._kept.popitem(last=False)[1].characters
        return outline

    def _text(self, path: str, limit: int) -> str:
        try:
            data = self._files[path]()
        except (OSError, KeyError):
            return ""
        return data.decode("utf-8", "replace") if len(data) <= limit else ""

    def _python_target(self, path: str, wanted: Import) -> _Target | None:
        module = wanted.module.lstrip(".")
        level = len(wanted.module) - len(module)
        parts = [part for part in module.split(".") if part]
        if level:
            folder = path.split("/")[:-1]
            if level - 1 > len(folder):
                return None
            roots = ["/".join(folder[: len(folder) - level + 1])]
        else:
            roots = [
                _package_root(path, self._files),
                path.rpartition("/")[0],
                "",
                "src",
                *self._roots.get(parts[0], ()),
            ]
        for root in roots:
            if wanted.name not in ("", "*") and (file := self._python_file(root, [*parts, wanted.name])):
                return _Target(file, "")
            if file := self._python_file(root, parts):
                return _Target(file, "" if wanted.name == "*" else wanted.name)
        return None

    def _python_file(self, root: str, parts: list[str]) -> str | None:
        base = "/".join([root, *parts] if root else parts)
        for ending in (".py", "/__init__.py", ".pyi"):
            path = f"{base}{ending}".removeprefix("/")
            if path in self._files:
                return path
        return None

    def _rust_target(self, path: str, wanted: Import) -> _Target | None:
        source = self._crate_of(path)
        first, *rest = [*wanted.module.split("::"), *([wanted.name] if wanted.name not in ("", "*") else [])]
        own = _rust_module(path, source)
        if first == "crate":
            module = rest
        elif first == "self":
            module = [*own, *rest]
        elif first == "super":
            ups = 1
            while rest and rest[0] == "super":
                ups, rest = ups + 1, rest[1:]
            if ups > len(own):
                return None
            module = [*own[: len(own) - ups], *rest]
        elif first in self._crates:
            source, module = self._crates[first], rest
        else:
            module = [*own, first, *rest]
            if self._rust_file(source, module[: len(own) + 1]) is None:
                return None
        for end in range(len(module), -1, -1):
            if file := self._rust_file(source, module[:end]):
                return _Target(file, module[end] if end < len(module) else "")
        return None

    def _rust_file(self, source: str, module: list[str]) -> str | None:
        prefix = f"{source}/" if source else ""
        base = prefix + "/".join(module)
        for path in [f"{base}.rs", f"{base}/mod.rs"] if module else [f"{prefix}{name}" for name in _ROOT_MODULES]:
            if path in self._files:
                return path
        return None

    def _crate_of(self, path: str) -> str:
        """Return the folder with the root module of the crate that a file is in."""
        folder = path.rpartition("/")[0]
        while True:
            prefix = f"{folder}/" if folder else ""
            if any(f"{prefix}{name}" in self._files for name in _ROOT_MODULES):
                return folder
            if not folder:
                return path.rpartition("/")[0]
            folder = folder.rpartition("/")[0]

    def _crate_sources(self) -> dict[str, str]:
        """Return the source folder of each crate of the repository, by the name that `use` has for it."""
        crates: dict[str, str] = {}
        for path in sorted(path for path in self._files if path.rpartition("/")[2] == "Cargo.toml"):
            try:
                package = tomllib.loads(self._text(path, _LARGEST_MANIFEST_BYTES)).get("package", {})
                name = str(package["name"]).replace("-", "_")
            except (tomllib.TOMLDecodeError, KeyError, TypeError, AttributeError, RecursionError):
                continue
            folder = f"{path.removesuffix('Cargo.toml')}src"
            if f"{folder}/lib.rs" in self._files:
                crates.setdefault(name, folder)
        return crates


def _is_wanted(signature: Signature, names: set[str]) -> bool:
    if signature.name in names:
        return not signature.method or signature.public
    return "" in names and signature.public


def _package_root(path: str, files: Mapping[str, ReadBytes]) -> str:
    """Return the folder that holds the outermost package that a Python file is in."""
    folder = path.rpartition("/")[0]
    while folder and f"{folder}/__init__.py" in files:
        folder = folder.rpartition("/")[0]
    return folder


def _python_roots(files: Mapping[str, ReadBytes]) -> dict[str, list[str]]:
    """Return the folders that hold a package or module, by its name; the least deep come first."""
    roots: dict[str, set[str]] = {}
    for path in files:
        folder, _, name = path.rpartition("/")
        if name == "__init__.py" and folder:
            root, _, package = folder.rpartition("/")
            if f"{root}/__init__.py" not in files:
                roots.setdefault(package, set()).add(root)
        elif name.endswith(".py") and f"{folder}/__init__.py" not in files:
            roots.setdefault(name.removesuffix(".py"), set()).add(folder)
    return {name: sorted(found, key=lambda root: (root.count("/"), root)) for name, found in roots.items()}


def _rust_module(path: str, source: str) -> list[str]:
    """Return the segments of a file's module inside its crate."""
    inside = path[len(source) + 1 :] if source else path
    parts = inside.removesuffix(".rs").split("/")
    if len(parts) == 1 and f"{parts[0]}.rs" in _ROOT_MODULES:
        return []
    return parts[:-1] if parts[-1] == "mod" else parts
