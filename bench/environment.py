"""The environment of a benchmark of services: a Kafka, and a fresh namespace and data folder, deleted afterwards."""

from __future__ import annotations

import os
import tempfile
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from broker import embedded
from broker.clients import Connection, connect
from broker.topics import delete_topics, ensure_topics, list_topics
from schema.settings import load_settings

_SAMPLE_INTERVAL_S = 0.2


@contextmanager
def fresh_environment(family: str, partitions: int) -> Iterator[Connection]:
    """Yield a connection to the configured or embedded Kafka in a fresh namespace with the topics of `family`.

    An embedded broker is started if necessary, and only then stopped. Topics and folder are deleted at the end.
    """
    user = load_settings()
    started = user.bootstrap_servers is None and not embedded.status(user).running
    servers = connect(user).servers
    try:
        with tempfile.TemporaryDirectory(prefix="feedmill-bench-") as folder:
            settings = user.model_copy(
                update={
                    "namespace": f"bench-{uuid.uuid4().hex[:8]}",
                    "bootstrap_servers": servers,
                    "data_dir": Path(folder),
                    "partitions": partitions,
                    "coverage_port": 0,
                }
            )
            connection = Connection(settings, servers)
            ensure_topics(connection, [family])
            try:
                yield connection
            finally:
                delete_topics(connection, list_topics(connection))
    finally:
        if started:
            embedded.stop(user)


@contextmanager
def on_cores(cores: set[int] | None) -> Iterator[None]:
    """Pin child processes to these cores, if the system can pin processes; None pins nothing."""
    if cores is None or not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores & before or before)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class ProcessUsage:
    """The peak resident memory (bytes) and the CPU time (s) of a process, sampled until `stop`."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self._done = threading.Event()
        self.peak_rss_bytes = 0
        self.cpu_s = 0.0
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def _sample(self) -> None:
        while not self._done.wait(_SAMPLE_INTERVAL_S):
            try:
                self.peak_rss_bytes = max(self.peak_rss_bytes, self._process.memory_info().rss)
                times = self._process.cpu_times()
                self.cpu_s = times.user + times.system
            except psutil.NoSuchProcess:
                return

    def stop(self) -> None:
        """Take no more samples."""
        self._done.set()
        self._thread.join()
