"""Fixtures that every test may use: one real Kafka for the whole session, a namespace and a folder for each test.

A broker that cannot start fails the tests that need it; nothing is skipped for want of it.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import uuid
import warnings
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from schema.settings import Settings, load_settings

with warnings.catch_warnings():
    # kafka-python reads its own resources by a way that Python 3.11 deprecates.
    warnings.simplefilter("ignore", DeprecationWarning)
    import kafka  # noqa: F401

from broker.clients import Connection, connect
from broker.kraft import HOST
from broker.ports import free_port
from broker.topics import delete_topics, list_topics

# The first call of compiled code takes as long as compiling it; a deadline would make that a failure.
hypothesis.settings.register_profile("feedmill", deadline=None)
hypothesis.settings.load_profile("feedmill")


# However a test session ends, even by kill -9, its end closes the pipe that this process reads, which then ends the
# broker.
KEEPER = """
import sys
from pathlib import Path
from broker import embedded
from schema.settings import load_settings
settings = load_settings(data_dir=Path(sys.argv[1]), broker_port=int(sys.argv[2]), bootstrap_servers=None)
try:
    print(embedded.start(settings).servers, flush=True)
    sys.stdin.read()
finally:
    embedded.stop(settings)
"""


if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    # Under nohup; commands that are tested would inherit it.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name bytes by their argument: compressed ones hold the time, and all processes of a run must give one name."""
    return argname if isinstance(val, bytes) else None


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--kill-rows", type=int, default=120_000, help="Rows under which workers are killed.")


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The bootstrap servers of an embedded Kafka that lives as long as the session."""
    # Not on 9092, where a user's own broker may be wanted.
    arguments = [str(tmp_path_factory.mktemp("broker")), str(free_port(HOST))]
    keeper = subprocess.Popen(
        [sys.executable, "-c", KEEPER, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[1],
        # Ctrl-C is for the tests, which still need the broker to tidy up.
        start_new_session=True,
    )
    assert keeper.stdout is not None
    servers = keeper.stdout.readline().strip()
    if not servers:
        keeper.communicate()
        pytest.fail(f"the session's broker did not start (status {keeper.returncode}): its error is on stderr")
    yield servers
    keeper.communicate()


@pytest.fixture
def settings(broker: str, tmp_path: Path) -> Iterator[Settings]:
    """Settings of this test's own: its namespace on the session's broker, its data folder."""
    yield load_settings(namespace=f"test-{uuid.uuid4().hex[:12]}", data_dir=tmp_path / "data", bootstrap_servers=broker)


@pytest.fixture
def connection(settings: Settings) -> Iterator[Connection]:
    """A connection for `settings`; the topics made in its namespace go with the test."""
    made = connect(settings)
    yield made
    names = list_topics(made)
    if names:
        delete_topics(made, names)
