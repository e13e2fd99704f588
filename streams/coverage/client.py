"""Read coverage: from the HTTP service if one runs, else by owning the store in this process for a moment.

Takes a connection; returns a `CoverageView`.
"""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from broker.clients import Connection
from broker.topics import topic_id, topic_name
from schema.errors import CoverageError, CoverageOwnedError
from schema.record import LEDGER
from schema.registry import families_under, family_named
from schema.settings import Settings
from streams.coverage.completeness import note_missing
from streams.coverage.fold import LedgerFold
from streams.coverage.owner import COMMAND_LIMIT_S, coverage_folder, ownership, service_address
from streams.coverage.report import coverage_report, gaps, ledger_lines
from streams.coverage.store import STORE_FILE, CoverageStore, remove_store
from streams.positions import bound_positions

_ASK_AGAIN_S = 0.1
# A transaction's markers may be written this long after its commit.
_MARKERS_S = 10.0
_ANSWER_TIMEOUT_S = 10.0
_ASKS_FOR_TOKEN = "asks for a token: set FEEDMILL_TOKEN to the token of the service"  # noqa: S105


class CoverageView(Protocol):
    """Coverage of the registered families, by family name, at least as new as the last fold.

    Every method raises UnknownFamilyError for a family that is not registered, and CoverageError if the store or the
    service cannot answer.
    """

    def report(self, family: str) -> dict[str, Any]:
        """Return the report, with the keys of `streams.coverage.report.coverage_report`."""

    def gaps(self, family: str) -> list[dict[str, Any]]:
        """Return the gaps as [{axis: bin, ..., count, deficit}], largest deficit first."""

    def positions(self, family: str) -> dict[int, int]:
        """Return {ledger partition: the next offset to fold}."""


class ServiceCoverage:
    """Coverage from the service at `url`, asked with the token of the settings, if it is set."""

    def __init__(self, url: str, settings: Settings) -> None:
        if not url.startswith(("http://", "https://")):
            raise CoverageError(f"coverage_url {url!r} is not an http(s) address: correct FEEDMILL_COVERAGE_URL")
        self._url = url.rstrip("/")
        # The service runs in the same network, so no proxy is used.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        self._token = settings.token
        health = self._get("health")
        if not isinstance(health, dict) or "status" not in health:
            raise CoverageError(f"{url} answers, but is no coverage service: correct FEEDMILL_COVERAGE_URL")
        serves = health.get("namespace")
        if serves is None:
            raise CoverageError(f"the coverage service at {url} {_ASKS_FOR_TOKEN}")
        if serves != settings.namespace:
            raise CoverageError(
                f"the coverage service at {url} serves namespace {serves!r}, not {settings.namespace!r}: "
                "set FEEDMILL_NAMESPACE, or another FEEDMILL_DATA_DIR for this one"
            )

    def report(self, family: str) -> dict[str, Any]:
        """Return the report."""
        return dict(self._get(f"report/{family_named(family).name}"))

    def gaps(self, family: str) -> list[dict[str, Any]]:
        """Return the gaps."""
        return list(self._get(f"gaps/{family_named(family).name}"))

    def positions(self, family: str) -> dict[int, int]:
        """Return the next ledger offset to fold, by partition."""
        positions: dict[str, int] = self._get(f"positions/{family_named(family).name}")
        return {int(partition): offset for partition, offset in positions.items()}

    def warnings(self) -> list[str]:
        """Return one line for each fault of the ledgers, such as families that cannot be folded and foreign records."""
        troubles: dict[str, str] = self._get("health").get("troubles", {})
        lines = list(troubles.values())
        for family in self._get("families"):
            if family not in troubles:
                lines += [f"{family}: {line}" for line in ledger_lines(self._get(f"report/{family}"))]
        return lines

    def _get(self, path: str) -> Any:
        request = urllib.request.Request(f"{self._url}/api/{path}")  # noqa: S310 - http(s), checked in __init__
        if self._token is not None:
            # A redirect must not carry the token to another host.
            request.add_unredirected_header("Authorization", f"Bearer {self._token.get_secret_value()}")
        try:
            with self._opener.open(request, timeout=_ANSWER_TIMEOUT_S) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                line = error.read(2000).decode("utf-8", "replace")
            if error.code == 401:
                raise CoverageError(f"the coverage service at {self._url} {_ASKS_FOR_TOKEN}") from error
            raise CoverageError(f"the coverage service at {self._url} answered {error.code}: {line}") from error
        except (OSError, ValueError) as error:
            raise CoverageError(
                f"the coverage service at {self._url} does not answer ({error}): "
                "check that `feedmill coverage serve` runs"
            ) from error


class OwnCoverage:
    """Coverage from a store that this process owns; each answer is folded up to the ledgers' end."""

    def __init__(self, connection: Connection, store: CoverageStore, fold: LedgerFold) -> None:
        self._connection = connection
        self._store = store
        self._fold = fold
        self._families = fold.families

    def report(self, family: str) -> dict[str, Any]:
        """Return the report."""
        name = family_named(family).name
        _fold_checked(self._connection, self._store, self._fold, [name])
        self._fold.check(name)
        return coverage_report(self._families[name], self._store.counts(name))

    def gaps(self, family: str) -> list[dict[str, Any]]:
        """Return the gaps."""
        name = family_named(family).name
        self._fold.to_end()
        self._fold.check(name)
        return gaps(self._families[name], self._store.counts(name))

    def positions(self, family: str) -> dict[int, int]:
        """Return the next ledger offset to fold, by partition."""
        family_named(family)
        self._fold.to_end()
        self._fold.check(family)
        return {partition: end for (name, partition), end in self._store.positions().items() if name == family}


@contextmanager
def open_coverage(connection: Connection) -> Iterator[CoverageView]:
    """Open a view of coverage; a context manager.

    Raises:
        CoverageError: no service answers, and this process cannot own the store.
    """
    with ExitStack() as stack:
        yield _view(connection, stack)


@dataclass(frozen=True)
class StoredCoverage:
    """The content of DuckDB at one moment: the report, and the {ledger partition: next offset to fold} of its fold."""

    report: dict[str, Any]
    positions: dict[int, int]


def stored_coverage(connection: Connection, family: str) -> StoredCoverage:
    """Return what DuckDB stores about `family` now, without folding.

    Raises:
        CoverageError: no service answers, and this process has no store or cannot own it.
    """
    with ExitStack() as stack:
        service = _service_or_ownership(connection, stack)
        if service is not None:
            return _stored_by_service(service, family)
        folder = coverage_folder(connection.settings)
        if not (folder / STORE_FILE).exists():
            raise CoverageError(f"there is no coverage store in {folder}: start `feedmill coverage serve`")
        families = families_under(connection.settings)
        store = CoverageStore(folder, families)
        stack.callback(store.close)
        topic = topic_name(connection.settings, family, LEDGER)
        store.bind(family, topic, topic_id(connection, topic))
        counts = store.counts(family)
        return StoredCoverage(coverage_report(families[family], counts), counts.next_offsets)


def _stored_by_service(service: ServiceCoverage, family: str) -> StoredCoverage:
    """Ask for positions and report until nothing was folded between the two requests."""
    deadline = time.monotonic() + COMMAND_LIMIT_S
    while True:
        before, report = service.positions(family), service.report(family)
        if service.positions(family) == before:
            return StoredCoverage(report, before)
        if time.monotonic() > deadline:
            raise CoverageError("the coverage service never stops folding: run this again when less is produced")


def rebuild(connection: Connection) -> list[str]:
    """Delete the store and fold the ledgers again to their end; return one line for each fault of the ledgers.

    Raises:
        CoverageOwnedError: a service or another command owns the store.
        CoverageError: the ledger of a family cannot be folded; the other families were folded.
    """
    folder = coverage_folder(connection.settings)
    with ExitStack() as stack:
        stack.enter_context(ownership(folder))
        remove_store(folder)
        store, fold = _opened(connection, stack)
        _fold_checked(connection, store, fold, list(fold.families))
        for family in fold.families:
            fold.check(family)
        reports = [coverage_report(family, store.counts(name)) for name, family in fold.families.items()]
        return [f"{report['family']}: {line}" for report in reports for line in ledger_lines(report)]


def _fold_checked(connection: Connection, store: CoverageStore, fold: LedgerFold, families: list[str]) -> None:
    """Fold to the ledgers' end, and store which entries the ledgers of `families` lack."""
    refined = {family: bound_positions(connection, family) for family in families}
    deadline = time.monotonic() + _MARKERS_S
    while True:
        fold.to_end()
        certain = [
            note_missing(connection, store, family, positions)
            for family, positions in refined.items()
            if family not in fold.troubles
        ]
        if all(certain) or time.monotonic() > deadline:
            return
        time.sleep(_ASK_AGAIN_S)


def _view(connection: Connection, stack: ExitStack) -> CoverageView:
    service = _service_or_ownership(connection, stack)
    return OwnCoverage(connection, *_opened(connection, stack)) if service is None else service


def _service_or_ownership(connection: Connection, stack: ExitStack) -> ServiceCoverage | None:
    """Return the service that answers; without one, take the store's lock and return None."""
    settings = connection.settings
    if settings.coverage_url is not None:
        return ServiceCoverage(settings.coverage_url, settings)
    folder = coverage_folder(settings)
    deadline = time.monotonic() + COMMAND_LIMIT_S
    while True:
        address = service_address(folder)
        try:
            if address is not None:
                return ServiceCoverage(address.url, settings)
            stack.enter_context(ownership(folder))
            return None
        except CoverageError as error:
            # A service that starts or stops holds the lock for a moment without answering.
            starting = isinstance(error, CoverageOwnedError) or address != service_address(folder)
            if not starting or time.monotonic() > deadline:
                raise
        time.sleep(_ASK_AGAIN_S)


def _opened(connection: Connection, stack: ExitStack) -> tuple[CoverageStore, LedgerFold]:
    families = families_under(connection.settings)
    store = CoverageStore(coverage_folder(connection.settings), families)
    stack.callback(store.close)
    fold = LedgerFold(connection, store, families)
    stack.callback(fold.close)
    return store, fold
