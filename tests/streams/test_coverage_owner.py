"""The error names the process that holds the coverage store, for both of the store's locks."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from schema.errors import CoverageOwnedError
from schema.registry import FAMILIES
from streams.coverage.owner import LOCK_FILE, ownership
from streams.coverage.store import STORE_FILE, CoverageStore


@contextmanager
def holding(code: str) -> Iterator[int]:
    """Run `code` in another process until the context ends; its process id."""
    script = f"{code}; print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield process.pid
        finally:
            process.kill()


def test_a_database_that_another_program_has_open_names_it_and_advises_no_rebuild(tmp_path: Path) -> None:
    CoverageStore(tmp_path, FAMILIES).close()
    with holding(f"import duckdb; held = duckdb.connect({str(tmp_path / STORE_FILE)!r})") as pid:
        with pytest.raises(CoverageOwnedError, match=rf"is open in process {pid} \(.*python") as caught:
            CoverageStore(tmp_path, FAMILIES)
        assert "rebuild" not in str(caught.value)
        assert "delete" not in str(caught.value)


def test_a_command_that_holds_the_store_is_named(tmp_path: Path) -> None:
    code = f"import filelock; held = filelock.FileLock({str(tmp_path / LOCK_FILE)!r}); held.acquire()"
    with (
        holding(code) as pid,
        pytest.raises(CoverageOwnedError, match=rf"in use by process {pid} \("),
        ownership(tmp_path),
    ):
        pass
