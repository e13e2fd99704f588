"""The coverage service: owns the store, folds the ledger as it grows, and answers over HTTP.

It publishes the gaps for producers that follow (`streams.coverage.requests`).

::

    GET /                        dashboard           GET /metrics                  Prometheus
    GET /api/families            names               GET /api/health               {status, pid, namespace}
    GET /api/report/{family}     the report          GET /api/positions/{family}   {partition: next ledger offset}
    GET /api/gaps/{family}       the gaps

All requests only read. The service listens on the loopback unless `coverage_host` is set; `streams.coverage.access` has
the access rules. A family whose ledger cannot be folded does not stop the others. Requests for that family get the
cause (status 503). The page, `/api/health` (`troubles`) and `/metrics` (`feedmill_coverage_stale`) show it, too.
"""

from __future__ import annotations

import asyncio
import errno
import os
import secrets
import signal
import threading
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from broker.clients import Connection
from broker.kept_clients import keeping_clients
from schema.errors import CoverageError, UnknownFamilyError
from schema.family import Family
from schema.registry import families_under, family_named
from schema.settings import Settings
from streams.coverage import dashboard
from streams.coverage.access import guard, is_authorized, listening_addresses
from streams.coverage.fold import LedgerFold
from streams.coverage.metrics import metrics_registry
from streams.coverage.owner import COMMAND_LIMIT_S, announce, coverage_folder, ownership, service_address, withdraw
from streams.coverage.report import coverage_report, gaps
from streams.coverage.requests import RequestPublisher
from streams.coverage.store import Counts, CoverageStore

_SHUTDOWN_S = 2.0
# A service that listens on every address of this machine is reached from this machine at these.
_HERE = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104 - looked up, not bound


@keeping_clients
def serve(connection: Connection, on_ready: Callable[[str], None]) -> None:
    """Fold and answer until SIGTERM or SIGINT; `on_ready` is called with the URL.

    Raises:
        ConfigError: the service would listen beyond the loopback without a token.
        CoverageOwnedError: another service owns the store, or a command owns it for too long.
        CoverageError: the store's file or the ledger cannot be used, or the port cannot be opened.
    """
    listening_addresses(connection.settings)
    folder = coverage_folder(connection.settings)
    with ownership(folder, wait_s=0.0 if service_address(folder) else COMMAND_LIMIT_S):
        withdraw(folder)
        families = families_under(connection.settings)
        store = CoverageStore(folder, families)
        try:
            fold = LedgerFold(connection, store, families)
            publisher = RequestPublisher(connection, store, families)
            asyncio.run(_serve(connection, store, fold, publisher, on_ready))
        finally:
            store.close()


async def _serve(
    connection: Connection,
    store: CoverageStore,
    fold: LedgerFold,
    publisher: RequestPublisher,
    on_ready: Callable[[str], None],
) -> None:
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    stop = threading.Event()
    failures: list[BaseException] = []

    def publish(folded: int) -> None:
        if folded or publisher.due:
            publisher.publish()

    def run_fold() -> None:
        try:
            fold.run(stop, publish)
        except BaseException as error:
            failures.append(error)
        finally:
            publisher.close()
            fold.close()
            loop.call_soon_threadsafe(ended.set)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    runner = web.AppRunner(application(connection.settings, store, fold), shutdown_timeout=_SHUTDOWN_S)
    await runner.setup()
    folding = threading.Thread(target=run_fold, name="ledger-fold")
    folding.start()
    try:
        url = await _listen(runner, connection)
        announce(coverage_folder(connection.settings), url, connection.settings.namespace)
        on_ready(url)
        await ended.wait()
    finally:
        # Removed before the port closes, so that `service.json` never names a silent port.
        withdraw(coverage_folder(connection.settings))
        await runner.cleanup()
        stop.set()
        await asyncio.to_thread(folding.join)
    if failures:
        raise failures[0]


async def _listen(runner: web.AppRunner, connection: Connection) -> str:
    """Listen on `coverage_port`, or on a free port if it is taken; return the URL."""
    host, port = connection.settings.coverage_host, connection.settings.coverage_port
    bound, refusal = 0, None
    for address in listening_addresses(connection.settings):
        try:
            bound = await _bind(runner, address, bound or port, fixed=bool(bound))
        except OSError as error:
            # A name may have addresses that this machine lacks, such as localhost without IPv6.
            refusal = error
    if not bound:
        raise CoverageError(
            f"cannot listen on {host}:{port} ({refusal}): set FEEDMILL_COVERAGE_HOST and FEEDMILL_COVERAGE_PORT"
        ) from refusal
    address = _HERE.get(host, host)
    return f"http://{f'[{address}]' if ':' in address else address}:{bound}"


async def _bind(runner: web.AppRunner, address: str, port: int, *, fixed: bool) -> int:
    """Listen on an address and return the port: `port`, or a free one if it is taken and not `fixed`."""
    try:
        await web.TCPSite(runner, address, port).start()
    except OSError as error:
        if fixed or error.errno != errno.EADDRINUSE:
            raise
        await web.TCPSite(runner, address, 0).start()
    return int(runner.addresses[-1][1])


def application(settings: Settings, store: CoverageStore, fold: LedgerFold) -> web.Application:
    """Return the HTTP application, which only reads `store`; `fold` writes the store."""

    families = fold.families

    def reports() -> list[dict[str, Any]]:
        return [coverage_report(family, store.counts(family.name)) for family in families.values()]

    registry = metrics_registry(reports, lambda: fold.troubles)

    def of_family(answer: Callable[[Family, Counts], Any]) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def handler(request: web.Request) -> web.Response:
            name = request.match_info["family"]
            try:
                family = families[family_named(name).name]
            except UnknownFamilyError as error:
                return _error(404, str(error))
            # Old figures look like right ones, so a family that is not folded gets an error.
            fold.check(name)
            return web.json_response(answer(family, await asyncio.to_thread(store.counts, name)))

        return handler

    async def names(_: web.Request) -> web.Response:
        return web.json_response(list(families))

    async def health(request: web.Request) -> web.Response:
        status = "ok" if fold.reachable else "broker unreachable: figures are old"
        if not is_authorized(settings, request):
            return web.json_response({"status": status})
        answer = {"status": status, "pid": os.getpid(), "namespace": settings.namespace}
        return web.json_response(answer | ({"troubles": fold.troubles} if fold.troubles else {}))

    async def metrics(_: web.Request) -> web.Response:
        body = await asyncio.to_thread(generate_latest, registry)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def index(request: web.Request) -> web.Response:
        nonce = secrets.token_urlsafe(16)
        policy = (
            f"default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; connect-src 'self'; "
            "form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
        )
        content = ""
        if is_authorized(settings, request):
            content = dashboard.fragment(families, await asyncio.to_thread(reports), fold.troubles)
        headers = {"Content-Security-Policy": policy, "Cache-Control": "no-store"}
        return web.Response(text=dashboard.page(content, nonce), content_type="text/html", headers=headers)

    async def fragment(_: web.Request) -> web.Response:
        html = dashboard.fragment(families, await asyncio.to_thread(reports), fold.troubles)
        if not fold.reachable:
            html = f'<p class="no">the broker does not answer: figures are old</p>{html}'
        return web.Response(text=html, content_type="text/html")

    app = web.Application(middlewares=[_json_errors, guard(settings, _error)])
    app.add_routes(
        [
            web.get("/", index),
            web.get("/fragment", fragment),
            web.get("/metrics", metrics),
            web.get("/api/families", names),
            web.get("/api/health", health),
            web.get("/api/report/{family}", of_family(coverage_report)),
            web.get("/api/gaps/{family}", of_family(gaps)),
            web.get("/api/positions/{family}", of_family(lambda _, counts: counts.next_offsets)),
        ]
    )
    return app


@web.middleware
async def _json_errors(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPException as error:
        return _error(error.status, f"{error.reason}: {request.method} {request.path}")
    except CoverageError as error:
        return _error(503, str(error))


def _error(status: int, line: str) -> web.Response:
    return web.json_response({"error": line}, status=status)
