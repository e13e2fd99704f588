"""Whether a Kafka answers at an address (one ApiVersions request over a plain socket), or anything at all.

Cheap enough to poll while a broker starts, and without a client library's retries and log lines.
"""

from __future__ import annotations

import socket
import struct

API_VERSIONS = 18
CORRELATION_ID = 0x46454544
ANSWER_TIMEOUT_S = 2.0


def listens(host: str, port: int, timeout_s: float = ANSWER_TIMEOUT_S) -> bool:
    """Return whether anything accepts connections at `host:port`."""
    try:
        with socket.create_connection((host, port), timeout=timeout_s):
            return True
    except OSError:
        return False


def answers(host: str, port: int, timeout_s: float = ANSWER_TIMEOUT_S) -> bool:
    """Return whether a Kafka broker at `host:port` answers an ApiVersions request (version 0) without an error.

    The request: int16 api key, int16 version, int32 correlation id, nullable string client id (null); framed, as the
    answer is, by an int32 length. The answer begins with the correlation id and an int16 error code.
    """
    request = struct.pack(">hhih", API_VERSIONS, 0, CORRELATION_ID, -1)
    try:
        with socket.create_connection((host, port), timeout=timeout_s) as connection:
            connection.sendall(struct.pack(">i", len(request)) + request)
            head = b""
            while len(head) < 10:
                more = connection.recv(10 - len(head))
                if not more:
                    return False
                head += more
    except OSError:
        return False
    _, correlation_id, error_code = struct.unpack(">iih", head)
    return bool(correlation_id == CORRELATION_ID and error_code == 0)
