"""The run's folder: every checkpoint in it is complete, even if its writer was killed at any moment."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from consumers.training.loss_log import LossLog, read_losses
from consumers.training.run_folder import RunFolder, find_checkpoint, newest_first
from schema.errors import CheckpointError

# Writes step 30 and kills itself at its n-th operation on the file system.
WRITER = """
import os, signal, sys
from pathlib import Path
from consumers.training.run_folder import RunFolder
left, armed = int(sys.argv[2]), False
def count(event, arguments):
    global left
    if armed and event in ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir"):
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(count)
folder = RunFolder(Path(sys.argv[1]), keep=2)
armed = True
with folder.locked(), folder.writing(30) as making:
    for name in "abc":
        (making / name).write_text("30" * 10_000)
"""


def write(folder: RunFolder, step: int) -> None:
    with folder.writing(step) as making:
        for name in "abc":
            (making / name).write_text(str(step) * 10_000)


def steps(out: Path) -> list[int]:
    return [int(path.name.removeprefix("step-")) for path in newest_first(out)]


@pytest.mark.slow
def test_a_writer_killed_at_any_moment_leaves_complete_checkpoints(tmp_path: Path) -> None:
    moments = 0
    while True:
        out = tmp_path / str(moments)
        folder = RunFolder(out, keep=2)
        with folder.locked():
            write(folder, 10)
            write(folder, 20)
        writer = subprocess.run([sys.executable, "-c", WRITER, out, str(moments + 1)], check=False, timeout=60)
        present = steps(out)
        assert present[:2] in ([20, 10], [30, 20])
        for step in present:
            assert [(folder.place(step) / name).read_text() for name in "abc"] == [str(step) * 10_000] * 3
        with folder.locked():
            assert [path.name for path in out.iterdir() if path.name.startswith(".")] == [".lock"]
            write(folder, 40)
        assert steps(out)[0] == 40
        if writer.returncode == 0:
            break
        assert writer.returncode == -signal.SIGKILL
        moments += 1
    assert present == [30, 20]
    # Lock, folder, three files, a flush of each, a rename, a flush, a rename, and the removal of step 10.
    assert moments >= 12


def test_a_full_disk_leaves_the_earlier_checkpoint_and_no_part(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run", keep=3)
    with folder.locked():
        write(folder, 1)
        with (
            pytest.raises(CheckpointError, match=r"step 2 cannot be written .*No space left on device.*make room"),
            folder.writing(2) as making,
        ):
            (making / "a").write_text("")
            raise OSError(28, "No space left on device")
        assert steps(folder.out) == [1]
        assert not list(folder.out.glob(".step-*"))


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run", keep=3)
    with folder.locked():
        for step in (5, 90, 100, 1000, 123_456_789):
            write(folder, step)
            assert steps(folder.out)[0] == step
        assert steps(folder.out) == [123_456_789, 1000, 100]
        folder.clear()
        assert steps(folder.out) == []


def test_a_folder_that_another_process_trains_in_is_refused(tmp_path: Path) -> None:
    with (
        RunFolder(tmp_path, keep=1).locked(),
        pytest.raises(CheckpointError, match="another process trains in"),
        RunFolder(tmp_path, keep=1).locked(),
    ):
        pass


def test_a_path_that_is_not_a_folder_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="choose another --out"), RunFolder(tmp_path / "file", keep=1).locked():
        pass


def test_the_newest_checkpoint_is_found_in_a_run_or_given_as_a_path(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run", keep=3)
    with folder.locked():
        for step in (9, 10):
            with folder.writing(step) as making:
                (making / "config.json").write_text("{}")
    # A finished run also has its model at the top.
    (folder.out / "config.json").write_text("{}")
    assert find_checkpoint(folder.out) == folder.place(10)
    assert find_checkpoint(folder.place(9)) == folder.place(9)
    for nothing in (tmp_path, tmp_path / "absent"):
        with pytest.raises(CheckpointError, match="holds no checkpoint"):
            find_checkpoint(nothing)


def test_the_losses_are_cut_back_to_the_checkpoint(tmp_path: Path) -> None:
    log = LossLog(tmp_path, 0)
    for step in range(1, 6):
        log.add(step, step / 3, learning_rate=0.1)
    log.close()
    # The last line was cut off by a kill.
    with (tmp_path / "losses.jsonl").open("a") as stream:
        stream.write('{"step": 6, "lo')
    log = LossLog(tmp_path, 3)
    assert log.losses == [1 / 3, 2 / 3, 3 / 3]
    log.add(4, 0.25)
    log.close()
    assert [(line["step"], line["loss"]) for line in read_losses(tmp_path)] == [
        (1, 1 / 3),
        (2, 2 / 3),
        (3, 3 / 3),
        (4, 0.25),
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["losses.jsonl"]
