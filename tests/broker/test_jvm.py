"""The server's process is recognised by its command line."""

from __future__ import annotations

import sys
from pathlib import Path

from broker import jvm
from broker.kraft import KraftLayout


def test_child_just_started_is_found_before_its_command_line_can_be_read(tmp_path: Path) -> None:
    layout = KraftLayout(tmp_path)
    layout.make()
    arguments = [sys.executable, "-c", "import time; time.sleep(60)", jvm.SERVER_CLASS, str(layout.properties)]
    for _ in range(20):
        pid = jvm.spawn(layout, arguments)
        process = jvm.find(layout, pid)
        assert process is not None
        jvm.end(process, graceful_s=10)
        assert jvm.find(layout, pid) is None


def test_process_of_another_folder_is_not_found(tmp_path: Path) -> None:
    ours, theirs = KraftLayout(tmp_path / "a"), KraftLayout(tmp_path / "b")
    theirs.make()
    sleeper = [sys.executable, "-c", "import time; time.sleep(60)", jvm.SERVER_CLASS, str(theirs.properties)]
    pid = jvm.spawn(theirs, sleeper)
    assert jvm.find(ours, pid) is None
    process = jvm.find(theirs, pid)
    assert process is not None
    jvm.end(process, graceful_s=10)
