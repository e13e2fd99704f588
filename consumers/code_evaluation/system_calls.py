"""A seccomp filter: the system calls that a sandboxed program has no use for, and an escape would need.

bubblewrap loads the filter. It closes three gaps. A program that root sandboxed could make a user namespace, and mount
a file system of any size in it. Memory that no process maps, such as that of a memory file, is under no limit. And some
kinds of sockets know no network namespace: by a vsock, a program could talk to the machine below a virtual one.

The numbers are those of the Linux kernel's tables for each kind of processor.
"""

from __future__ import annotations

import errno
import platform
import struct
from dataclasses import dataclass

# From linux/bpf_common.h, linux/filter.h and linux/seccomp.h.
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL, _ERROR = 0x7FFF0000, 0x80000000, 0x00050000
_NUMBER_OFFSET, _MACHINE_OFFSET, _FIRST_ARGUMENT_OFFSET = 0, 4, 16
# CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET: a new namespace of any kind.
_NEW_NAMESPACE = 0x7E020000
# x86-64 knows a second set of the same calls from this number on.
_X32 = 0x40000000


@dataclass(frozen=True)
class _Machine:
    audit: int
    clone: int
    socket: int
    denied: tuple[int, ...]


# The system calls from 424 on have one number everywhere: open_tree, move_mount, fsopen, fsmount, io_uring_setup,
# mount_setattr, memfd_secret.
_NEW_CALLS = (428, 429, 430, 432, 425, 442, 447)
_CLONE3 = 435
# AF_UNIX, AF_INET and AF_INET6 stay inside the network namespace.
_SOCKET_FAMILIES = (1, 2, 10)
# Others, in order: unshare, setns, mount, umount2, pivot_root, chroot, ptrace, bpf, perf_event_open, keyctl, add_key,
# request_key, userfaultfd, open_by_handle_at, kexec_load, process_vm_readv, process_vm_writev,
# memfd_create, shmget, msgget, semget.
_MACHINES = {
    "x86_64": _Machine(
        0xC000003E,
        56,
        41,
        (272, 308, 165, 166, 155, 161, 101, 321, 298, 250, 248, 249, 323, 304, 246, 310, 311, 319, 29, 68, 64),
    ),
    "aarch64": _Machine(
        0xC00000B7,
        220,
        198,
        (97, 268, 40, 39, 41, 51, 117, 280, 241, 219, 217, 218, 282, 265, 104, 270, 271, 279, 194, 186, 190),
    ),
}


def denied_calls() -> bytes | None:
    """Return the filter for this processor, as `bwrap --seccomp` reads it; None for a processor that is not known."""
    machine = _MACHINES.get(platform.machine())
    if machine is None:
        return None
    # Each instruction is (code, value, where it jumps if it holds, where if not); "" is the next instruction.
    checks = [(_EQUAL, number, "deny", "") for number in (*machine.denied, *_NEW_CALLS)]
    families = [(_EQUAL, family, "allow", "") for family in _SOCKET_FAMILIES]
    lines: list[tuple[int, int, str, str]] = [
        (_LOAD, _MACHINE_OFFSET, "", ""),
        (_EQUAL, machine.audit, "", "kill"),
        (_LOAD, _NUMBER_OFFSET, "", ""),
        (_AT_LEAST, _X32, "deny", ""),
        *checks,
        (_EQUAL, _CLONE3, "absent", ""),
        (_EQUAL, machine.clone, "", "not clone"),
        (_LOAD, _FIRST_ARGUMENT_OFFSET, "", ""),
        (_ANY_BIT, _NEW_NAMESPACE, "deny", "allow"),
        (_EQUAL, machine.socket, "", "allow"),
        (_LOAD, _FIRST_ARGUMENT_OFFSET, "", ""),
        *families,
        (_RETURN, _ERROR | errno.EPERM, "", ""),
        # The C library then uses clone, whose flags can be looked at.
        (_RETURN, _ERROR | errno.ENOSYS, "", ""),
        (_RETURN, _KILL, "", ""),
        (_RETURN, _ALLOW, "", ""),
    ]
    end = len(lines)
    places = {"deny": end - 4, "absent": end - 3, "kill": end - 2, "allow": end - 1}
    places["not clone"] = next(place for place, line in enumerate(lines) if line[1] == machine.socket and line[3])
    return b"".join(
        struct.pack("=HBBI", code, *(places[target] - place - 1 if target else 0 for target in (yes, no)), value)
        for place, (code, value, yes, no) in enumerate(lines)
    )
