"""Renaming of local variables in Python files: which keep their names, and that nothing else changes."""

from __future__ import annotations

import ast
import importlib
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from symtable import SymbolTable, symtable
from types import CodeType, FrameType, ModuleType
from typing import Any

import pytest

from schema.source_code.grammar import parse
from streams.augmentation.source_code.documents import Document, LeftOut
from streams.augmentation.source_code.python_check import same_code
from streams.augmentation.source_code.python_names import renamable
from tests.streams.source_code.workloads import WORKLOADS

# A function, and the names in it that are renamed.
CASES = {
    "def f(a):\n    b = a\n    return b": "b",
    "def f(a, /, b, *c, d, **e):\n    return a, b, c, d, e": "a c e",
    "x = 1\ndef f():\n    global x\n    x = 2\n    y = x\n    return y": "y",
    "def f():\n    x = 1\n    z = 2\n    def g():\n        nonlocal x\n        x = z\n    return g": "z",
    "def f():\n    x = 1\n    class A:\n        x = x\n        y = x\n    return A": "x",
    "def f():\n    x = 1\n    class A:\n        y = x\n    return A": "x",
    "def f():\n    x = 1\n    class A:\n        x = 2\n        def g(*a): return x\n    return A": "x a",
    "class A:\n    x = 1\n    y = [x + z for z in range(x)]": "z",
    "def f():\n    import os\n    from a import b as c\n    def g(): ...\n    class D: ...\n    return os, c, g, D": "",
    "def f(self, cls):\n    _ = self.x = cls\n    __y = 1\n    return _": "",
    "def f(o):\n    v = o.v\n    g(v=v)\n    return {'v': v}": "v",
    "def f():\n    a = 1\n    return locals()": "",
    "def f():\n    a = 1\n    def g(): return eval('a')\n    def h():\n        c = 3\n        return c": "c",
    "def f():\n    a = 1\n    b = 2\n    return f'{a:{b}} {a!r} {{a}}'": "a b",
    "def f():\n    a = 1\n    b = 2\n    return f'{a=} {b}'": "b",
    "def f():\n    a = 1\n    return f'''{a\n} {(lambda *x: x)(a)}' '{f\"{a}\"}'''": "a x",
    "def f():\n    try:\n        g()\n    except (A, B) as error:\n        raise C from error": "error",
    "def f(v):\n    match v:\n        case [a, *b] | {'k': a, **b}:\n            return a, b": "a",
    "def f(v):\n    match v:\n        case P(x=a) as c if (d := a):\n            return c, d": "a c d",
    "def f():\n    return [a for b in c for a in b if (d := a)], d": "a b d",
    "def f(c):\n    a = c\n    return [a for a in a]": "a",
    "def f():\n    a: int = 1\n    b: int\n    del a": "a b",
    "def f():\n    for a, (b, *c) in d:\n        with e() as g, h() as (i, j):\n            a += b": "a b c g i j",
    "def f():\n    def g(a, b):\n        return a + b\n    return g(1, 2)": "a b",
    "def f():\n    def g(a, b):\n        return a + b\n    return g(1, b=2)": "",
    "def f():\n    def g(a):\n        return a\n    return g": "",
    "def f():\n    @wrap\n    def g(a, /):\n        return a\n    return g(1)": "",
    "def f():\n    def g(a):\n        return a\n    g = wrap(g)\n    return g(1)": "",
    "k = lambda a, *b: (a, b)": "b",
    "def f(x=lambda *a: a, *, y=[b for b in c]):\n    return x, y": "a b",
    "async def f():\n    async for a in b:\n        c = await a\n        yield c": "a c",
    "def f():\n    ªb = 1\n    return ab": "",
}


def names_of(text: str) -> set[str]:
    source = text.encode()
    tree = parse(source, "python")
    assert tree is not None
    return set(renamable(source, ast.parse(text), tree))


@pytest.mark.parametrize(("text", "expected"), CASES.items())
def test_only_names_that_nobody_else_can_use_are_renamed(text: str, expected: str) -> None:
    assert names_of(text) == set(expected.split())
    if expected:
        new = Document(text, "python").augmented("renamed", 7)
        assert same_symbols(text, new)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="type parameters are new in Python 3.12")
def test_type_parameters_keep_their_names() -> None:
    assert names_of("def f[T](*a: T) -> T:\n    b: T = a\n    type C[U] = U | T\n    return b") == {"a", "b"}


def test_new_names_keep_the_style_of_the_old_and_occur_nowhere_else() -> None:
    text = "def f():\n    i = _old = TOP = long_name = 1  # value item\n    return i, _old, TOP, long_name\n"
    for seed in range(50):
        new = Document(text, "python").augmented("renamed", seed)
        one, two, three, four = new.partition("=")[0].split()[-1], *new.split(" = ")[1:4]
        assert len(one) == 1 and two[0] == "_" and three.isupper() and "_" in four
        assert len({one, two, three, four, "value", "item", "f"}) == 7


def test_two_seeds_give_two_texts_and_one_seed_the_same() -> None:
    text = "def f(*numbers):\n    total = sum(numbers)\n    return total\n"
    texts = [Document(text, "python").augmented("renamed", seed) for seed in (1, 2, 1)]
    assert texts[0] == texts[2] != texts[1]


def test_a_file_without_local_variables_is_unchanged() -> None:
    with pytest.raises(LeftOut, match="unchanged"):
        Document("x = 1\n", "python").augmented("renamed", 1)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("a = 1", "b = 1", True),
        ("a.a = 1", "b.a = 1", True),
        ("a.a = 1", "b.b = 1", False),
        ("a = 1", "c = 1", False),
        ("f(a=a)", "f(b=b)", False),
        ("a + 1", "a - 1", False),
        ("a = 1", "a = True", False),
        ("a = 'a'", "b = 'b'", False),
        ("[a]", "[a, a]", False),
        ("def a(): pass", "def b(): pass", False),
    ],
)
def test_syntax_trees_are_the_same_only_but_for_renamed_variables(one: str, other: str, same: bool) -> None:
    assert same_code(ast.parse(one), ast.parse(other), {"a": "b"}) == same


def same_symbols(one: str, other: str) -> bool:
    """Whether two files have the same scopes with the same number of symbols of each sort."""

    def facts(table: SymbolTable) -> list[tuple[bool, ...]]:
        return sorted(
            (s.is_local(), s.is_free(), s.is_global(), s.is_parameter(), s.is_assigned(), s.is_referenced())
            for s in table.get_symbols()
        )

    pairs = [(symtable(one, "one", "exec"), symtable(other, "other", "exec"))]
    while pairs:
        first, second = pairs.pop()
        # A class may bind a name that its methods also use from outside: Python's table then joins two variables.
        if facts(first) != facts(second) and first.get_type() != "class":
            return False
        pairs += zip(first.get_children(), second.get_children(), strict=True)
    return True


def library() -> list[Path]:
    """The files of the standard library, without its tests."""
    root = Path(ast.__file__).parent
    left_out = {"test", "tests", "site-packages", "idle_test"}
    return sorted(path for path in root.rglob("*.py") if not left_out & set(path.relative_to(root).parts))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_no_occurrence_of_a_variable_is_forgotten_in_the_standard_library() -> None:
    renamed = 0
    for path in library()[::8]:
        text = path.read_text(encoding="utf-8", errors="replace")
        try:
            new = Document(text, "python").augmented("renamed", 5)
        except LeftOut as reason:
            assert str(reason) in ("unchanged", "not_parsed"), path
            continue
        assert same_symbols(text, new), path
        renamed += 1
    assert renamed > 40


def code_in(code: CodeType) -> Iterator[tuple[tuple[str, int], CodeType]]:
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield (constant.co_qualname, constant.co_firstlineno), constant
            yield from code_in(constant)


def result_of(name: str, text: str, work: Callable[[Any], object]) -> tuple[object, dict[tuple[str, int], CodeType]]:
    """Return what `work` makes of a module that is made from a text, and the functions of the text that it called."""
    called = {}

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code.co_filename == "<text>":
            called[frame.f_code.co_qualname, frame.f_code.co_firstlineno] = frame.f_code

    original = importlib.import_module(name)
    module = ModuleType(name)
    module.__file__, module.__package__ = original.__file__, original.__package__
    exec(compile(text, "<text>", "exec"), module.__dict__)  # noqa: S102
    before = sys.getprofile()
    sys.setprofile(note)
    try:
        return work(module), called
    finally:
        sys.setprofile(before)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_200_renamed_functions_of_the_standard_library_give_the_same_results() -> None:
    executed = {}
    for name, work in WORKLOADS.items():
        path = importlib.import_module(name).__file__
        assert path is not None
        text = Path(path).read_text(encoding="utf-8")
        new = Document(text, "python").augmented("renamed", 11)
        before, _ = result_of(name, text, work)
        after, called = result_of(name, new, work)
        assert repr(after) == repr(before), name
        # Lines do not move, so a function is known by its name and line.
        old_code = dict(code_in(compile(text, "<old>", "exec")))
        executed[name] = sum(
            old_code[key].co_varnames != code.co_varnames for key, code in called.items() if key in old_code
        )
    assert sum(executed.values()) >= 200, executed


def test_warnings_of_valid_code_are_not_raised() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert Document("def f():\n    a = '\\d'\n    return a\n", "python").augmented("renamed", 1)
