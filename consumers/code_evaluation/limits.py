"""Limits on a process that runs or compiles untrusted code."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1024 * 1024


@dataclass(frozen=True)
class ProcessLimits:
    """What one call of the sandbox may use.

    Attributes:
        wall_s: seconds until it is stopped; each of its processes may use twice as many seconds of CPU time.
        memory_bytes: address space of a process, and resident memory of all of them together.
        processes: processes and threads at once.
        output_bytes: bytes of standard output and of standard error, each.
        disk_bytes: size of the only folder that it may write, which is in memory, and of a file.
    """

    wall_s: float
    memory_bytes: int
    processes: int
    output_bytes: int
    disk_bytes: int


# No untrusted code runs yet. A linker starts a thread for each core.
COMPILING = ProcessLimits(
    wall_s=30.0, memory_bytes=2048 * MIB, processes=512, output_bytes=16 * MIB, disk_bytes=256 * MIB
)
TESTING = ProcessLimits(wall_s=15.0, memory_bytes=1024 * MIB, processes=256, output_bytes=MIB, disk_bytes=64 * MIB)
