"""Check over a plain socket whether a server, a Kafka or a TLS port listens at an address.

This is cheap enough to poll while a broker starts, and has no client library's retries and log lines.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct

API_VERSIONS = 18
CORRELATION_ID = 0x46454544
ANSWER_TIMEOUT_S = 2.0
# Kafka's answers here are a few hundred bytes; another server may claim any length.
_ANSWER_MAX_BYTES = 64 * 1024
# The first byte of a TLS record: an alert, or a part of the handshake. The second is the major version.
_TLS_RECORDS = (0x15, 0x16)
_TLS_MAJOR_VERSION = 3


def listens(host: str, port: int, timeout_s: float = ANSWER_TIMEOUT_S) -> bool:
    """Return whether a server accepts connections at `host:port`."""
    try:
        with socket.create_connection((host, port), timeout=timeout_s):
            return True
    except OSError:
        return False


def answers(host: str, port: int, timeout_s: float = ANSWER_TIMEOUT_S) -> bool:
    """Return whether a Kafka broker at `host:port` answers an ApiVersions request (version 0) without an error."""
    try:
        with socket.create_connection((host, port), timeout=timeout_s) as connection:
            answer = ask(connection, API_VERSIONS, 0)
    except OSError:
        return False
    return answer[:2] == b"\0\0"


def ask(connection: socket.socket, api_key: int, version: int, body: bytes = b"") -> bytes:
    """Send one Kafka request and return the answer's body, which begins after the correlation id.

    The request is int16 api key, int16 version, int32 correlation id, nullable string client id (null), then `body`.
    An int32 length precedes the request, and the answer too.

    Raises:
        OSError: the connection broke or timed out, or the answer is not Kafka's.
    """
    request = struct.pack(">hhih", api_key, version, CORRELATION_ID, -1) + body
    connection.sendall(struct.pack(">i", len(request)) + request)
    size, correlation_id = struct.unpack(">ii", _receive(connection, 8))
    if correlation_id != CORRELATION_ID or not 6 <= size <= _ANSWER_MAX_BYTES:
        raise ConnectionError("the answer is not Kafka's")
    return _receive(connection, size - 4)


def speaks_tls(host: str, port: int, timeout_s: float = ANSWER_TIMEOUT_S) -> bool:
    """Return whether the server at `host:port` answers a TLS greeting with a TLS record, even if it refuses."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    greeting = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname=host)
    with contextlib.suppress(ssl.SSLWantReadError):
        greeting.do_handshake()
    try:
        with socket.create_connection((host, port), timeout=timeout_s) as connection:
            connection.sendall(outgoing.read())
            kind, major_version = _receive(connection, 2)
    except OSError:
        return False
    return kind in _TLS_RECORDS and major_version == _TLS_MAJOR_VERSION


def _receive(connection: socket.socket, count: int) -> bytes:
    """Return exactly `count` bytes.

    Raises:
        OSError: the connection broke or timed out before that.
    """
    received = b""
    while len(received) < count:
        more = connection.recv(count - len(received))
        if not more:
            raise ConnectionError("the connection was closed")
        received += more
    return received
