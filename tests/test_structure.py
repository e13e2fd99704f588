"""The structure holds: imports go one way, schema stays light, and no two packages share a name with a distribution."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import distributions, version
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("schema", "broker", "producers", "streams", "consumers", "feedmill", "bench")
# Who may import whom, of our own packages.
ALLOWED = {
    "schema": set(),
    "broker": {"schema"},
    "producers": {"schema", "broker"},
    "streams": {"schema", "broker"},
    "consumers": {"schema", "broker"},
    "feedmill": {"schema", "broker", "producers", "streams", "consumers", "bench"},
    "bench": {"schema", "broker", "producers", "streams", "consumers", "feedmill"},
}
FOREIGN_TO_SCHEMA = {"kafka", "aiokafka", "faust", "duckdb", "torch", "transformers"}


def sources(package: str) -> Iterator[Path]:
    return (ROOT / package).rglob("*.py")


def imported(path: Path) -> set[str]:
    """Top-level names of all modules that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_go_one_way(package: str) -> None:
    forbidden = set(PACKAGES) - ALLOWED[package] - {package}
    wrong = {str(path.relative_to(ROOT)): found for path in sources(package) if (found := imported(path) & forbidden)}
    assert wrong == {}


def test_schema_imports_no_service() -> None:
    wrong = {path.name: found for path in sources("schema") if (found := imported(path) & FOREIGN_TO_SCHEMA)}
    assert wrong == {}


def test_only_the_settings_read_the_environment() -> None:
    readers = {
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in sources(package)
        if any(name in path.read_text(encoding="utf-8") for name in ("os.environ", "getenv"))
    }
    # jvm.py and pool.py hand an environment on to their children; lifting FEEDMILL_ from it is the settings' alone.
    assert {name for name in readers if "FEEDMILL_" in (ROOT / name).read_text(encoding="utf-8")} <= {
        "schema/settings.py"
    }


@pytest.mark.parametrize("package", PACKAGES)
def test_every_module_says_what_it_is_for(package: str) -> None:
    silent = [path.name for path in sources(package) if not ast.get_docstring(ast.parse(path.read_text()))]
    assert silent == []


def test_no_installed_distribution_takes_the_name_of_a_package() -> None:
    names = {distribution.metadata["Name"].lower() for distribution in distributions()}
    assert names & (set(PACKAGES) - {"feedmill"}) == set()


@pytest.mark.parametrize("name", ["aiokafka", "faust-streaming", "kafka-python"])
def test_library_whose_private_parts_are_used_is_pinned_and_installed_as_pinned(name: str) -> None:
    lines = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    (pinned,) = [line for line in lines if re.split(r"[\[=<>~! ;]", line)[0] == name]
    exact = re.fullmatch(rf"{name}(?:\[[\w,]+\])?==(\d+(?:\.\d+)*)", pinned)
    assert exact, f"{pinned}: another version may lack what is used of its private parts"
    assert version(name) == exact[1]
    for lock in ("requirements.lock", "requirements-bench.lock"):
        assert re.search(
            rf"^{name}(?:\[[\w,]+\])?=={re.escape(exact[1])}( |$)", (ROOT / lock).read_text(), re.MULTILINE
        )


def test_core_dependencies_pull_no_torch() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert not any(name in line for line in project["dependencies"] for name in ("torch", "transformers"))


def test_the_front_door_opens_without_the_heavy_libraries() -> None:
    program = "import sys, feedmill.cli; print(sorted({'torch', 'transformers', 'numba', 'faust'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-bench.lock"])
def test_the_lock_names_no_index(lock: str) -> None:
    lines = (ROOT / lock).read_text().splitlines()
    assert not [line for line in lines if "://" in line or line.startswith(("--index", "--extra-index", "--find"))]
    pinned = [line for line in lines if "==" in line]
    assert len(pinned) > 50
    assert sum("--hash=sha256:" in line for line in lines) >= len(pinned)


def test_the_public_names_are_all_there() -> None:
    import feedmill

    assert sorted(feedmill.__all__) == sorted(set(feedmill.__all__))
    for name in feedmill.__all__:
        assert getattr(feedmill, name) is not None
    with pytest.raises(AttributeError, match="nothing_such"):
        feedmill.nothing_such  # noqa: B018
