"""What killed processes left half written goes; what a living one is making stays."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

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
    made = in_making(place, "part")
    assert made == tmp_path / f".{place.name}.{os.getpid()}.part"
    assert not stale.exists()
    assert all(file.exists() for file in kept)


def test_a_folder_that_is_not_there_is_for_the_writer_to_tell(tmp_path: Path) -> None:
    assert in_making(tmp_path / "absent" / "a", "part").parent == tmp_path / "absent"
