"""Receive from Kafka in pieces of 64 KiB instead of 4 KiB.

kafka-python asks a socket for 4,096 bytes at a time, so that a fetched megabyte takes 256 system calls, each of which
gives up the interpreter's lock and takes it again. `install` replaces that one method of its plain transport; TLS has a
transport of its own, which stays as it is, because a TLS record is at most 16 KiB.

The method is private to kafka-python, whose version is pinned exactly for such reasons.
"""

from __future__ import annotations

import logging
from typing import Any

from kafka.errors import KafkaConnectionError
from kafka.net.transport import KafkaTCPTransport

_log = logging.getLogger("feedmill.broker")

# Below 128 KiB, from which on malloc asks the system for new memory each time.
PIECE_BYTES = 64 * 1024


def install() -> None:
    """Make every plain connection of this process receive in large pieces; calling it again changes nothing."""
    KafkaTCPTransport._sock_recv = _receive


def _receive(transport: Any) -> tuple[bytes, KafkaConnectionError | None]:
    """Return what a transport's non-blocking socket holds now, and the error if its connection has ended."""
    pieces: list[bytes] = []
    error = None
    while True:
        try:
            piece = transport._sock.recv(PIECE_BYTES)
        except (BlockingIOError, InterruptedError):
            break
        # A transport that was closed meanwhile has no socket.
        except (OSError, AttributeError) as cause:
            _log.debug("%s: receiving failed: %s", transport, cause)
            error = KafkaConnectionError(cause)
            break
        if not piece:
            error = KafkaConnectionError("socket disconnected")
            break
        pieces.append(piece)
        # A short piece is all there is; the loop of the client asks again when there is more.
        if len(piece) < PIECE_BYTES:
            break
    return b"".join(pieces), error
