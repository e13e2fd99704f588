"""Receive from Kafka in pieces of 64 KiB instead of 4 KiB.

kafka-python asks a socket for 4,096 bytes at a time, so a fetched megabyte takes 256 system calls. Each call releases
and takes the interpreter's lock. `install` replaces one method of the plain transport. The TLS transport is not
changed, because a TLS record is at most 16 KiB.

The method is private to kafka-python, so the client's version is pinned.
"""

from __future__ import annotations

import logging
from typing import Any

from kafka.errors import KafkaConnectionError
from kafka.net.transport import KafkaTCPTransport

_log = logging.getLogger("feedmill.broker")

# Below 128 KiB, because malloc asks the system for new memory for each larger piece.
PIECE_BYTES = 64 * 1024


def install() -> None:
    """Make every plain connection of this process receive in large pieces; calling it again changes nothing."""
    KafkaTCPTransport._sock_recv = _receive


def _receive(transport: Any) -> tuple[bytes, KafkaConnectionError | None]:
    """Return the bytes that a transport's non-blocking socket has now, and the error if its connection has ended."""
    pieces: list[bytes] = []
    error = None
    while True:
        try:
            piece = transport._sock.recv(PIECE_BYTES)
        except (BlockingIOError, InterruptedError):
            break
        # AttributeError: the transport was closed meanwhile and has no socket.
        except (OSError, AttributeError) as cause:
            _log.debug("%s: receiving failed: %s", transport, cause)
            error = KafkaConnectionError(cause)
            break
        if not piece:
            error = KafkaConnectionError("socket disconnected")
            break
        pieces.append(piece)
        # A short piece is the last one for now; the client's loop asks again later.
        if len(piece) < PIECE_BYTES:
            break
    return b"".join(pieces), error
