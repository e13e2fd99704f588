"""The processes of a storm: broker, two workers, coverage service and an ordinary producer; faults are done to them.

A thread restarts every process that ends, as `feedmill up` does. When the context ends, no process is left running.
"""

from __future__ import annotations

import os
import signal
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from bench.storm import faults
from bench.storm.faults import STOP, InjectedFault
from broker import embedded
from broker.clients import Connection, connect
from broker.kraft import HOST
from broker.ports import free_port
from broker.topics import ensure_topics
from feedmill.services import Service, start
from schema.settings import Settings, load_settings

PARTITIONS = 4
_WORKERS = 2
_PRODUCER_ROWS = 20_000
_LOOK_INTERVAL_S = 0.3
_LOG_TAIL = 400


@dataclass
class Crew:
    """All processes of a storm.

    Attributes:
        connection: connection to the storm's own broker.
        ends: {name and exit status: times} of processes that ended without being killed.
        last_words: the last log lines before the latest end, by the same keys.
    """

    connection: Connection
    broker: Settings
    folder: Path
    services: dict[str, Service] = field(default_factory=dict)
    ends: Counter[str] = field(default_factory=Counter)
    last_words: dict[str, str] = field(default_factory=dict)
    runs: int = 0
    _killed: set[int] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _over: threading.Event = field(default_factory=threading.Event)
    _producing: bool = True

    def start(self) -> None:
        """Start the workers, the coverage service and the producer, and keep them running from now on."""
        settings, servers = self.connection.settings, self.connection.servers
        self.services["coverage"] = start(settings, servers, "coverage", ["coverage", "serve"])
        for number in range(_WORKERS):
            order = [str(self._order(number))]
            name = f"worker-{number}"
            self.services[name] = start(settings, servers, name, order, module="bench.storm.worker")
        self._start_producer()
        threading.Thread(target=self._keep_running, name="storm-crew", daemon=True).start()

    def strike(self, fault: InjectedFault) -> None:
        """Inject `fault` and wait as long as it lasts; a killed broker is up again when this returns."""
        worker = f"worker-{fault.target}"
        if fault.kind in (faults.WORKER_KILL, faults.COVERAGE_KILL):
            self._kill(worker if fault.kind == faults.WORKER_KILL else "coverage")
        elif fault.kind == faults.COMMIT_FAILURE:
            self._order(fault.target).write_text(STOP)
        elif fault.kind == faults.BROKER_KILL:
            os.kill(self._broker_pid(), signal.SIGKILL)
            time.sleep(fault.lasts_s)
            embedded.start(self.broker)
        else:
            pid = self._broker_pid() if fault.kind == faults.BROKER_PAUSE else 0
            with self._lock:
                if not pid:
                    pid = self.services[worker if fault.kind == faults.WORKER_PAUSE else "coverage"].process.pid
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
                time.sleep(fault.lasts_s)
                os.kill(pid, signal.SIGCONT)

    def stop_producing(self) -> None:
        """Stop the ordinary producer, without a restart."""
        with self._lock:
            self._producing = False
            producer = self.services.pop("producer")
        producer.stop()

    def stop(self) -> None:
        """Stop every process, including those that a fault left paused."""
        self._over.set()
        with self._lock:
            services = list(self.services.values())
            self.services.clear()
        for service in services:
            with suppress(psutil.Error):
                psutil.Process(service.process.pid).resume()
            service.stop()

    def _kill(self, name: str) -> None:
        with self._lock:
            process = self.services[name].process
            self._killed.add(process.pid)
            process.kill()

    def _order(self, number: int) -> Path:
        return self.folder / f"order-{number}"

    def _broker_pid(self) -> int:
        pid = embedded.status(self.broker).pid
        if pid is None:
            pid = embedded.start(self.broker).pid
        assert pid is not None  # noqa: S101  a broker that was started has one
        return pid

    def _start_producer(self) -> None:
        self.runs += 1
        arguments = ["produce", "reduction", "--count", str(_PRODUCER_ROWS), "--seed", str(1000 + self.runs)]
        settings, servers = self.connection.settings, self.connection.servers
        self.services["producer"] = start(settings, servers, "producer", arguments)

    def _keep_running(self) -> None:
        while not self._over.wait(_LOOK_INTERVAL_S):
            with self._lock:
                for name, service in list(self.services.items()):
                    status = service.process.poll()
                    if status is None or self._over.is_set():
                        continue
                    if service.process.pid not in self._killed and (name, status) != ("producer", 0):
                        self.ends[f"{name} with status {status}"] += 1
                        self.last_words[f"{name} with status {status}"] = service.last_words()[-_LOG_TAIL:]
                    if service.process.stdin is not None:
                        service.process.stdin.close()
                    if name == "producer":
                        if self._producing:
                            self._start_producer()
                    else:
                        service.process = service.launch(service.servers)


@contextmanager
def crew(keep_logs: Path | None = None) -> Iterator[Crew]:
    """Give a crew on a broker of its own in a new folder; both are deleted afterwards.

    If `keep_logs` names a folder, the logs stay there.
    """
    with tempfile.TemporaryDirectory(prefix="feedmill-storm-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        data_dir = folder if keep_logs is None else keep_logs
        # A storm uses its own Kafka, whatever the user has configured.
        own = load_settings(
            bootstrap_servers=None,
            security_protocol="PLAINTEXT",
            coverage_url=None,
            data_dir=folder / "broker",
            broker_port=free_port(HOST),
        )
        servers = embedded.start(own).servers
        assert servers is not None  # noqa: S101  a broker that was started has servers
        settings = own.model_copy(
            update={
                "namespace": "storm",
                "bootstrap_servers": servers,
                "data_dir": data_dir,
                "partitions": PARTITIONS,
                "coverage_port": 0,
                # Small groups of raw records mean many commits, so that faults hit some.
                "refine_group_records": 8,
            }
        )
        running: Crew | None = None
        try:
            connection = connect(settings)
            ensure_topics(connection, ["reduction", "scenario"])
            running = Crew(connection, own, folder)
            yield running
        finally:
            if running is not None:
                running.stop()
            with suppress(psutil.Error):
                pid = embedded.status(own).pid
                if pid is not None:
                    psutil.Process(pid).resume()
            embedded.stop(own)
