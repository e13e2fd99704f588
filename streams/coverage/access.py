"""Access rules of the coverage service: its addresses, its token, and the host names that it answers to.

1. On the loopback, the Host header must name the loopback or `coverage_host`. Otherwise a foreign web page could map
   its own name to 127.0.0.1 and read the answers of its visitor's machine.
2. On any other address, the service does not start without `FEEDMILL_TOKEN`.
3. If a token is set, every request must carry `Authorization: Bearer TOKEN`, on every address. Two paths stay open and
   reveal nothing: the empty page, which asks for the token, and `/api/health`, which then returns only its status.
"""

from __future__ import annotations

import hmac
import ipaddress
import logging
import socket
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from schema.errors import ConfigError, CoverageError
from schema.settings import Settings

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

# Answered without a token, with less content.
OPEN_PATHS = frozenset({"/", "/api/health"})
_SCHEME = "bearer"
_SHOWN_CHARACTERS = 80


def listening_addresses(settings: Settings) -> list[str]:
    """Return the addresses of `coverage_host`; the service binds these and no others.

    Raises:
        ConfigError: an address is not of the loopback, and no token is set.
        CoverageError: the name cannot be resolved.
    """
    host = settings.coverage_host
    try:
        # An empty name means every address of this machine.
        resolved = socket.getaddrinfo(
            host or None, settings.coverage_port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except (OSError, UnicodeError) as error:
        raise CoverageError(
            f"coverage_host {host!r} cannot be resolved ({error}): set FEEDMILL_COVERAGE_HOST"
        ) from error
    addresses = list(dict.fromkeys(str(address[0]) for *_, address in resolved))
    beyond = [address for address in addresses if not is_loopback(address)]
    if beyond and settings.token is None:
        raise ConfigError(
            f"coverage_host {host!r} is beyond this machine's loopback ({', '.join(beyond)}): set FEEDMILL_TOKEN, "
            "which every request must then carry, or FEEDMILL_COVERAGE_HOST=127.0.0.1"
        )
    return addresses


def is_loopback(address: str) -> bool:
    """Return whether an IP address is of the loopback, also if an IPv4 address is written as IPv6."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return (mapped or parsed).is_loopback


def is_authorized(settings: Settings, request: web.Request) -> bool:
    """Return whether the request carries the token, or no token is set."""
    if settings.token is None:
        return True
    given = request.headers.getall("Authorization", [])
    if len(given) != 1:
        return False
    scheme, _, token = given[0].partition(" ")
    expected = settings.token.get_secret_value().encode()
    # The comparison takes the same time for any token. A header may hold any bytes.
    same = hmac.compare_digest(token.strip().encode("utf-8", "surrogateescape"), expected)
    return same and scheme.lower() == _SCHEME


class _MalformedRequestFilter(logging.Filter):
    """Keeps malformed requests out of the log, because each would log a traceback and its own content."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


_MALFORMED_REQUEST_FILTER = _MalformedRequestFilter()


def guard(settings: Settings, refuse: Callable[[int, str], web.Response]) -> Any:
    """Return the middleware that applies rules 1 and 3; `refuse` makes an answer from a status and a line."""
    logging.getLogger("aiohttp.server").addFilter(_MALFORMED_REQUEST_FILTER)
    loopback_only = all(is_loopback(address) for address in listening_addresses(settings))

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        hosts = request.headers.getall("Host", [])
        if len(hosts) != 1:
            return refuse(400, "a request must have exactly one Host header")
        if loopback_only and not _names_loopback(hosts[0], settings.coverage_host):
            return refuse(403, f"this service answers to localhost, not to {hosts[0][:_SHOWN_CHARACTERS]!r}")
        wrong = "Authorization" in request.headers or request.path not in OPEN_PATHS
        if wrong and not is_authorized(settings, request):
            answer = refuse(401, "send the header Authorization: Bearer TOKEN with the service's FEEDMILL_TOKEN")
            answer.headers["WWW-Authenticate"] = "Bearer"
            return answer
        return await handler(request)

    return check


def _names_loopback(host: str, configured: str) -> bool:
    """Return whether a Host header, without its port, names the loopback or the configured host."""
    if host.startswith("["):
        name, bracket, rest = host[1:].partition("]")
        port = rest.removeprefix(":") if rest else "0"
        if not bracket or rest[:1] not in ("", ":"):
            return False
    else:
        name, colon, port = host.partition(":")
        port = port if colon else "0"
    if not (port.isascii() and port.isdecimal()):
        return False
    name = name.lower().removesuffix(".")
    return name in ("localhost", configured.lower()) or is_loopback(name)
