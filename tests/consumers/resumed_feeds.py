"""Feeds with all orders and ways of cutting, and their states, for the tests of resumed feeds."""

from __future__ import annotations

import json
from typing import Any

from broker.clients import Connection
from consumers.feed import Feed, FeedOptions, Source
from tests.consumers import ways

COUNT = 500
OLD = "old"

WAYS: dict[str, dict[str, Any]] = ways.WAYS | {
    "bucketed": {"batch_size": 16, "shuffle_seed": 4, "window_rows": 100, "bucket": True},
    "bytes": {"batch_size": 8, "shuffle_seed": 9, "window_rows": 300, "window_bytes": 25_000, "bucket": True},
    "mixed": {
        "batch_size": 10,
        "shuffle_seed": 8,
        "window_rows": 50,
        "sources": (Source(weight=0.8), Source(namespace=OLD, weight=0.2, repeat=True)),
    },
}


def feed(connection: Connection, way: dict[str, Any], **options: Any) -> Feed:
    given = dict(way)
    named = {name: given.pop(name) for name in ("batch_size", "shuffle_seed") if name in given}
    # Blocks of about 30 rows, so that a pass has several blocks and windows begin within blocks.
    chosen = FeedOptions(**{"block_rows": 32, **given, **options})
    return Feed(connection, "reduction", split=None, **named, options=chosen)


def saved(source: Any) -> dict[str, Any]:
    """The state as a checkpoint keeps it."""
    text = json.dumps(source.state_dict())
    assert len(text) < 3000
    state: dict[str, Any] = json.loads(text)
    return state


def on(fresh: Feed, state: dict[str, Any]) -> Feed:
    fresh.load_state_dict(state)
    return fresh
