"""Documents are parsed in a child process, and one that crashes the parser stops no other."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import polars as pl
import psutil
import pytest

from schema.source_code import isolated_marks as module
from schema.source_code.isolated_marks import isolated_marks
from schema.source_code.scores import scored
from schema.source_code.syntax_marks import NO_MARKS, UNPARSABLE, marks_of
from tests.source_code import valid_rows

pytestmark = pytest.mark.slow

GOOD = [
    (b"def f(x: int):\n    return x\n", "python"),
    (b"fn f() -> u8 { 1 }\n", "rust"),
    (b"", "c"),
    (b"x = = 1", "python"),
]
CRASH = b"xxxxxxxxxxxxx=>" * 4_000


def test_marks_are_those_of_the_same_process() -> None:
    documents = [*GOOD, *((text.encode(), "python") for text in valid_rows(30)["text"])]
    assert isolated_marks(documents) == [marks_of(*document) for document in documents]
    assert isolated_marks([(b"a", None), (b"a", "markdown")]) == [NO_MARKS, NO_MARKS]
    assert isolated_marks([]) == []


@pytest.mark.parametrize("language", ["c", "java"])
def test_a_document_that_crashes_the_parser_stops_no_other(language: str) -> None:
    found = isolated_marks([*GOOD, (CRASH, language), *GOOD])
    expected = [marks_of(*document) for document in GOOD]
    assert found == [*expected, UNPARSABLE, *expected]


def test_a_frame_with_a_document_that_crashes_the_parser_is_scored() -> None:
    rows = pl.DataFrame({"text": ["int x;\n", CRASH.decode()], "language": "c", "path": "x.c", "kind": "snapshot"})
    assert scored(rows)["parses"].to_list() == [True, False]


def test_a_child_that_was_killed_once_is_started_again() -> None:
    isolated_marks(GOOD)
    before = module._child()._process.pid
    os.kill(before, signal.SIGKILL)
    assert isolated_marks(GOOD) == [marks_of(*document) for document in GOOD]
    assert module._child()._process.pid != before


def test_a_child_that_is_killed_each_time_is_no_fault_of_the_document(monkeypatch: pytest.MonkeyPatch) -> None:
    started = module._Child

    def killed() -> module._Child:
        child = started()
        child._process.kill()
        child._process.wait()
        return child

    isolated_marks(GOOD)
    module._child().close()
    monkeypatch.setattr(module, "_Child", killed)
    with pytest.raises(MemoryError, match="free some memory"):
        isolated_marks(GOOD)


@pytest.mark.parametrize("source", [GOOD[0][0], b"x = 1\n" * 30_000], ids=["waits for an answer", "fills the pipe"])
def test_a_child_that_is_stopped_is_replaced(source: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LIMIT_WAIT_S", 2.0)
    expected = isolated_marks([(source, "python")])
    assert module._own is not None
    stopped = module._own[1]._process
    stopped.send_signal(signal.SIGSTOP)
    monkeypatch.setattr(module, "_END_WAIT_S", 0.2)
    assert isolated_marks([(source, "python")]) == expected
    assert stopped.poll() == -signal.SIGKILL


def test_signals_for_the_parent_do_not_end_the_child() -> None:
    isolated_marks(GOOD)
    pid = module._child()._process.pid
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(pid, number)
    isolated_marks(GOOD)
    assert module._child()._process.pid == pid


def test_the_child_ends_with_its_parent() -> None:
    program = (
        "import os, signal\n"
        "from schema.source_code import isolated_marks as module\n"
        "module.isolated_marks([(b'x = 1', 'python')])\n"
        "print(module._child()._process.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, timeout=60)
    assert done.returncode == -signal.SIGKILL
    deadline = time.monotonic() + 30
    while psutil.pid_exists(int(done.stdout)):
        assert time.monotonic() < deadline
        time.sleep(0.05)
