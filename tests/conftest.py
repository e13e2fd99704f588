"""Fixtures for all tests: one real Kafka for the whole session, a namespace and a folder for each test.

If the broker cannot start, the tests that need it fail; no test is skipped. Only `--fast` leaves tests out: those that
need the broker, those that import torch, and those marked `slow`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
import warnings
from collections.abc import Iterator, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import hypothesis
import pytest

from schema.settings import Settings, load_settings

with warnings.catch_warnings():
    # kafka-python reads its resources with a function that Python 3.11 deprecates.
    warnings.simplefilter("ignore", DeprecationWarning)
    import kafka  # noqa: F401

from broker.clients import Connection, connect
from broker.kraft import HOST
from broker.ports import free_port
from broker.topics import delete_topics, list_topics

# One thread for torch, here and in child processes: small models gain nothing from a second one, and on a machine where
# all cores are busy they wait for it. Torch reads this when it is imported.
os.environ["OMP_NUM_THREADS"] = "1"

# The first call of compiled code includes its compilation, which a deadline would count as a failure.
hypothesis.settings.register_profile("feedmill", deadline=None)
hypothesis.settings.load_profile("feedmill")


# This process reads a pipe from the test session. The end of the session closes the pipe, even after kill -9, and then
# this process stops the broker.
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
    # nohup ignores this signal, and the tested commands would inherit that.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name bytes by their argument: compressed bytes hold the time, but all processes of a run need the same names."""
    return argname if isinstance(val, bytes) else None


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--kill-rows", type=int, default=120_000, help="Rows under which workers are killed.")
    parser.addoption("--fast", action="store_true", help="Leave out tests that need Kafka or torch, and slow ones.")


class SlowImports:
    """An import hook for `--fast`: a test module that imports torch is skipped with that reason, not imported."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Skip the importing test if `name` is torch or imports it; leave any other import to Python."""
        if name in ("torch", "transformers"):
            pytest.skip("it imports torch: `make test` runs it", allow_module_level=True)
        return None


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--fast"):
        sys.meta_path.insert(0, SlowImports())


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect the tests that need the broker or are marked `slow`, if `--fast` is given."""
    if config.getoption("--fast"):
        slow = {
            item for item in items if "broker" in getattr(item, "fixturenames", ()) or item.get_closest_marker("slow")
        }
        config.hook.pytest_deselected(items=list(slow))
        items[:] = [item for item in items if item not in slow]


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The bootstrap servers of an embedded Kafka that runs as long as the session."""
    # Not on 9092, which a user's own broker may need.
    arguments = [str(tmp_path_factory.mktemp("broker")), str(free_port(HOST))]
    keeper = subprocess.Popen(
        [sys.executable, "-c", KEEPER, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[1],
        # Ctrl-C must not reach the broker, because the tests still need it for their cleanup.
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
    """Settings with a namespace on the session's broker and a data folder for this test only."""
    yield load_settings(namespace=f"test-{uuid.uuid4().hex[:12]}", data_dir=tmp_path / "data", bootstrap_servers=broker)


@pytest.fixture
def connection(settings: Settings) -> Iterator[Connection]:
    """A connection for `settings`; the topics of its namespace are deleted after the test."""
    test_connection = connect(settings)
    yield test_connection
    names = list_topics(test_connection)
    if names:
        delete_topics(test_connection, names)
