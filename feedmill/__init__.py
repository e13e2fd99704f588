"""The public API of Feedmill; the modules hold its command line, the demo and the doctor.

::

    from feedmill import Feed, connect, load_settings, produce, replay

docs/python-api.md has an example of each name. A name is imported on first use, so that `import feedmill` loads neither
torch nor Kafka.
"""

from __future__ import annotations

import warnings
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from broker.clients import Connection, connect
    from consumers.feed import Curriculum, Feed, FeedOptions, Source
    from consumers.form_options import FormOptions
    from consumers.ledger import read_ledger
    from consumers.packed_rows import block_diagonal_mask
    from consumers.replay.topic_range import replay
    from consumers.replay.training_run import replay_run
    from feedmill.python_api import coverage_report, forget, produce
    from producers.reduction.run import ReductionRun
    from producers.source_code.run import CodeRun
    from schema.errors import FeedmillError
    from schema.settings import Settings, load_settings
    from streams.drain import drain

_MODULES = {
    "CodeRun": "producers.source_code.run",
    "Connection": "broker.clients",
    "Curriculum": "consumers.feed",
    "Feed": "consumers.feed",
    "FeedOptions": "consumers.feed",
    "FeedmillError": "schema.errors",
    "FormOptions": "consumers.form_options",
    "ReductionRun": "producers.reduction.run",
    "Settings": "schema.settings",
    "Source": "consumers.feed",
    "block_diagonal_mask": "consumers.packed_rows",
    "connect": "broker.clients",
    "coverage_report": "feedmill.python_api",
    "drain": "streams.drain",
    "forget": "feedmill.python_api",
    "load_settings": "schema.settings",
    "produce": "feedmill.python_api",
    "read_ledger": "consumers.ledger",
    "replay": "consumers.replay.topic_range",
    "replay_run": "consumers.replay.training_run",
}

__all__ = [
    "CodeRun",
    "Connection",
    "Curriculum",
    "Feed",
    "FeedOptions",
    "FeedmillError",
    "FormOptions",
    "ReductionRun",
    "Settings",
    "Source",
    "block_diagonal_mask",
    "connect",
    "coverage_report",
    "drain",
    "forget",
    "load_settings",
    "produce",
    "read_ledger",
    "replay",
    "replay_run",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'feedmill' has no attribute {name!r}")
    with warnings.catch_warnings():
        # kafka-python reads its own files in a way that Python 3.11 deprecates.
        warnings.simplefilter("ignore", DeprecationWarning)
        module = import_module(_MODULES[name])
    return getattr(module, name)
