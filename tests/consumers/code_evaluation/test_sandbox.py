"""The sandbox: what a program in it sees, what it cannot do, and the limits that end it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from consumers.code_evaluation import sandbox as sandboxes
from consumers.code_evaluation.limited_process import InterruptedRunError, LimitedRun
from consumers.code_evaluation.limits import MIB
from consumers.code_evaluation.sandbox import PYTHON, Call, NoSandbox, make_sandbox
from schema.errors import ConfigError
from tests.consumers.code_evaluation.judges import SHORT_TESTING, sandbox

pytestmark = pytest.mark.slow


def shell(script: str, **limits: float) -> LimitedRun:
    return sandbox().run(Call(["/bin/sh", "-c", script], replace(SHORT_TESTING, **limits), {"own": b"mine\n"}))


def python(program: str, **limits: float) -> LimitedRun:
    command = [sandbox().tool(PYTHON), "-I", "-c", program]
    return sandbox().run(Call(command, replace(SHORT_TESTING, **limits)))


def test_a_program_sees_its_own_files_and_nothing_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEEDMILL_TOKEN", "a-secret-of-this-process")
    seen = shell("cat own; uname -n; ls -A / /tmp /etc; env; cat /proc/*/environ; ls /home /root; cat /etc/passwd")
    words = seen.stdout.decode().split()
    assert "mine" in words
    assert not {"home", "root", "etc/passwd", "passwd", "work", "var", "mnt"} & set(words)
    assert set(words) & {"usr", "tools", "tmp"} == {"usr", "tools", "tmp"}
    assert b"secret" not in seen.stdout
    assert b"FEEDMILL" not in seen.stdout
    assert "sandbox" in words
    assert b"/etc/passwd: No such file" in seen.stderr


def test_a_program_has_no_rights_and_one_small_folder() -> None:
    said = shell(
        "for place in / /usr/bin /tools/rust /dev /dev/shm /etc; do echo x >$place/file && echo wrote $place; done; "
        "echo x >/tmp/file && echo wrote /tmp; dd if=/dev/zero of=/tmp/a bs=1M count=40; dd if=/dev/zero of=/tmp/b "
        "bs=1M count=40; id -u; grep -E 'CapEff|NoNewPrivs' /proc/self/status; unshare -Ur id; mount -t tmpfs x /tmp"
    )
    lines = said.stdout.decode().splitlines()
    assert lines[0] == "wrote /tmp"
    assert lines[1] not in ("0", str(os.getuid()))
    assert lines[2].endswith("0000000000000000")
    assert lines[3].endswith("1")
    assert len(lines) == 4
    assert b"No space left on device" in said.stderr


def test_a_program_reaches_no_network_no_other_process_and_no_unmapped_memory() -> None:
    said = python(
        "import os, socket, ctypes\n"
        "def refused(call, *arguments):\n"
        "    try: call(*arguments)\n"
        "    except OSError: return True\n"
        "print([refused(socket.create_connection, ('1.1.1.1', 80), 1), refused(socket.socket, 40), "
        "refused(os.memfd_create, 'a'), refused(os.kill, 1, 0) or os.getpid() < 10, "
        "ctypes.CDLL(None).shmget(0, 1, 0o1600) == -1, len([each for each in os.listdir('/proc') if each.isdigit()])])"
    )
    assert said.stdout.decode().strip() == "[True, True, True, True, True, 2]", said.stderr


@pytest.mark.parametrize(
    ("script", "limit"),
    [
        ("sleep 60", "time_limit"),
        ("exec >&- 2>&-; sleep 60", "time_limit"),
        ("sleep 60 & exit 0", None),
        ("yes", "output_limit"),
        ("yes >&2", "output_limit"),
        ("kill -9 0", "killed"),
        ("cat", None),
    ],
)
def test_a_program_ends_at_its_limit(script: str, limit: str | None) -> None:
    began = time.monotonic()
    ended = shell(script, wall_s=1.0)
    assert ended.limit == limit
    assert time.monotonic() - began < 8
    assert len(ended.stdout) <= MIB + 1


def test_memory_is_limited_for_one_process_and_for_all_together() -> None:
    alone = python("bytearray(2 << 30)")
    assert (alone.limit, alone.status) == ("memory_limit", 1)
    # Each of them is below its own limit.
    program = (
        "import os, time\nfor _ in range(8): os.fork() or time.sleep(bytearray(80 << 20).find(b'x') + 9)\nos.wait()"
    )
    together = python(program, memory_bytes=300 * MIB)
    assert together.limit == "memory_limit"


def test_a_fork_bomb_makes_only_so_many_processes_and_is_gone_afterwards() -> None:
    program = (
        "import os, time\n"
        "made = 0\n"
        "try:\n"
        "    while True:\n"
        "        if os.fork() == 0: time.sleep(60)\n"
        "        made += 1\n"
        "except OSError: print(made, flush=True)\n"
        "time.sleep(60)"
    )
    bombed = python(program, wall_s=1.5, processes=20)
    assert bombed.limit == "time_limit"
    assert int(bombed.stdout) < 20
    left = [each for each in psutil.process_iter(["cmdline"]) if program in (each.info["cmdline"] or [])]
    # The last of them may be ending at this moment.
    assert psutil.wait_procs(left, timeout=10)[1] == []


def test_a_stop_ends_a_running_program() -> None:
    stopping = threading.Event()
    threading.Timer(0.3, stopping.set).start()
    with pytest.raises(InterruptedRunError):
        make_sandbox({}, stopping).run(Call(["/bin/sleep", "60"], SHORT_TESTING))


def test_programs_end_with_a_killed_parent() -> None:
    program = (
        "import threading\n"
        "from consumers.code_evaluation.limits import TESTING\n"
        "from consumers.code_evaluation.sandbox import Call, make_sandbox\n"
        "make_sandbox({}, threading.Event()).run(Call(['/bin/sleep', '86399'], TESTING))\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], cwd=Path(__file__).parents[3])
    deadline = time.monotonic() + 60

    def sleepers() -> list[psutil.Process]:
        return [each for each in psutil.process_iter(["cmdline"]) if each.info["cmdline"] == ["/bin/sleep", "86399"]]

    try:
        while not sleepers():
            assert time.monotonic() < deadline
            assert parent.poll() is None
            time.sleep(0.05)
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    while sleepers():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_without_bwrap_or_with_one_that_fails_there_is_one_line_that_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for found, words in (([], "bwrap is missing"), ([Path("/bin/false")], "/bin/false fails")):
        monkeypatch.setattr(sandboxes, "_find_bwraps", lambda found=found: found)
        with pytest.raises(ConfigError, match=words) as caught:
            make_sandbox({}, threading.Event())
        assert "--unsafe-no-sandbox" in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_bwrap_that_is_too_old_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    (*_, works) = sandboxes._find_bwraps()
    monkeypatch.setattr(sandboxes, "_find_bwraps", lambda: [Path("/bin/false"), works])
    assert make_sandbox({}, threading.Event()).run(Call(["/bin/true"], SHORT_TESTING)).status == 0


def test_a_tool_that_the_sandboxs_user_cannot_read_is_an_error(tmp_path: Path) -> None:
    tool = tmp_path / "tool"
    tool.touch(mode=0o000)
    with pytest.raises(ConfigError, match="/tools/tool cannot be read"):
        make_sandbox({"tool": tool}, threading.Event())


def test_a_program_has_only_its_input_and_its_outputs_open() -> None:
    assert shell("ls /proc/self/fd").stdout.split() == [b"0", b"1", b"2", b"3"]


@pytest.mark.parametrize("status", [0, 1, 125, 127])
def test_a_status_of_a_program_is_no_failure_of_the_sandbox(status: int) -> None:
    assert shell(f"exit {status}").status == status


def test_without_a_sandbox_the_limits_still_hold() -> None:
    unsafe = make_sandbox({}, threading.Event(), unsafe=True)
    assert isinstance(unsafe, NoSandbox)
    limits = replace(SHORT_TESTING, wall_s=1.0)
    assert unsafe.run(Call(["/bin/sh", "-c", "cat own; exit 3"], limits, {"own": b"mine"})).stdout == b"mine"
    assert unsafe.run(Call(["/bin/sleep", "60"], limits)).limit == "time_limit"
    assert unsafe.run(Call(["/bin/sh", "-c", "yes"], limits)).limit == "output_limit"
