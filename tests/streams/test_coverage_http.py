"""Answers of the coverage service over HTTP, in this process: dashboard, metrics, refusals."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from aiohttp.test_utils import TestClient, TestServer
from prometheus_client.parser import text_string_to_metric_families

from broker.clients import Connection
from schema.registry import FAMILIES
from streams.coverage.fold import LedgerFold
from streams.coverage.owner import coverage_folder
from streams.coverage.service import application
from streams.coverage.store import CoverageStore
from tests.streams.ledgers import FAMILY, LedgerWriter, entry

NAME = FAMILY.name

Answer = tuple[int, dict[str, str], str]


@pytest.fixture
def ledger(connection: Connection) -> Iterator[LedgerWriter]:
    writer = LedgerWriter(connection)
    yield writer
    writer.close()


@pytest.fixture
def folding(connection: Connection) -> Iterator[tuple[CoverageStore, LedgerFold]]:
    store = CoverageStore(coverage_folder(connection.settings), FAMILIES)
    fold = LedgerFold(connection, store, FAMILIES)
    yield store, fold
    fold.close()
    store.close()


def ask(connection: Connection, folding: tuple[CoverageStore, LedgerFold], path: str, **headers: str) -> Answer:
    """One GET of the application over the present store."""

    async def asked() -> Answer:
        server = TestServer(application(connection.settings, *folding))
        async with TestClient(server) as client, client.get(path, headers=headers) as answer:
            return answer.status, {name.lower(): value for name, value in answer.headers.items()}, await answer.text()

    folding[1].to_end()
    return asyncio.run(asked())


def test_the_dashboard_loads_nothing_and_escapes_names(
    connection: Connection, ledger: LedgerWriter, folding: tuple[CoverageStore, LedgerFold]
) -> None:
    cells = [{"axis": "cell", "bin": "10-19|4-7|0", "rows": 1234}]
    evil = [{"reason": "<script>alert(1)</script>", "rows": 1}]
    ledger.write([entry(rows_in=1235, rows_clean=1234, rows_rejected=1, reasons=evil, coverage=cells)])
    status, headers, page = ask(connection, folding, "/")
    assert status == 200
    assert "1,235 rows in" in page
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert '<td class="h8" title="1 of ' in page
    assert "http://" not in page and "https://" not in page
    nonce = headers["content-security-policy"].partition("script-src 'nonce-")[2].partition("'")[0]
    assert f'<script nonce="{nonce}">' in page
    assert "default-src 'none'" in headers["content-security-policy"]
    assert ask(connection, folding, "/fragment")[2] in page


def test_metrics_equal_the_report(
    connection: Connection, ledger: LedgerWriter, folding: tuple[CoverageStore, LedgerFold]
) -> None:
    reasons = [{"reason": "bad", "rows": 2}]
    ledger.write([entry(rows_in=10, rows_clean=7, rows_rejected=2, rows_rerouted=1, reasons=reasons)])
    found = {
        (sample.name, sample.labels.get("kind") or sample.labels.get("reason") or ""): sample.value
        for metric in text_string_to_metric_families(ask(connection, folding, "/metrics")[2])
        for sample in metric.samples
        if sample.labels["family"] == NAME
    }
    rows = {kind: found["feedmill_rows_total", kind] for kind in ("in", "clean", "rejected", "rerouted", "augmented")}
    assert rows == {"in": 10, "clean": 7, "rejected": 2, "rerouted": 1, "augmented": 0}
    assert found["feedmill_rejected_rows_total", "bad"] == 2
    assert found["feedmill_ledger_entries_total", ""] == 1


def test_a_foreign_page_cannot_read_it_by_mapping_its_name_to_the_loopback(
    connection: Connection, folding: tuple[CoverageStore, LedgerFold]
) -> None:
    statuses = {
        host: ask(connection, folding, "/api/health", Host=host)[0]
        for host in ("evil.example", "evil.example:8265", "localhost", "127.0.0.1:8265", "[::1]:8265")
    }
    assert statuses == {
        "evil.example": 403,
        "evil.example:8265": 403,
        "localhost": 200,
        "127.0.0.1:8265": 200,
        "[::1]:8265": 200,
    }


def test_a_broker_that_does_not_answer_is_shown_beside_the_figures(
    connection: Connection, folding: tuple[CoverageStore, LedgerFold]
) -> None:
    folding[1].to_end()
    folding[1].reachable = False
    assert "broker unreachable" in ask(connection, folding, "/api/health")[2]
    assert "figures are old" in ask(connection, folding, "/fragment")[2]
