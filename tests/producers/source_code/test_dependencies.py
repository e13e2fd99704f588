"""Imports are resolved inside the repository, and give the signatures of what they import."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from producers.source_code import signatures
from producers.source_code.dependencies import Dependencies
from producers.source_code.signatures import imports_of, rendered, signatures_of

ROOT = Path(__file__).parents[3]


def dependencies(files: dict[str, str], **options: int) -> Dependencies:
    def reader(text: str) -> Callable[[], bytes]:
        return lambda: text.encode()

    return Dependencies({path: reader(text) for path, text in files.items()}, **options)


SHAPES = '''
class Circle(Base):
    """A circle."""

    def area(self, scale: int = 1) -> float:
        """The area.

        In square metres."""
        return 3 * self.r**2

    def _hidden(self): ...


@cache
def square(
    side: float,  # in metres
) -> "Square":
    def inner(): ...
    return Square(side)


def _private(): ...
'''
CIRCLE = (
    'class Circle(Base):\n    """A circle."""\n    def area(self, scale: int = 1) -> float:\n        """The area."""\n'
)
SQUARE = 'def square( side: float, ) -> "Square": ...\n'


def test_signatures_of_python_are_headers_with_the_first_line_of_the_docstring() -> None:
    found = [each for each in signatures_of(SHAPES, "python") if each.public]
    assert "".join(rendered(found, "python")) == CIRCLE + SQUARE


RUST = """
/// A shape.
#[derive(Debug)]
pub struct Circle<T> { r: T }
pub struct Point(f64, f64);
pub trait Shape: Clone {
    /// The area.
    /// In square metres.
    fn area(&self) -> f64;
}
impl<T> Circle<T> {
    pub fn new(r: T) -> Self { Circle { r } }
}
impl<T> Shape for Circle<T> { fn area(&self) -> f64 { 1.0 } }
pub fn unit() -> Circle<f64> { fn inner() {} Circle::new(1.0) }
mod inline { pub fn not_listed() {} }
"""
RUST_CIRCLE = (
    "/// A shape.\npub struct Circle<T>\nimpl<T> Circle<T>\n    pub fn new(r: T) -> Self\nimpl<T> Shape for Circle<T>\n"
)


def test_signatures_of_rust_are_headers_with_the_first_doc_comment() -> None:
    assert "".join(rendered(signatures_of(RUST, "rust"), "rust")) == (
        "/// A shape.\npub struct Circle<T>\npub struct Point(f64, f64);\npub trait Shape: Clone\n    /// The area.\n"
        "    fn area(&self) -> f64;\nimpl<T> Circle<T>\n    pub fn new(r: T) -> Self\nimpl<T> Shape for Circle<T>\n"
        "pub fn unit() -> Circle<f64>\n"
    )


def test_other_languages_have_no_signatures() -> None:
    assert signatures_of("func f() {}", "go") == []
    assert imports_of("import x from 'y'", "javascript") == []


PYTHON_CASES = [
    ("app/main.py", "from app.shapes import Circle", "# app/shapes.py\n" + CIRCLE),
    ("app/main.py", "from .shapes import square as s", "# app/shapes.py\n" + SQUARE),
    ("app/main.py", "from . import shapes", "# app/shapes.py\n" + CIRCLE + SQUARE),
    ("app/main.py", "import app.shapes as s", "# app/shapes.py\n" + CIRCLE + SQUARE),
    ("app/sub/deep.py", "from ..shapes import *", "# app/shapes.py\n" + CIRCLE + SQUARE),
    ("app/sub/deep.py", "def f():\n    from app import Circle", "# app/shapes.py\n" + CIRCLE),
    ("app/main.py", "from .shapes import _private", "# app/shapes.py\ndef _private(): ...\n"),
    ("tool.py", "from app.shapes import square", "# app/shapes.py\n" + SQUARE),
    ("app/main.py", "import os, numpy as np\nfrom json import loads", None),
    ("app/main.py", "from .... import shapes", None),
    ("app/main.py", "from .shapes import missing", None),
    ("app/main.py", "x = = 1", None),
]


@pytest.mark.parametrize(("path", "code", "expected"), PYTHON_CASES)
@pytest.mark.parametrize("root", ["", "src/", "python/lib/"])
def test_python_imports_are_resolved(root: str, path: str, code: str, expected: str | None) -> None:
    files = {
        f"{root}app/__init__.py": "from .shapes import Circle\n",
        f"{root}app/shapes.py": SHAPES,
        f"{root}app/sub/__init__.py": "",
        "numpy_like.py": "def f(): ...",
    }
    found = dependencies(files | {root + path: code}).signatures(root + path)
    assert found == (expected and expected.replace("# app", f"# {root}app"))


def test_a_package_without_init_is_found() -> None:
    files = {"pkg/sub/a.py": "def f(x): ...", "main.py": "from pkg.sub.a import f\nimport pkg.sub"}
    assert dependencies(files).signatures("main.py") == "# pkg/sub/a.py\ndef f(x): ...\n"


RUST_CASES = [
    ("src/main.rs", "mod shapes;", "// src/shapes.rs\nFULL"),
    ("src/lib.rs", "use crate::shapes::Circle;", "// src/shapes.rs\n" + RUST_CIRCLE),
    ("src/deep/mod.rs", "use super::shapes::{self as s, unit};", "// src/shapes.rs\nFULL"),
    ("src/deep/inner.rs", "use super::super::shapes::unit;", "// src/shapes.rs\npub fn unit() -> Circle<f64>\n"),
    ("src/deep/mod.rs", "use self::leaf::leaf;", "// src/deep/leaf.rs\npub fn leaf() -> u8\n"),
    ("src/lib.rs", "mod deep; use deep::{leaf::{leaf}};", "// src/deep/leaf.rs\npub fn leaf() -> u8\n"),
    ("other/src/lib.rs", "use my_crate::shapes::Point;", "// src/shapes.rs\npub struct Point(f64, f64);\n"),
    ("src/lib.rs", "use std::fmt; use serde::Serialize;", None),
    ("src/lib.rs", "use super::super::x;", None),
]


@pytest.mark.parametrize(("path", "code", "expected"), RUST_CASES)
def test_rust_imports_are_resolved(path: str, code: str, expected: str | None) -> None:
    files = {
        "Cargo.toml": '[package]\nname = "my-crate"\n',
        "src/lib.rs": "pub mod shapes;",
        "src/shapes.rs": RUST,
        "src/deep/mod.rs": "",
        "src/deep/leaf.rs": "pub fn leaf() -> u8 { 1 }",
        "broken/Cargo.toml": "[[",
    }
    full = "".join(rendered(signatures_of(RUST, "rust"), "rust"))
    found = dependencies(files | {path: code}).signatures(path)
    assert found == (expected and expected.replace("FULL", full))


def test_a_name_that_a_rust_crate_reexports_is_found() -> None:
    files = {
        "Cargo.toml": '[package]\nname = "a"\n',
        "src/lib.rs": "mod b; pub use self::b::Thing as Other;",
        "src/b.rs": "pub struct Thing;",
        "tests/t.rs": "use a::Other;",
    }
    assert dependencies(files).signatures("tests/t.rs") == "// src/b.rs\npub struct Thing;\n"


def test_imports_in_a_circle_end() -> None:
    files = {"a.py": "from b import *\nfrom b import x\ndef f(): ...", "b.py": "from a import *\nfrom a import x\n"}
    assert dependencies(files).signatures("b.py") == "# a.py\ndef f(): ...\n"


def test_whole_signatures_are_left_out_beyond_the_limit() -> None:
    files = {"a.py": "".join(f"def f{number}(): ...\n" for number in range(100)), "b.py": "from a import *"}
    found = dependencies(files, max_characters=100).signatures("b.py")
    assert found is not None
    assert len(found) <= 100
    assert found == "# a.py\n" + "".join(f"def f{number}(): ...\n" for number in range(6))


def test_a_file_that_cannot_be_read_or_is_too_large_gives_nothing() -> None:
    def fail() -> bytes:
        raise OSError("gone")

    files: dict[str, Callable[[], bytes]] = {"a.py": fail, "c.py": lambda: b"def f(): ...\n" * 100_000}
    files["b.py"] = lambda: b"import a, c"
    assert Dependencies(files).signatures("b.py") is None
    assert Dependencies(files).signatures("nothing.py") is None


@pytest.mark.slow
def test_this_repository_knows_its_own_signatures() -> None:
    paths = [path for name in ("schema", "producers", "consumers") for path in (ROOT / name).rglob("*.py")]
    own = Dependencies({str(path.relative_to(ROOT)): path.read_bytes for path in paths})
    found = own.signatures("producers/source_code/evolution.py")
    assert found is not None
    assert "# schema/source_code/languages.py\ndef language_of(path: str) -> str | None:" in found
    assert "class Repository:" in found
    assert sum(own.signatures(str(path.relative_to(ROOT))) is not None for path in paths) > len(paths) // 2


def test_a_text_that_takes_long_to_parse_has_no_signatures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signatures, "parse", lambda *_: pytest.fail("parsed here"))
    assert signatures_of(":[\t" * 200_000, "python") == []
