"""Who may ask the coverage service: where it may listen, the token it asks for, the host names it answers to.

1. On the loopback the Host header must name the loopback, or the name that `coverage_host` gives it: a page elsewhere
   may point a name of its own at 127.0.0.1, and read what its visitor's machine answers.
2. Beyond the loopback the service does not start without `FEEDMILL_TOKEN`.
3. With a token set, wherever it listens, every request must carry `Authorization: Bearer TOKEN`. Two paths say nothing
   and stay open: the page's empty frame, which asks for the token, and `/api/health`, which then gives its status only.
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

# Answered without a token, though with less.
OPEN_PATHS = frozenset({"/", "/api/health"})
_SCHEME = "bearer"
_SHOWN_CHARACTERS = 80


def listening_addresses(settings: Settings) -> list[str]:
    """Return the addresses that `coverage_host` stands for; the service binds these and no others.

    Raises:
        ConfigError: one of them is beyond the loopback, and there is no token.
        CoverageError: the name cannot be resolved.
    """
    host = settings.coverage_host
    try:
        # An empty name stands for every address of this machine.
        found = socket.getaddrinfo(
            host or None, settings.coverage_port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except (OSError, UnicodeError) as error:
        raise CoverageError(
            f"coverage_host {host!r} cannot be resolved ({error}): set FEEDMILL_COVERAGE_HOST"
        ) from error
    addresses = list(dict.fromkeys(str(address[0]) for *_, address in found))
    beyond = [address for address in addresses if not is_loopback(address)]
    if beyond and settings.token is None:
        raise ConfigError(
            f"coverage_host {host!r} is beyond this machine's loopback ({', '.join(beyond)}): set FEEDMILL_TOKEN, "
            "which every request must then carry, or FEEDMILL_COVERAGE_HOST=127.0.0.1"
        )
    return addresses


def is_loopback(address: str) -> bool:
    """Return whether an IP address is of the loopback, an IPv4 one that is written as IPv6 included."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return (mapped or found).is_loopback


def is_authorized(settings: Settings, request: web.Request) -> bool:
    """Return whether the request carries the token, or none is set."""
    if settings.token is None:
        return True
    given = request.headers.getall("Authorization", [])
    if len(given) != 1:
        return False
    scheme, _, token = given[0].partition(" ")
    expected = settings.token.get_secret_value().encode()
    # Takes as long whatever the token begins with. A header may hold any bytes.
    same = hmac.compare_digest(token.strip().encode("utf-8", "surrogateescape"), expected)
    return same and scheme.lower() == _SCHEME


class _OfTheService(logging.Filter):
    """Keeps malformed requests out of the log: answered with 400, each would add a traceback and what it sent."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


_OF_THE_SERVICE = _OfTheService()


def guard(settings: Settings, refuse: Callable[[int, str], web.Response]) -> Any:
    """Return the middleware that holds the rules above; `refuse` makes an answer of a status and a line."""
    logging.getLogger("aiohttp.server").addFilter(_OF_THE_SERVICE)
    loopback_only = all(is_loopback(address) for address in listening_addresses(settings))

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        hosts = request.headers.getall("Host", [])
        if len(hosts) != 1:
            return refuse(400, "a request names one host")
        if loopback_only and not _names_loopback(hosts[0], settings.coverage_host):
            return refuse(403, f"this service answers as localhost, not as {hosts[0][:_SHOWN_CHARACTERS]!r}")
        wrong = "Authorization" in request.headers or request.path not in OPEN_PATHS
        if wrong and not is_authorized(settings, request):
            answer = refuse(401, "set the header Authorization: Bearer TOKEN, with the FEEDMILL_TOKEN of the service")
            answer.headers["WWW-Authenticate"] = "Bearer"
            return answer
        return await handler(request)

    return check


def _names_loopback(host: str, configured: str) -> bool:
    """Return whether a Host header's name, its port left out, is the loopback's or the configured one."""
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
