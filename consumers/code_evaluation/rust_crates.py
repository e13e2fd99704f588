"""Crates for code samples in Rust: one cargo project that has them as dependencies, built once and kept.

cargo fetches and builds them outside the sandbox, because they are chosen by the user and not by a sample. Samples then
link the built libraries, without cargo. The folder's name is a hash of the crates and the compiler, so a new compiler
builds them again.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from consumers.code_evaluation.rust_toolchain import EDITION, RustToolchain
from schema.errors import EvaluationError, UsageError

# The crates that the solutions of HumanEval-X import, at the versions of its authors.
DEFAULT_CRATES = {"rand": "0.4", "regex": "1", "md5": "0.7.0"}
_NAME = re.compile(r"([A-Za-z][A-Za-z0-9_-]{0,63})(?:=([0-9][0-9A-Za-z.+-]{0,63}))?")
_BUILT = "built.json"
_BUILD_LIMIT_S = 900.0


@dataclass(frozen=True)
class BuiltCrates:
    """Crates that are ready to be linked.

    Attributes:
        folder: the folder of their libraries and of those that they need.
        files: the name of each crate's library in it, by the name that source code uses.
        versions: the exact version of each crate.
    """

    folder: Path
    files: Mapping[str, str]
    versions: Mapping[str, str]


def named_crates(names: list[str]) -> dict[str, str]:
    """Return crates by name, each with a version, of `NAME` or `NAME=VERSION`.

    Raises:
        UsageError: a name is malformed.

    >>> named_crates(["rand=0.8", "md5"])
    {'rand': '0.8', 'md5': '0.7.0'}
    """
    crates = {}
    for each in names:
        match = _NAME.fullmatch(each)
        if match is None:
            raise UsageError(f"--crate {each!r} is no crate: give NAME or NAME=VERSION, e.g. rand=0.8")
        crates[match[1]] = match[2] or DEFAULT_CRATES.get(match[1], "*")
    return crates


def build_crates(cache: Path, crates: Mapping[str, str], toolchain: RustToolchain) -> BuiltCrates:
    """Return the built crates, after building them if they are not in the folder `cache`.

    Raises:
        EvaluationError: cargo cannot fetch or build them.
    """
    wanted = [f"{name}={version}" for name, version in sorted(crates.items())]
    key = hashlib.sha256("\n".join([*wanted, EDITION, toolchain.version, toolchain.target]).encode()).hexdigest()[:16]
    folder = cache / key
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock", timeout=_BUILD_LIMIT_S):
            built = folder / _BUILT
            if not built.exists():
                facts = json.dumps(_build(folder, crates))
                making = folder / f"{_BUILT}.part"
                making.write_text(facts)
                making.replace(built)
            known = json.loads(built.read_text())
    except (OSError, ValueError) as error:
        raise EvaluationError(
            f"{folder} cannot be used ({error}): remove it, or set cache_dir to another folder"
        ) from error
    return BuiltCrates(folder / "target" / "debug" / "deps", known["files"], known["versions"])


def _build(folder: Path, crates: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Build the project and return the files and versions of its direct dependencies."""
    (folder / "src").mkdir(exist_ok=True)
    (folder / "src" / "lib.rs").touch()
    lines = "".join(f'{name} = "{version}"\n' for name, version in sorted(crates.items()))
    (folder / "Cargo.toml").write_text(
        f'[package]\nname = "samples"\nversion = "0.0.0"\nedition = "{EDITION}"\n\n'
        f"[dependencies]\n{lines}\n[workspace]\n"
    )
    environment = {**os.environ, "CARGO_TARGET_DIR": str(folder / "target"), "CARGO_TERM_COLOR": "never"}
    advice = "connect to the registry once, or leave them out with --no-crates"
    try:
        done = subprocess.run(
            ["cargo", "build", "--message-format=json", "--quiet"],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=_BUILD_LIMIT_S,
            check=False,
            # The sandbox's user reads what is built.
            umask=0o022,
        )
    except subprocess.TimeoutExpired as error:
        raise EvaluationError(f"cargo did not build {', '.join(crates)} in {_BUILD_LIMIT_S:.0f} s: {advice}") from error
    if done.returncode:
        said = next((line for line in done.stderr.splitlines() if line.startswith("error")), "no reason given")
        raise EvaluationError(f"cargo cannot build {', '.join(crates)} ({said[:200]}): {advice}")
    files, versions = {}, {}
    for line in done.stdout.splitlines():
        message = json.loads(line)
        if message.get("reason") != "compiler-artifact":
            continue
        name, version = re.split("[#@]", message["package_id"].rpartition("/")[2])[-2:]
        # cargo writes `...#name@version`, and `.../name#version` if the folder has the crate's name.
        if name in crates and {"lib", "proc-macro", "rlib"} & set(message["target"]["kind"]):
            libraries = [Path(file).name for file in message["filenames"] if not file.endswith(".rmeta")]
            files[message["target"]["name"].replace("-", "_")] = libraries[0]
            versions[name] = version
    if missing := set(crates) - set(versions):
        raise EvaluationError(f"cargo built no library for {', '.join(sorted(missing))}: leave them out of --crate")
    return {"files": files, "versions": versions}
