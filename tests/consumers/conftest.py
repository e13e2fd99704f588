"""Fixtures of the consumers' tests."""

from __future__ import annotations

from collections.abc import Iterator
from multiprocessing import forkserver, resource_tracker

import pytest

from broker.clients import Connection


@pytest.fixture(autouse=True, scope="session")
def no_process_afterwards() -> Iterator[None]:
    """End the helper processes that multiprocessing keeps for loader workers."""
    yield
    forkserver._forkserver._stop()  # type: ignore[attr-defined]
    resource_tracker._resource_tracker._stop()  # type: ignore[attr-defined]


@pytest.fixture
def clean(connection: Connection) -> Connection:
    """A connection whose clean topic holds rows for runs of the span predictor."""
    # Imports torch, so only the tests that use the fixture wait for it.
    from tests.consumers.span_runs import write_rows

    write_rows(connection)
    return connection
