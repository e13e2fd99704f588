"""The coverage service as a separate process: kill -9, one owner, a broker that goes away."""

from __future__ import annotations

import http.client
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from broker import embedded
from broker.clients import Connection, connect
from broker.topics import topic_name
from schema.errors import CoverageError, CoverageOwnedError, UnknownFamilyError
from schema.record import LEDGER
from schema.settings import Settings, load_settings
from streams.coverage.client import ServiceCoverage, open_coverage, rebuild
from streams.coverage.owner import (
    COMMAND_LIMIT_S,
    SERVICE_FILE,
    ServiceAddress,
    announce,
    coverage_folder,
    ownership,
    service_address,
)
from streams.coverage.service import serve
from tests.broker.recreation import create_again
from tests.streams.ledgers import FAMILY, LedgerWriter, as_folded, entry, folded, random_entry, without_minutes

NAME = FAMILY.name
SERVE = "from feedmill.coverage_commands import app; app()"
START_TIMEOUT_S = 60.0

Answer = tuple[int, dict[str, str], str]


class Service:
    """`feedmill coverage serve` in a separate process."""

    def __init__(self, settings: Settings) -> None:
        variables = {
            "FEEDMILL_NAMESPACE": settings.namespace,
            "FEEDMILL_DATA_DIR": str(settings.data_dir),
            "FEEDMILL_BOOTSTRAP_SERVERS": str(settings.bootstrap_servers),
            "FEEDMILL_COVERAGE_PORT": str(settings.coverage_port),
        }
        self.folder = coverage_folder(settings)
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVE, "serve"],
            env={**os.environ, **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def ready(self) -> str:
        """The URL, once the service prints it."""
        assert self.process.stdout is not None
        lines = []
        for line in self.process.stdout:
            lines.append(line)
            if line.startswith("coverage service at "):
                return line.split()[-1]
        raise AssertionError(f"the service ended: {''.join(lines)}")

    def end(self, number: int) -> int:
        """Send a signal, wait, and return the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        self.process.communicate(timeout=START_TIMEOUT_S)
        return self.process.returncode


@pytest.fixture
def any_port(settings: Settings) -> Settings:
    return settings.model_copy(update={"coverage_port": 0})


@pytest.fixture
def start(any_port: Settings) -> Iterator[Callable[[], Service]]:
    started: list[Service] = []

    def begin() -> Service:
        started.append(Service(any_port))
        return started[-1]

    yield begin
    for service in started:
        service.end(signal.SIGKILL)


@pytest.fixture
def ledger(connection: Connection) -> Iterator[LedgerWriter]:
    writer = LedgerWriter(connection)
    yield writer
    writer.close()


def free_port() -> int:
    with socket.socket() as candidate:
        candidate.bind(("127.0.0.1", 0))
        return int(candidate.getsockname()[1])


def get(url: str, path: str, **headers: str) -> Answer:
    """One GET: (status, headers, body)."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=30)
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read().decode()
    finally:
        connection.close()


def eventually(question: Callable[[], Any], wanted: Any, timeout_s: float = 90.0) -> None:
    deadline = time.monotonic() + timeout_s
    while (found := question()) != wanted:
        assert time.monotonic() < deadline, f"{found} is not {wanted}"
        time.sleep(0.05)


def test_the_service_folds_new_entries_and_answers_over_http(
    start: Callable[[], Service], ledger: LedgerWriter, connection: Connection
) -> None:
    rng = random.Random(1)
    first = [random_entry(rng, n) for n in range(3)]
    ledger.write(first)
    service = start()
    url = service.ready()
    later = [random_entry(rng, n) for n in range(2)]
    ledger.write(later, partition=2)
    wanted = without_minutes(folded(first + later))
    eventually(lambda: as_folded(json.loads(get(url, f"/api/report/{NAME}")[2])), wanted)

    with open_coverage(connection) as coverage:
        assert isinstance(coverage, ServiceCoverage)
        report = coverage.report(NAME)
        assert as_folded(report) == wanted
        assert coverage.gaps(NAME) == report["gaps_to_fill"]
        assert coverage.positions(NAME) == {0: 2, 1: 0, 2: 2, 3: 0}
        with pytest.raises(UnknownFamilyError):
            coverage.report("nosuch")
    assert NAME in json.loads(get(url, "/api/families")[2])
    health = json.loads(get(url, "/api/health")[2])
    assert health == {"status": "ok", "pid": service.process.pid, "namespace": connection.settings.namespace}
    for path in ("report", "gaps", "positions"):
        status, headers, body = get(url, f"/api/{path}/no%3Csuch")
        assert (status, headers["content-type"]) == (404, "application/json; charset=utf-8")
        assert "unknown family 'no<such'" in json.loads(body)["error"]
    assert get(url, "/elsewhere")[0] == 404
    assert service.end(signal.SIGTERM) == 0
    assert service_address(service.folder) is None


def test_killed_again_and_again_it_neither_loses_nor_doubles_a_count(
    start: Callable[[], Service], ledger: LedgerWriter, connection: Connection
) -> None:
    rng = random.Random(2)
    written: list[dict[str, Any]] = []
    for _ in range(3):
        service = start()
        url = service.ready()
        # Written while it folds, so a kill after a random number of them may hit any point of a fold.
        for number in range(rng.randrange(20, 60)):
            entries = [random_entry(rng, number)]
            ledger.write(entries, partition=number % 4)
            written += entries
        assert json.loads(get(url, f"/api/report/{NAME}")[2])["entries"] <= len(written)
        assert service.end(signal.SIGKILL) == -signal.SIGKILL
    url = start().ready()
    eventually(lambda: json.loads(get(url, f"/api/report/{NAME}")[2])["entries"], len(written))
    assert as_folded(json.loads(get(url, f"/api/report/{NAME}")[2])) == without_minutes(folded(written))


def test_a_second_owner_is_refused_and_the_first_is_named(start: Callable[[], Service], connection: Connection) -> None:
    service = start()
    url = service.ready()
    with pytest.raises(CoverageOwnedError, match=f"process {service.process.pid} at {url}"):
        serve(connection, on_ready=print)
    with pytest.raises(CoverageOwnedError):
        rebuild(connection)
    assert get(url, "/api/health")[0] == 200
    assert service.end(signal.SIGINT) == 0
    rebuild(connection)


def test_a_command_waits_for_another_command_to_finish(connection: Connection, ledger: LedgerWriter) -> None:
    ledger.write([entry(rows_in=2, rows_clean=2)])
    script = f"""
import sys
from pathlib import Path
from streams.coverage.owner import ownership
with ownership(Path({str(coverage_folder(connection.settings))!r})):
    print("owned", flush=True)
    sys.stdin.readline()
"""
    other = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None and other.stdout.readline() == "owned\n"
    with pytest.raises(CoverageOwnedError, match="in use by process"), ownership(coverage_folder(connection.settings)):
        pass
    assert other.stdin is not None
    other.stdin.write("\n")
    other.stdin.flush()
    with open_coverage(connection) as coverage:
        assert coverage.report(NAME)["rows_in"] == 2
    assert other.communicate(timeout=30) and other.returncode == 0


def test_a_service_waits_for_a_command_that_owns_the_store(tmp_path: Path) -> None:
    owned = threading.Event()

    def own() -> None:
        with ownership(tmp_path, wait_s=COMMAND_LIMIT_S):
            owned.set()

    waiting = threading.Thread(target=own)
    with ownership(tmp_path):
        waiting.start()
        waiting.join(timeout=0.5)
        assert waiting.is_alive() and not owned.is_set()
    waiting.join(timeout=COMMAND_LIMIT_S)
    assert owned.is_set()


def test_a_stale_service_file_is_ignored(connection: Connection, tmp_path: Path) -> None:
    folder = coverage_folder(connection.settings)
    folder.mkdir(parents=True)
    announce(folder, "http://127.0.0.1:1", connection.settings.namespace)
    assert service_address(folder) is not None
    for pid, started_s in ((os.getpid(), 1.0), (2**22 + 1, time.time())):
        stale = ServiceAddress(pid, started_s, "http://127.0.0.1:1", connection.settings.namespace)
        (folder / SERVICE_FILE).write_text(json.dumps(vars(stale)))
        assert service_address(folder) is None
        with open_coverage(connection) as coverage:
            assert coverage.report(NAME)["rows_in"] == 0
    (folder / SERVICE_FILE).write_text("{")
    assert service_address(folder) is None


def test_a_taken_port_is_replaced_by_a_free_one(settings: Settings) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        service = Service(settings.model_copy(update={"coverage_port": port}))
        try:
            url = service.ready()
            assert urlsplit(url).port != port
            address = service_address(service.folder)
            assert address is not None
            assert (address.pid, address.url) == (service.process.pid, url)
            assert get(url, "/api/health")[0] == 200
        finally:
            service.end(signal.SIGKILL)


def test_a_service_of_another_namespace_and_a_silent_one_are_distinguished(
    start: Callable[[], Service], connection: Connection
) -> None:
    url = start().ready()
    for update, line in (
        ({"namespace": "other", "coverage_url": url}, "serves namespace"),
        ({"coverage_url": "http://127.0.0.1:1"}, "does not answer"),
        ({"coverage_url": "ftp://127.0.0.1"}, "is not an http"),
    ):
        other = Connection(connection.settings.model_copy(update=update), connection.servers)
        with pytest.raises(CoverageError, match=line), open_coverage(other):
            pass


def test_a_ledger_that_cannot_be_folded_is_reported_and_stops_no_other(
    start: Callable[[], Service], ledger: LedgerWriter, connection: Connection
) -> None:
    ledger.write([entry(rows_in=3, rows_clean=3)])
    with open_coverage(connection) as coverage:
        coverage.report(NAME)
    topic = topic_name(connection.settings, "scenario", LEDGER)
    create_again(connection, topic, "scenario")
    url = start().ready()
    ledger.send(b"junk", [])
    ledger.write([entry(1, rows_in=4, rows_clean=4)])
    eventually(lambda: json.loads(get(url, f"/api/report/{NAME}")[2])["rows_in"], 7)
    for path in ("report", "gaps", "positions"):
        status, _, body = get(url, f"/api/{path}/scenario")
        assert status == 503
        assert "was folded from topic" in json.loads(body)["error"]
    assert "was folded from topic" in json.loads(get(url, "/api/health")[2])["troubles"]["scenario"]
    with open_coverage(connection) as coverage:
        assert isinstance(coverage, ServiceCoverage)
        trouble, foreign = coverage.warnings()
        assert "was folded from topic" in trouble
        assert "offset 2" in foreign
    page = get(url, "/")[2]
    assert "figures are old: coverage of scenario was folded from topic" in page
    assert "1 records are no entries and were passed over, the last at offset 2" in page
    metrics = get(url, "/metrics")[2]
    assert 'feedmill_coverage_stale{family="scenario"} 1.0' in metrics
    assert f'feedmill_coverage_stale{{family="{NAME}"}} 0.0' in metrics
    assert f'feedmill_foreign_ledger_records_total{{family="{NAME}"}} 1.0' in metrics


@pytest.mark.slow
def test_folding_goes_on_after_the_broker_was_killed_and_restarted(tmp_path: Path) -> None:
    own = load_settings(data_dir=tmp_path, bootstrap_servers=None, namespace="outage", broker_port=free_port())
    connection = connect(own)
    service = Service(own.model_copy(update={"bootstrap_servers": connection.servers, "coverage_port": 0}))
    try:
        LedgerWriter(connection).write_last([entry(rows_in=1, rows_clean=1)])
        url = service.ready()
        eventually(lambda: json.loads(get(url, f"/api/report/{NAME}")[2])["rows_in"], 1)
        pid = embedded.status(own).pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: json.loads(get(url, "/api/health")[2])["status"].partition(":")[0], "broker unreachable")
        assert connect(own).servers == connection.servers
        LedgerWriter(connection).write_last([entry(rows_in=2, rows_clean=2)])
        eventually(lambda: json.loads(get(url, f"/api/report/{NAME}")[2])["rows_in"], 3)
        assert json.loads(get(url, "/api/health")[2])["status"] == "ok"
        assert service.end(signal.SIGTERM) == 0
    finally:
        service.end(signal.SIGKILL)
        embedded.stop(own)
