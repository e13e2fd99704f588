"""Orders and ways of cutting a feed, with small sizes, so that a pass has several windows."""

from __future__ import annotations

from typing import Any

from consumers.feed import Curriculum

# Arguments and options of `Feed`, by name of the way.
WAYS: dict[str, dict[str, Any]] = {
    "plain": {"batch_size": 16},
    "shuffled": {"batch_size": 16, "shuffle_seed": 3, "window_rows": 100},
    "tokens": {"batch_tokens": 900, "max_tokens": 300, "shuffle_seed": 5, "window_rows": 120, "bucket": True},
    "filtered": {"batch_size": 8, "shuffle_seed": 6, "window_rows": 64, "where": "size % 2 = 0", "max_tokens": 120},
    "curriculum": {
        "batch_size": 16,
        "shuffle_seed": 7,
        "window_rows": 60,
        "curriculum": Curriculum(column="size", edges=(20, 60), cumulative=True),
        "max_tokens": 150,
    },
}
