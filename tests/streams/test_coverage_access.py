"""Access to the coverage service: the loopback's Host check, the token beyond it, and hostile headers."""

from __future__ import annotations

import asyncio
import logging
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import psutil
import pytest
from aiohttp.test_utils import TestServer
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from broker.clients import Connection
from schema.errors import ConfigError, CoverageError
from schema.registry import FAMILIES
from schema.settings import Settings, load_settings
from streams.coverage.access import is_loopback, listening_addresses
from streams.coverage.client import ServiceCoverage, open_coverage
from streams.coverage.fold import LedgerFold
from streams.coverage.owner import coverage_folder
from streams.coverage.service import application
from streams.coverage.store import CoverageStore
from tests.commands import command

TOKEN = "open-sesame-0123456789"  # noqa: S105 - not one of anybody's
BEYOND = ["0.0.0.0", "::", "", "0", "192.0.2.7", "2001:db8::1", "::ffff:192.0.2.7", "::ffff:0.0.0.0"]  # noqa: S104
LOOPBACK = ["127.0.0.1", "127.0.0.2", "127.1", "::1", "localhost", "::ffff:127.0.0.1"]


@pytest.fixture(scope="module")
def served(broker: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[CoverageStore, LedgerFold]]:
    """An empty store and its fold, for applications with their own settings."""
    settings = load_settings(
        namespace="test-access", data_dir=tmp_path_factory.mktemp("access"), bootstrap_servers=broker
    )
    store = CoverageStore(coverage_folder(settings), FAMILIES)
    fold = LedgerFold(Connection(settings, broker), store, FAMILIES)
    yield store, fold
    fold.close()
    store.close()


def settings_at(host: str, token: str | None) -> Settings:
    return load_settings(namespace="test-access", coverage_host=host, token=token)


def exchange(settings: Settings, served: tuple[CoverageStore, LedgerFold], *requests: bytes) -> list[bytes]:
    """Send each request, byte for byte, over its own connection; return the answers."""

    async def asked() -> list[bytes]:
        async with TestServer(application(settings, *served)) as server:
            answers = []
            for request in requests:
                reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
                writer.write(request)
                try:
                    answers.append(await asyncio.wait_for(reader.read(200_000), 20))
                except ConnectionResetError:
                    # The server closed the connection before it had read the whole request.
                    answers.append(b"HTTP/1.1 400 without a word")
                writer.transport.abort()
            return answers

    return asyncio.run(asked())


def get(path: str, *headers: bytes, host: bytes = b"127.0.0.1:8265") -> bytes:
    lines = [f"GET {path} HTTP/1.1".encode(), b"Host: " + host, b"Connection: close", *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n"


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


@pytest.mark.parametrize("host", BEYOND)
def test_address_beyond_the_loopback_needs_a_token(host: str) -> None:
    with pytest.raises(ConfigError, match="set FEEDMILL_TOKEN"):
        listening_addresses(settings_at(host, None))
    assert listening_addresses(settings_at(host, TOKEN))


@pytest.mark.parametrize("host", LOOPBACK)
def test_loopback_needs_no_token(host: str) -> None:
    assert all(is_loopback(address) for address in listening_addresses(settings_at(host, None)))


def test_a_host_name_counts_as_its_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {"inside.example": ["127.0.0.1", "::1"], "outside.example": ["127.0.0.1", "192.0.2.7"]}

    def resolve(host: str, *_: object, **__: object) -> list[tuple[object, ...]]:
        return [(None, None, None, "", (address, 0)) for address in known[host]]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    assert listening_addresses(settings_at("inside.example", None)) == known["inside.example"]
    with pytest.raises(ConfigError, match=r"outside\.example.* \(192\.0\.2\.7\)"):
        listening_addresses(settings_at("outside.example", None))


@pytest.mark.parametrize("host", ["no-such-host.invalid", "x" * 300, "a..b", "ü" * 70])
def test_name_that_does_not_resolve_is_reported_in_one_line(host: str) -> None:
    with pytest.raises(CoverageError, match="FEEDMILL_COVERAGE_HOST") as caught:
        listening_addresses(settings_at(host, TOKEN))
    assert "\n" not in str(caught.value)


@given(st.ip_addresses())
def test_an_address_is_of_the_loopback_as_its_number_says(address: object) -> None:
    number = int(address)  # type: ignore[call-overload]
    ipv4 = number >> 24 == 127 and "." in str(address)
    ipv6 = "." not in str(address) and (number == 1 or (number >> 32 == 0xFFFF and (number >> 24) & 0xFF == 127))
    assert is_loopback(str(address)) == (ipv4 or ipv6)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        (b"localhost", 200),
        (b"LOCALHOST:8265", 200),
        (b"localhost.", 200),
        (b"127.0.0.1:1", 200),
        (b"127.9.9.9", 200),
        (b"[::1]", 200),
        (b"[::1]:8265", 200),
        (b"evil.example", 403),
        (b"evil.example:8265", 403),
        (b"localhost.evil.example", 403),
        (b"127.0.0.1.evil.example", 403),
        (b"127.0.0.1@evil.example", 403),
        (b"localhost:80:80", 403),
        (b"localhost:evil", 403),
        (b"[::1]evil.example", 403),
        (b"[::1", 403),
        (b"::1", 403),
        (b"0.0.0.0", 403),
        (b"192.0.2.7", 403),
        (b"", 403),
        ("lökalhost".encode(), 403),
        (b"x" * 5000, 403),
    ],
)
def test_loopback_answers_to_its_own_names_only(
    served: tuple[CoverageStore, LedgerFold], host: bytes, expected: int
) -> None:
    for path in ("/api/health", "/", "/metrics", "/nothing"):
        (answer,) = exchange(settings_at("127.0.0.1", None), served, get(path, host=host))
        got = status(answer)
        # The parser itself may refuse a malformed host.
        assert got == (404 if path == "/nothing" and expected == 200 else expected) or (expected, got) == (403, 400)
        assert len(answer) < 2000 or expected == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "127.0.0.1"])  # noqa: S104
@pytest.mark.parametrize("path", ["/metrics", "/fragment", "/api/families", "/api/report/reduction", "/nothing", "//"])
def test_every_request_needs_the_token(served: tuple[CoverageStore, LedgerFold], host: str, path: str) -> None:
    right = f"Authorization: Bearer {TOKEN}".encode()
    wrong = [
        (),
        (b"Authorization: Bearer " + TOKEN[:-1].encode(),),
        (b"Authorization: Bearer " + TOKEN.encode() + b"x",),
        (b"Authorization: Bearer",),
        (b"Authorization: Basic " + TOKEN.encode(),),
        (b"Authorization: " + TOKEN.encode(),),
        (b"Authorization: Bearer \xff\xfe" + TOKEN.encode(),),
        ("Authorization: Bearer ümlaut".encode(),),
        (right, right),
        (right, b"Authorization: Bearer x"),
    ]
    answers = exchange(settings_at(host, TOKEN), served, *[get(path, *headers) for headers in wrong])
    assert {status(answer) for answer in answers} <= {400, 401}
    assert status(answers[0]) == 401
    assert b"www-authenticate: bearer" in answers[0].lower()
    assert not any(TOKEN.encode() in answer for answer in answers)
    for good in (right, right.replace(b"Bearer", b"bearer")):
        assert status(exchange(settings_at(host, TOKEN), served, get(path, good))[0]) in (200, 404)


def test_open_paths_reveal_nothing(served: tuple[CoverageStore, LedgerFold]) -> None:
    settings = settings_at("0.0.0.0", TOKEN)  # noqa: S104
    health, page, wrong = exchange(
        settings, served, get("/api/health"), get("/"), get("/", b"Authorization: Bearer wrong")
    )
    assert health.endswith(b'{"status": "ok"}')
    assert status(page) == 200
    assert b'id="token"' in page
    assert b"sessionStorage" in page
    for name in (*FAMILIES, "test-access", TOKEN):
        assert name.encode() not in page
    assert status(wrong) == 401
    right = f"Authorization: Bearer {TOKEN}".encode()
    health, page = exchange(settings, served, get("/api/health", right), get("/", right))
    assert b'"namespace": "test-access"' in health
    assert b"reduction" in page


def test_hostile_headers_are_refused_and_the_service_goes_on(
    served: tuple[CoverageStore, LedgerFold], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    hostile = [
        get("/metrics", b"Authorization: Bearer " + b"x" * 1_000_000),
        get("/metrics", b"X: " + b"y" * 100_000),
        get("/metrics", *[b"X%d: y" % number for number in range(20_000)]),
        get("/metrics", b"Host: 127.0.0.1"),
        get("/metrics", b"Host: evil.example"),
        get("/metrics").replace(b"Host: 127.0.0.1:8265\r\n", b""),
        b"GET /metrics HTTP/1.0\r\n\r\n",
        get("/metrics", b"Authorization: Bearer \0"),
        get("/metrics", b"Authorization : Bearer x"),
        get("http://evil.example/metrics", host=b"evil.example"),
        get("/metrics", b"Content-Length: -1"),
        get("/metrics", b"Transfer-Encoding: chunked", b"Content-Length: 3"),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 100 + b"\r\n\r\n",
    ]
    answers = exchange(settings_at("127.0.0.1", None), served, *hostile, get("/api/health"))
    assert [status(answer) for answer in answers[:-1] if not 400 <= status(answer) < 500] == []
    assert status(answers[-1]) == 200
    assert caplog.text == ""


def test_service_beyond_the_loopback_answers_our_own_commands_by_the_token(
    settings: Settings, connection: Connection, tmp_path: Path
) -> None:
    own = [each.address for each in psutil.net_if_addrs().get("eth0", []) if each.family == socket.AF_INET]
    with command(settings.model_copy(update={"coverage_host": "0.0.0.0"}), tmp_path / "log", "coverage", "serve") as no:  # noqa: S104
        assert no.process.wait(60) == 1
    assert no.said().count("\n") == 1
    assert "set FEEDMILL_TOKEN" in no.said()

    beyond = settings.model_copy(
        update={"coverage_host": "0.0.0.0", "coverage_port": 0, "token": SecretStr(TOKEN)}  # noqa: S104
    )
    with command(beyond, tmp_path / "log", "coverage", "serve") as running:
        running.wait_until(lambda: "coverage service at" in running.said())
        url = running.said().split()[-1]
        with open_coverage(Connection(beyond, connection.servers)) as coverage:
            assert coverage.report("reduction")["rows_in"] == 0
        for address in ["127.0.0.1", *own]:
            with pytest.raises(urllib.error.HTTPError) as caught:
                urllib.request.urlopen(f"{url.replace('127.0.0.1', address)}/metrics", timeout=20)  # noqa: S310
            assert caught.value.code == 401
            caught.value.close()
        for token in (None, SecretStr("x" * 20)):
            with pytest.raises(CoverageError, match="set FEEDMILL_TOKEN"):
                ServiceCoverage(url, settings.model_copy(update={"token": token}))
    assert TOKEN not in running.said()


@pytest.mark.parametrize("body", [b"[]", b"{}", b'"x"', b"null", b"<html>"])
def test_address_of_another_server_is_reported(body: bytes) -> None:
    class Foreign(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Foreign) as server:
        thread = Thread(target=server.handle_request)
        thread.start()
        with pytest.raises(CoverageError, match=r"no coverage service: correct FEEDMILL_COVERAGE_URL|does not answer"):
            ServiceCoverage(f"http://127.0.0.1:{server.server_address[1]}", settings_at("127.0.0.1", None))
        thread.join()


def test_token_goes_to_no_other_host_that_an_answer_points_to() -> None:
    seen: list[str | None] = []

    class Elsewhere(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.headers.get("Authorization"))
            self.send_response(302 if len(seen) == 1 else 404)
            self.send_header("Location", f"http://localhost:{self.server.server_address[1]}/other")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Elsewhere) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        with pytest.raises(CoverageError):
            ServiceCoverage(f"http://127.0.0.1:{server.server_address[1]}", settings_at("127.0.0.1", TOKEN))
        server.shutdown()
        thread.join()
    assert seen == [f"Bearer {TOKEN}", None]
