"""The owner of the coverage store: its lock, and the address of its service.

One process at a time holds the lock beside the store, and only that process reads and writes the store. A service that
holds the lock writes its address to `service.json`. The system frees the lock of a killed owner. So a `service.json`
whose process is gone is stale and is ignored.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

from schema.errors import CoverageError, CoverageOwnedError
from schema.settings import Settings
from schema.stale_files import in_making

LOCK_FILE = "owner.lock"
SERVICE_FILE = "service.json"
# A command owns the store while it folds and prints; other processes wait this long for it.
COMMAND_LIMIT_S = 30.0
# Start times are compared with this tolerance, because the clock behind them has a resolution of 10 ms.
_START_TOLERANCE_S = 1.0
# A message shows this many characters of a command line.
_COMMAND_CHARACTERS = 100


@dataclass(frozen=True)
class ServiceAddress:
    """The content of `service.json`: process and URL; the start time distinguishes later processes of the same id."""

    pid: int
    started_s: float
    url: str
    namespace: str


def coverage_folder(settings: Settings) -> Path:
    """Return the folder of the store, the lock and `service.json`."""
    return settings.data_dir.resolve() / "coverage"


@contextmanager
def ownership(folder: Path, wait_s: float = 0.0) -> Iterator[None]:
    """Hold the store's lock, after waiting up to `wait_s` for another process to release it.

    Raises:
        CoverageOwnedError: another process holds it.
        CoverageError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK_FILE, timeout=wait_s)
        lock.acquire()
    except Timeout:
        raise CoverageOwnedError(f"the coverage store is in use by {_holder(folder)}: stop it, or ask it") from None
    except OSError as error:
        raise CoverageError(f"{folder} cannot be written ({error}): correct FEEDMILL_DATA_DIR") from error
    try:
        yield
    finally:
        lock.release()


def announce(folder: Path, url: str, namespace: str) -> None:
    """Write `url` of this process, which holds the lock, to `service.json`."""
    address = ServiceAddress(os.getpid(), psutil.Process().create_time(), url, namespace)
    making = in_making(folder / SERVICE_FILE, "part")
    try:
        making.write_text(json.dumps(asdict(address)) + "\n")
        making.replace(folder / SERVICE_FILE)
    finally:
        making.unlink(missing_ok=True)


def withdraw(folder: Path) -> None:
    """Remove `service.json`; only the process that holds the lock may call this."""
    (folder / SERVICE_FILE).unlink(missing_ok=True)


def service_address(folder: Path) -> ServiceAddress | None:
    """Return the address of the running service for `folder`; None without a service, or if the file is stale."""
    try:
        address = ServiceAddress(**json.loads((folder / SERVICE_FILE).read_text()))
        alive = abs(psutil.Process(address.pid).create_time() - address.started_s) < _START_TOLERANCE_S
    except (OSError, ValueError, TypeError, psutil.Error):
        return None
    return address if alive else None


def process_name(pid: int) -> str:
    """Return a process's id and the beginning of its command line, for messages; only the id if it is gone."""
    try:
        words = psutil.Process(pid).cmdline()
    except psutil.Error:
        words = []
    command = " ".join(words)[:_COMMAND_CHARACTERS]
    return f"{pid} ({command})" if command else str(pid)


def _lock_holder(file: Path) -> int | None:
    """Return the process that holds the lock on `file`; None if the system does not show it (only Linux does)."""
    try:
        inode = file.stat().st_ino
        locks = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
        pids = [words[4] for words in locks if words[1] == "FLOCK" and words[5].rpartition(":")[2] == str(inode)]
    except (OSError, IndexError):
        return None
    return int(pids[0]) if pids and pids[0].isdecimal() and int(pids[0]) > 0 else None


def _holder(folder: Path) -> str:
    address = service_address(folder)
    if address is None:
        pid = _lock_holder(folder / LOCK_FILE)
        return "another command" if pid is None else f"process {process_name(pid)}"
    return f"the coverage service of process {address.pid} at {address.url}"
