"""Fixtures of the consumers' tests."""

from __future__ import annotations

from collections.abc import Iterator
from multiprocessing import forkserver, resource_tracker

import pytest


@pytest.fixture(autouse=True, scope="session")
def no_process_afterwards() -> Iterator[None]:
    """End the helper processes that multiprocessing keeps for loader workers."""
    yield
    forkserver._forkserver._stop()  # type: ignore[attr-defined]
    resource_tracker._resource_tracker._stop()  # type: ignore[attr-defined]
