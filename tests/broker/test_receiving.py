from __future__ import annotations

import socket
from types import SimpleNamespace

import pytest
from kafka.errors import KafkaConnectionError
from kafka.net.transport import KafkaTCPTransport

import broker.clients  # noqa: F401  # installs the method


class Counting(socket.socket):
    """A socket that counts the calls of `recv`."""

    calls = 0

    def recv(self, size: int, flags: int = 0) -> bytes:
        self.calls += 1
        return super().recv(size, flags)


def received(near: socket.socket) -> tuple[bytes, Exception | None]:
    result: tuple[bytes, Exception | None] = KafkaTCPTransport._sock_recv(SimpleNamespace(_sock=near))
    return result


@pytest.fixture
def ends() -> object:
    far, end = socket.socketpair()
    near = Counting(fileno=end.detach())
    near.setblocking(False)
    with far, near:
        yield far, near


@pytest.mark.parametrize("size", [1, 4096, 65_536, 65_537, 100_000])
def test_all_arrived_bytes_are_received_in_a_few_calls(ends: tuple[socket.socket, Counting], size: int) -> None:
    far, near = ends
    sent = bytes(number % 251 for number in range(size))
    far.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * size)
    far.sendall(sent)
    assert received(near) == (sent, None)
    assert near.calls <= 3


def test_an_empty_socket_is_no_error(ends: tuple[socket.socket, Counting]) -> None:
    assert received(ends[1]) == (b"", None)


def test_the_last_bytes_of_an_ended_connection_come_before_its_error(ends: tuple[socket.socket, Counting]) -> None:
    far, near = ends
    far.sendall(b"last")
    far.close()
    assert received(near) == (b"last", None)
    data, error = received(near)
    assert data == b""
    assert isinstance(error, KafkaConnectionError)


def test_a_broken_socket_is_a_connection_error(ends: tuple[socket.socket, Counting]) -> None:
    near = ends[1]
    near.close()
    data, error = received(near)
    assert data == b""
    assert isinstance(error, KafkaConnectionError)
