"""Child services: none outlives its parent, and one that ends by itself is reported with its last log lines."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import psutil
import pytest

from broker.clients import Connection
from feedmill.services import ServiceError, start

_PARENT = """
import sys, time
from schema.settings import load_settings
from feedmill.services import running
settings = load_settings()
with running(settings, settings.bootstrap_servers, workers=2) as services:
    print(*(service.process.pid for service in services), flush=True)
    time.sleep(600)
"""


def test_services_end_with_a_parent_that_is_killed(connection: Connection) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", _PARENT], stdout=subprocess.PIPE, env=connection.settings.environment(connection.servers)
    )
    assert parent.stdout is not None
    children = [psutil.Process(int(pid)) for pid in parent.stdout.readline().split()]
    assert len(children) == 3
    parent.kill()
    parent.wait()
    parent.stdout.close()
    gone, alive = psutil.wait_procs(children, timeout=60)
    for process in alive:
        process.kill()
    assert len(gone) == 3


def test_a_service_that_ends_is_reported_with_its_last_log_lines(
    connection: Connection, request: pytest.FixtureRequest
) -> None:
    service = start(connection.settings, connection.servers, "odd", ["nonsense"])
    request.addfinalizer(service.stop)
    service.process.wait(60)
    with pytest.raises(ServiceError, match=r"the odd ended with status 2: .*nonsense"):
        service.check()


def test_a_killed_worker_is_started_again(connection: Connection, request: pytest.FixtureRequest) -> None:
    service = start(connection.settings, connection.servers, "worker", ["worker"])
    request.addfinalizer(lambda: service.stop())
    assert service.revive() is None
    killed = service.process
    killed.kill()
    killed.wait()
    assert service.revive() is None  # not at once, because the cause may last
    deadline = time.monotonic() + 30
    while (reason := service.revive()) is None:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert "the worker ended with status -9" in reason
    assert service.process.pid != killed.pid
    assert service.process.poll() is None


def test_a_child_gets_all_settings_of_its_parent_and_no_others(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEEDMILL_PARTITIONS", "77")
    environment = connection.settings.environment("host:1")
    assert environment["FEEDMILL_BOOTSTRAP_SERVERS"] == "host:1"
    assert environment["FEEDMILL_NAMESPACE"] == connection.settings.namespace
    assert environment["FEEDMILL_PARTITIONS"] == str(connection.settings.partitions)
    assert environment["PATH"] == os.environ["PATH"]
