"""Unfinished files of dead processes are removed; those of living processes are kept."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from schema.errors import UsageError
from schema.stale_files import in_making


def test_only_files_of_dead_processes_and_of_that_name_are_removed(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    place = tmp_path / "rows.[x].jsonl"
    stale = tmp_path / f".{place.name}.{dead.pid}.part"
    kept = [
        tmp_path / f".{place.name}.{os.getppid()}.part",
        tmp_path / f".other.{dead.pid}.part",
        tmp_path / f".{place.name}.{dead.pid}.partial",
        tmp_path / f".{place.name}.old.part",
    ]
    for file in (stale, *kept):
        file.touch()
    unfinished = in_making(place, "part")
    assert unfinished == tmp_path / f".{place.name}.{os.getpid()}.part"
    assert not stale.exists()
    assert all(file.exists() for file in kept)


@pytest.mark.parametrize("kind", ["pipe", "folder", "stream"])
def test_a_name_that_is_no_ordinary_file_is_refused(tmp_path: Path, kind: str) -> None:
    place = tmp_path / "out"
    if kind == "pipe":
        os.mkfifo(place)
    elif kind == "folder":
        place.mkdir()
    else:
        # As /dev/stdout, here of a process whose output goes to a file.
        (tmp_path / "file").touch()
        with (tmp_path / "file").open() as stream:
            place.symlink_to(f"/proc/{os.getpid()}/fd/{stream.fileno()}")
            with pytest.raises(UsageError, match="not an ordinary file"):
                in_making(place, "part")
        return
    with pytest.raises(UsageError, match="not an ordinary file"):
        in_making(place, "part")


def test_a_missing_folder_is_no_error_here(tmp_path: Path) -> None:
    assert in_making(tmp_path / "absent" / "a", "part").parent == tmp_path / "absent"
