"""Rules for the repository: imports go one way, schema imports no service, nothing runs code from its input."""

from __future__ import annotations

import ast
import gc
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
# The packages of this repository that each package may import.
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


def parsed(path: Path) -> ast.Module:
    """Return the syntax tree of a file, made without garbage collection.

    Python 3.11 counts the depth of a tree in one place for the whole process. What the collector ends may print a
    traceback, for which Python makes a second tree, and the first one then fails with SystemError.
    """
    gc.disable()
    try:
        return ast.parse(path.read_text(encoding="utf-8"))
    finally:
        gc.enable()


def sources(package: str) -> Iterator[Path]:
    return (ROOT / package).rglob("*.py")


def imported(path: Path) -> set[str]:
    """Return the top-level names of all modules that a file imports, anywhere in it."""
    modules = set()
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            modules |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            modules.add(node.module.partition(".")[0])
    return modules


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_go_one_way(package: str) -> None:
    forbidden = set(PACKAGES) - ALLOWED[package] - {package}
    wrong = {str(path.relative_to(ROOT)): names for path in sources(package) if (names := imported(path) & forbidden)}
    assert wrong == {}


def run_time_imports(node: ast.AST) -> Iterator[str]:
    """Yield the full names of what a module imports, in functions too, but not for type checkers only.

    For `from a.b import c` this is `a.b.c`, where `c` may be a module or a name in the module `a.b`.
    """
    if isinstance(node, ast.If) and names_of(node.test) == "TYPE_CHECKING":
        branches: list[ast.AST] = list(node.orelse)
    else:
        branches = list(ast.iter_child_nodes(node))
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
        yield from (f"{node.module}.{alias.name}" for alias in node.names)
    for branch in branches:
        yield from run_time_imports(branch)


def import_circles(package: Path) -> list[list[str]]:
    """Return the circles of imports between the modules of a package, each as the names on the way."""
    modules = {}
    for path in package.rglob("*.py"):
        parts = path.relative_to(package.parent).with_suffix("").parts
        modules[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    imports: dict[str, list[str]] = {}
    for name, path in modules.items():
        full = set(run_time_imports(parsed(path)))
        imports[name] = sorted({each if each in modules else each.rpartition(".")[0] for each in full} & set(modules))
    circles: list[list[str]] = []
    finished: set[str] = set()

    def visit(name: str, way: list[str]) -> None:
        if name in way:
            circles.append([*way[way.index(name) :], name])
        elif name not in finished:
            for other in imports[name]:
                visit(other, [*way, name])
            finished.add(name)

    for name in imports:
        visit(name, [])
    return circles


@pytest.mark.parametrize("package", PACKAGES)
def test_no_modules_of_a_package_import_each_other_in_a_circle(package: str) -> None:
    assert import_circles(ROOT / package) == []


def test_the_search_for_import_circles_finds_them(tmp_path: Path) -> None:
    package = tmp_path / "p"
    (package / "q").mkdir(parents=True)
    (package / "a.py").write_text("from p.q import b\n")
    (package / "q" / "__init__.py").write_text("")
    (package / "q" / "b.py").write_text("def late():\n    import p.c\n")
    (package / "c.py").write_text("if TYPE_CHECKING:\n    import p.a\nelse:\n    from p.d import x\n")
    (package / "d.py").write_text("")
    assert import_circles(package) == []
    (package / "d.py").write_text("from p import a\n")
    (circle,) = import_circles(package)
    assert set(circle) == {"p.a", "p.q.b", "p.c", "p.d"}
    assert circle[0] == circle[-1]


def test_schema_imports_no_service() -> None:
    wrong = {path.name: names for path in sources("schema") if (names := imported(path) & FOREIGN_TO_SCHEMA)}
    assert wrong == {}


def test_only_the_settings_read_the_environment() -> None:
    readers = {
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in sources(package)
        if any(name in path.read_text(encoding="utf-8") for name in ("os.environ", "getenv"))
    }
    # jvm.py and pool.py pass an environment on to their children; only the settings read FEEDMILL_ variables.
    # surroundings.py removes PYTHONWARNINGS, and only names a setting in an error.
    assert {name for name in readers if "FEEDMILL_" in (ROOT / name).read_text(encoding="utf-8")} <= {
        "schema/settings.py",
        "feedmill/surroundings.py",
    }


@pytest.mark.parametrize("package", PACKAGES)
def test_every_module_has_a_docstring(package: str) -> None:
    silent = [path.name for path in sources(package) if not ast.get_docstring(parsed(path))]
    assert silent == []


def test_no_installed_distribution_takes_the_name_of_a_package() -> None:
    names = {distribution.metadata["Name"].lower() for distribution in distributions()}
    assert names & (set(PACKAGES) - {"feedmill"}) == set()


@pytest.mark.parametrize("name", ["aiokafka", "faust-streaming", "kafka-python"])
def test_library_with_used_private_parts_is_pinned_and_installed_as_pinned(name: str) -> None:
    lines = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    (pinned,) = [line for line in lines if re.split(r"[\[=<>~! ;]", line)[0] == name]
    exact = re.fullmatch(rf"{name}(?:\[[\w,]+\])?==(\d+(?:\.\d+)*)", pinned)
    assert exact, f"{pinned}: pin it exactly, because another version may lack the private parts that are used"
    assert version(name) == exact[1]
    for lock in ("requirements.lock", "requirements-bench.lock"):
        assert re.search(
            rf"^{name}(?:\[[\w,]+\])?=={re.escape(exact[1])}( |$)", (ROOT / lock).read_text(), re.MULTILINE
        )


def test_core_dependencies_have_no_torch() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert not any(name in line for line in project["dependencies"] for name in ("torch", "transformers"))


@pytest.mark.slow
def test_the_command_line_starts_without_the_heavy_libraries() -> None:
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


def test_all_public_names_exist() -> None:
    import feedmill

    assert sorted(feedmill.__all__) == sorted(set(feedmill.__all__))
    for name in feedmill.__all__:
        assert getattr(feedmill, name) is not None
    with pytest.raises(AttributeError, match="nothing_such"):
        feedmill.nothing_such  # noqa: B018


# Modules that turn bytes or text into code or into objects of any type.
READS_CODE = {"pickle", "cloudpickle", "dill", "shelve", "marshal", "joblib", "runpy", "code"}
# The parts of yaml that make plain values only.
PLAIN_YAML = {"safe_load", "safe_dump", "parse", "compose", "SafeLoader", "AliasEvent", "YAMLError"}
# With these values transformers reads local files of plain data; a model needs the third one, too.
LOCAL = {"local_files_only": "True", "trust_remote_code": "False"}
SAFE_WEIGHTS = {"use_safetensors": "True"}
# Calls that do the same, by the last part of their names.
RUNS_CODE = {
    *("eval_expr", "deserialize", "SQLContext", "sql_expr", "literal_eval", "read_pickle", "unpickle", "import_object"),
    *("broadcast_object_list", "gather_object", "all_gather_object", "scatter_object_list", "send_object_list"),
    *("system", "popen", "execfile", "from_pretrained", "load_extension", "install_extension"),
}
BUILTINS_THAT_RUN = {"eval", "exec", "compile", "__import__", "execfile"}
RUNS_BY_KEYWORD = {"allow_pickle", "trust_remote_code", "shell"}
# Modules that import by a variable name, and where the name comes from (never from a file or the network).
IMPORTERS = {
    "feedmill/__init__.py": "the table of public names",
    "feedmill/bench_commands.py": "the list of benchmarks",
    "schema/parts.py": "the declarations of families",
    "schema/source_code/grammar.py": "the table of grammars",
}
# multiprocessing pickles between a process and its own children, over pipes that no other process can open.
PIPES = {"producers/pool.py", "consumers/loader.py", "consumers/loader_workers.py"}
DATABASES = {"streams/coverage/store.py", "consumers/row_filter.py"}


def names_of(node: ast.AST) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def is_local(call: ast.Call) -> bool:
    """Whether a call of `from_pretrained` reads plain data of this machine only."""
    if names_of(call.func) != "from_pretrained":
        return False
    given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
    is_model = "Model" in ast.unparse(call.func)
    return given.items() >= (LOCAL | SAFE_WEIGHTS if is_model else LOCAL).items()


def code_readers(path: Path) -> Iterator[str]:
    """Yield the line and the name of each call in a file that could run code named by its input."""
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Attribute) and names_of(node.value) == "yaml" and node.attr not in PLAIN_YAML:
            yield f"{node.lineno}: yaml.{node.attr}"
        if isinstance(node, ast.ImportFrom) and node.module == "yaml":
            yield f"{node.lineno}: from yaml"
        if not isinstance(node, ast.Call) or is_local(node):
            continue
        name = names_of(node.func)
        is_builtin = isinstance(node.func, ast.Name) and name in BUILTINS_THAT_RUN
        # A text that is written in the call is no input.
        if (is_builtin and not all(isinstance(each, ast.Constant) for each in node.args)) or name in RUNS_CODE:
            yield f"{node.lineno}: {name}()"
        for keyword in node.keywords:
            if keyword.arg in RUNS_BY_KEYWORD and ast.unparse(keyword.value) != "False":
                yield f"{node.lineno}: {keyword.arg}="
        # torch.load, numpy.load and similar; json, tomllib and safetensors read plain data only.
        if isinstance(node.func, ast.Attribute) and name in ("load", "loads"):
            owner = ast.unparse(node.func.value)
            if owner in ("torch", "np", "numpy", "torch.hub", "pickle", "yaml", "joblib"):
                yield f"{node.lineno}: {owner}.{name}()"


@pytest.mark.slow
def test_nothing_in_the_product_reads_code_from_its_input() -> None:
    wrong = {}
    for package in PACKAGES:
        for path in sources(package):
            readers = [*code_readers(path), *sorted(imported(path) & READS_CODE)]
            if readers:
                wrong[str(path.relative_to(ROOT))] = readers
    assert wrong == {}


def test_the_search_for_code_readers_finds_them(tmp_path: Path) -> None:
    bad = tmp_path / "bad.py"
    bad.write_text(
        "eval(x)\nexec(x)\ntorch.load(x)\npl.Expr.deserialize(x)\nnp.load(x, allow_pickle=True)\n"
        "subprocess.run(x, shell=True)\nModel.from_pretrained(x)\ndist.broadcast_object_list(x)\n"
    )
    assert [reader.partition(":")[0] for reader in code_readers(bad)] == ["1", "2", "3", "4", "5", "5", "6", "7", "8"]
    bad.write_text(
        "AutoModel.from_pretrained(x, local_files_only=True, trust_remote_code=False)\n"
        "Tokenizer.from_pretrained(x, local_files_only=True)\nyaml.load(x)\nfrom yaml import load\n"
        "yaml.unsafe_load(x)\nexec('x', names)\n"
    )
    found = sorted(reader.partition(":")[0] for reader in code_readers(bad))
    assert found == ["1", "2", "3", "3", "4", "5", "6"]
    bad.write_text("import pickle\nfrom cloudpickle import loads\n")
    assert imported(bad) & READS_CODE == {"pickle", "cloudpickle"}
    bad.write_text(
        "model.eval()\njson.loads(x)\nsubprocess.run(x, shell=False)\nexec('')\nyaml.safe_load(x)\n"
        "AutoModel.from_pretrained(x, local_files_only=True, trust_remote_code=False, use_safetensors=True)\n"
        "AutoTokenizer.from_pretrained(x, local_files_only=True, trust_remote_code=False)\n"
    )
    assert list(code_readers(bad)) == []


def test_modules_are_imported_only_by_names_of_this_repository() -> None:
    users = {
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in sources(package)
        if "import_module(" in path.read_text(encoding="utf-8")
    }
    assert users == set(IMPORTERS)


@pytest.mark.slow
def test_only_pipes_to_own_children_pickle() -> None:
    users = {
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in sources(package)
        if "multiprocessing" in imported(path)
    }
    assert users == PIPES


def test_every_database_is_locked_and_cannot_read_files() -> None:
    texts = {
        str(path.relative_to(ROOT)): text
        for package in PACKAGES
        for path in sources(package)
        if "duckdb.connect(" in (text := path.read_text(encoding="utf-8"))
    }
    assert set(texts) == DATABASES
    for name, text in texts.items():
        assert text.count("duckdb.connect(") == 1, name
        assert '"enable_external_access": "false"' in text, name
        assert "SET lock_configuration = true" in text, name
