"""The Rust toolchain on this machine."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from schema.errors import ConfigError

EDITION = "2021"
_ANSWER_WITHIN_S = 60.0
_ADVICE = "install Rust with clippy (`rustup component add clippy`)"


@dataclass(frozen=True)
class RustToolchain:
    """A Rust toolchain.

    Attributes:
        folder: the folder that holds `bin/clippy-driver` and `lib`.
        target: what it compiles for, e.g. `x86_64-unknown-linux-gnu`.
        version: of the compiler, e.g. `1.95.0`.
    """

    folder: Path
    target: str
    version: str


def find_rust() -> RustToolchain:
    """Return the toolchain of the `rustc` on PATH.

    Raises:
        ConfigError: rustc, cargo or clippy-driver is missing, or rustc fails.
    """
    rustc = shutil.which("rustc")
    if rustc is None or shutil.which("cargo") is None:
        raise ConfigError(f"rustc or cargo is missing, and code samples in Rust need both: {_ADVICE}")
    folder = Path(_said(rustc, "--print", "sysroot").strip())
    if not (folder / "bin" / "clippy-driver").is_file():
        raise ConfigError(f"{folder} has no clippy-driver: {_ADVICE}")
    facts = dict(line.split(": ", 1) for line in _said(rustc, "-vV").splitlines() if ": " in line)
    return RustToolchain(folder, facts["host"], facts["release"])


def _said(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_ANSWER_WITHIN_S, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        said = str(getattr(error, "stderr", "") or error).strip().partition("\n")[0]
        raise ConfigError(f"{command[0]} fails ({said}): {_ADVICE}") from error
    return done.stdout
