"""Check and find free ports; another process may take a port right after the answer."""

from __future__ import annotations

import socket


def is_free(host: str, port: int) -> bool:
    """Return whether a server could listen on `host:port` now."""
    with socket.socket() as candidate:
        # Servers bind with this option, so a port in TIME_WAIT counts as free.
        candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            candidate.bind((host, port))
        except OSError:
            return False
    return True


def free_port(host: str) -> int:
    """Return a free port of `host`."""
    with socket.socket() as candidate:
        candidate.bind((host, 0))
        return int(candidate.getsockname()[1])
