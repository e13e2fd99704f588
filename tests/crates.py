"""Real Rust crates for tests, fetched by cargo: some have near duplicates of each other's files."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

# Without dependencies, or only on each other; exact versions, so that every run has the same files.
CRATES = {
    "aho-corasick": ("1.1.3",),
    "anyhow": ("1.0.86",),
    "arrayvec": ("0.5.2", "0.7.4"),
    "base64": ("0.21.7", "0.22.1"),
    "bitflags": ("1.3.2", "2.6.0"),
    "either": ("1.13.0",),
    "itertools": ("0.12.1", "0.13.0"),
    "smallvec": ("1.13.2",),
    "semver": ("1.0.23",),
    "memchr": ("2.7.4",),
    "fnv": ("1.0.7",),
    "hex": ("0.4.3",),
}


def fetch_crates(folder: Path) -> Path:
    """Fetch the crates into `folder`/crates, one folder each, and return it.

    Raises:
        AssertionError: cargo is missing, or it could not fetch them. A test must not pass without its crates.
    """
    cargo = shutil.which("cargo")
    assert cargo is not None, "cargo is missing: install Rust, because this test reads real crates"
    (folder / "src").mkdir(parents=True)
    (folder / "src" / "lib.rs").touch()
    named = [
        f'{name}-{number} = {{ package = "{name}", version = "={version}" }}\n'
        for name, versions in CRATES.items()
        for number, version in enumerate(versions)
    ]
    package = '[package]\nname = "fetch"\nversion = "0.0.0"\nedition = "2021"\n\n[dependencies]\n'
    (folder / "Cargo.toml").write_text(package + "".join(named))
    done = subprocess.run(
        [cargo, "vendor", "--quiet", "crates"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "CARGO_TERM_COLOR": "never"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder / "crates"
