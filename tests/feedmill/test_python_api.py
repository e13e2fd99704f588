"""The examples of docs/python-api.md run in order against a real Kafka, and every public function has one of them."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

import feedmill
from broker.clients import Connection
from feedmill import FeedmillError, produce
from tests.integration.workers import worker

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "python-api.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
FUNCTIONS = ["Feed", "connect", "coverage_report", "drain", "forget", "load_settings"]
FUNCTIONS += ["produce", "read_ledger", "replay", "replay_run"]


def run_block(block: str, names: dict[str, Any]) -> None:
    """Run a block of the page, and compare each expression with the comment behind it; only calls may have none."""
    lines = block.splitlines()
    for statement in ast.parse(block).body:
        source = ast.get_source_segment(block, statement)
        assert source is not None
        comment = lines[statement.end_lineno - 1][statement.end_col_offset :].partition("#")[2].strip()  # type: ignore[operator]
        if isinstance(statement, ast.Expr) and comment:
            assert repr(eval(source, names)) == comment, source  # noqa: S307 - the text of our own page
        else:
            assert not isinstance(statement, ast.Expr) or isinstance(statement.value, ast.Call), source
            exec(source, names)  # noqa: S102 - the text of our own page


def test_the_examples_of_the_page_run_in_order_and_give_the_values_shown(
    connection: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in connection.settings.environment(connection.servers).items():
        if name.startswith("FEEDMILL_"):
            monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    with worker(connection.settings, tmp_path / "worker.log"):
        for block in BLOCKS:
            run_block(block, names)
    assert names["reasons"].columns == ["reason", "rows"]


@pytest.mark.slow
@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_public_functions_example_is_in_the_page(name: str) -> None:
    example = inspect.cleandoc(getattr(feedmill, name).__doc__).partition("Example::\n\n")[2]
    assert 0 < len(example.splitlines()) <= 6
    assert any(textwrap.dedent(example) in block for block in BLOCKS)


@pytest.mark.slow
@pytest.mark.parametrize("name", feedmill.__all__)
def test_every_public_name_is_in_the_pages_table_and_has_a_docstring(name: str) -> None:
    table = PAGE.partition("| name |")[2].partition("\n\n")[0]
    assert re.search(rf"`{name}`", table)
    assert inspect.getdoc(getattr(feedmill, name))


@pytest.mark.parametrize(
    ("family", "parameters", "line"),
    [
        ("poetry", {}, "unknown family 'poetry'"),
        (
            "reduction",
            {"backend": "composer"},
            "has no parameter 'backend': it has workers, run, fuel",
        ),
        ("reduction", {"count": -1}, "count is -1"),
        ("scenario", {"seed": -1}, "seed"),
    ],
)
def test_a_run_that_cannot_be_is_refused_before_anything_is_sent(
    family: str, parameters: dict[str, Any], line: str
) -> None:
    with pytest.raises(FeedmillError, match=re.escape(line)):
        produce(family, **{"count": 1, **parameters})


def test_a_seed_that_is_not_given_is_drawn_and_reported(tmp_path: Path) -> None:
    first, second = (produce("scenario", count=3, out=tmp_path / name) for name in ("a.jsonl", "b.jsonl"))
    assert first.seed != second.seed
    again = produce("scenario", count=3, seed=first.seed, out=tmp_path / "c.jsonl")
    assert again.run == first.run
    assert (tmp_path / "c.jsonl").read_bytes() == (tmp_path / "a.jsonl").read_bytes()


@pytest.mark.slow
def test_importing_feedmill_loads_no_library() -> None:
    program = "import sys, feedmill; print(sorted({'torch', 'kafka', 'polars', 'numba', 'faust'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "[]"
