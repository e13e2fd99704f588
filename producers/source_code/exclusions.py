"""Paths that a run leaves out: third-party code, lock files, tests, benchmarks and examples, each on or off.

Only the part of a path below the given folder counts: `feedmill produce code repository/tests` reads tests. Which
folders and files are tests, the roles say (`schema.source_code.roles`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from schema.source_code.roles import role_of

_VENDORED = (
    *("vendor", "vendored", "_vendor", "_vendored", "third_party", "third-party", "thirdparty", "Godeps"),
    *("bower_components", "site-packages", "dist-packages", ".venv", "venv", ".tox", ".nox", ".eggs"),
)
_BENCHES = ("benches", "bench", "benchmarks", "benchmark")
_EXAMPLES = ("examples", "example")
_LOCK_FILES = (
    *("package-lock.json", "npm-shrinkwrap.json", "pnpm-lock.yaml", "packages.lock.json", "go.sum", "bun.lockb"),
    "gradle.lockfile",
)
_BENCH_FILE = re.compile(r"(?:bench_.*\.py|.*_bench\.(?:py|rs|go))")


@dataclass(frozen=True)
class Exclusions:
    """Which paths are left out; each attribute is on or off, and a folder is left out with all that is in it.

    Attributes:
        vendor: folders of third-party code (vendor, third_party, site-packages, ...) and virtual environments.
        node_modules: folders of that name.
        lock_files: lock files of package managers.
        tests: folders and files of tests, and `#[cfg(test)]` items of Rust files.
        benches: folders and files of benchmarks.
        examples: folders of examples.
    """

    vendor: bool = True
    node_modules: bool = True
    lock_files: bool = True
    tests: bool = False
    benches: bool = False
    examples: bool = False

    def of_path(self, path: str) -> str | None:
        """Return the reason why a path (with "/") is left out, for a folder in it or for its name, or None."""
        *folders, name = path.split("/")
        return next(filter(None, map(self.of_folder, folders)), None) or self.of_file(name)

    def of_folder(self, name: str) -> str | None:
        """Return the reason why a folder of that name is left out, or None."""
        if self.vendor and name in _VENDORED:
            return "vendored"
        if self.node_modules and name == "node_modules":
            return "node_modules"
        if self.tests and role_of(f"{name}/file", "python") == "tests":
            return "test"
        if self.benches and name in _BENCHES:
            return "bench"
        if self.examples and name in _EXAMPLES:
            return "example"
        return None

    def of_file(self, name: str) -> str | None:
        """Return the reason why a file of that name is left out, or None."""
        if self.lock_files and (name.endswith(".lock") or name in _LOCK_FILES):
            return "lock_file"
        if self.tests and role_of(name, "python") == "tests":
            return "test"
        if self.benches and _BENCH_FILE.fullmatch(name):
            return "bench"
        return None
