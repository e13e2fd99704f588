"""The front door: the command line, the demo, the doctor, and the public API.

::

    from feedmill import Feed, connect, load_settings, replay

The names load when first used, so that `import feedmill` pulls neither torch nor Kafka.
"""

from __future__ import annotations

import warnings
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from broker.clients import Connection, connect
    from consumers.feed import Curriculum, Feed, FeedOptions, Source
    from consumers.replay.run import replay_run
    from consumers.replay.topic_range import replay
    from producers.reduction.run import ReductionRun, produce
    from schema.errors import FeedmillError
    from schema.settings import Settings, load_settings

_HOMES = {
    "Connection": "broker.clients",
    "Curriculum": "consumers.feed",
    "Feed": "consumers.feed",
    "FeedOptions": "consumers.feed",
    "FeedmillError": "schema.errors",
    "ReductionRun": "producers.reduction.run",
    "Settings": "schema.settings",
    "Source": "consumers.feed",
    "connect": "broker.clients",
    "load_settings": "schema.settings",
    "produce": "producers.reduction.run",
    "replay": "consumers.replay.topic_range",
    "replay_run": "consumers.replay.run",
}

__all__ = [
    "Connection",
    "Curriculum",
    "Feed",
    "FeedOptions",
    "FeedmillError",
    "ReductionRun",
    "Settings",
    "Source",
    "connect",
    "load_settings",
    "produce",
    "replay",
    "replay_run",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'feedmill' has no attribute {name!r}")
    with warnings.catch_warnings():
        # kafka-python reads its own files in a way that Python 3.11 deprecates.
        warnings.simplefilter("ignore", DeprecationWarning)
        home = import_module(_HOMES[name])
    return getattr(home, name)
