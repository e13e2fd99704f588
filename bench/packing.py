"""`feedmill bench packing`: planning of a window whose rows hold several sequences, and the padding that is left.

The lengths are random, 16 to 1,024 tokens, or those of composed scenarios, drawn again up to the same number. The peers
are the planner without packing, and the packing planner with other rows and lengths. No broker and no tensors.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from consumers.scenario.form import FORM
from consumers.sequence.packing import plan_packed
from consumers.sequence.planning import BatchShape, plan
from producers.run import generate
from producers.scenario.run import ScenarioRun

_ROWS = 262_144
_SCENARIOS = 5_000
_SEEDS = (3, 0, 0)
_BATCH_ROWS = 64
_TRIALS = 3
# A packed row of each length, in tokens.
_ROW_TOKENS = (1024, 2048, 4096, 8192)
_SHAPE = BatchShape(_BATCH_ROWS, None, bucket=False)

Lengths = npt.NDArray[np.int64]
Planned = TypeVar("Planned")


def run(rows: int = _ROWS) -> dict[str, Any]:
    """Return the rate of planning `rows` random lengths in packed rows of 2,048 tokens, with the peers named above.

    Keys: name, rate, unit, elapsed_s, rows, padding_share, and peers, a list of such objects.
    """
    draw = np.random.default_rng(_SEEDS[0])
    uniform = draw.integers(16, 1025, rows)
    composed = [frame.select(FORM.tokens.alias("n"))["n"].to_numpy() for frame in generate(ScenarioRun(_SCENARIOS, 3))]
    measured = {
        "random lengths": uniform,
        "log-normal lengths": np.clip(draw.lognormal(6, 0.8, rows), 10, 2048).astype(np.int64),
        "scenarios": draw.choice(np.concatenate(composed), rows),
    }
    peers = [
        figures
        for name, tokens in measured.items()
        for figures in (_unpacked(name, tokens), *(_packed(name, tokens, each) for each in _ROW_TOKENS))
        if figures is not None
    ]
    own = _packed("random lengths", uniform, 2048)
    assert own is not None  # noqa: S101  # no length is above 2,048; for the type checker
    for peer in peers:
        peer["ratio"] = own["rate"] / peer["rate"]
    return {**own, "peers": peers}


def _packed(name: str, tokens: Lengths, row_tokens: int) -> dict[str, Any] | None:
    """Return the figures of packed planning; None if a sequence fits no row."""
    if tokens.max() > row_tokens:
        return None
    elapsed_s, batches = _timed(lambda: plan_packed(tokens, row_tokens, _SHAPE, _SEEDS, None))
    places = row_tokens * sum(batch.rows for batch in batches)
    return _figures(f"{name}, packed in rows of {row_tokens:,} tokens", tokens, elapsed_s, places)


def _unpacked(name: str, tokens: Lengths) -> dict[str, Any]:
    elapsed_s, batches = _timed(lambda: plan(tokens, _SHAPE, _SEEDS, None))
    places = sum(len(batch) * int(tokens[batch].max()) for batch in batches)
    return _figures(f"{name}, a row each, batches of {_BATCH_ROWS}", tokens, elapsed_s, places)


def _timed(planned: Callable[[], list[Planned]]) -> tuple[float, list[Planned]]:
    """Return the least CPU time of some calls, after one to warm up, and the result."""
    batches = planned()
    times = []
    for _ in range(_TRIALS):
        began = time.process_time()
        batches = planned()
        times.append(time.process_time() - began)
    return min(times), batches


def _figures(name: str, tokens: Lengths, elapsed_s: float, places: int) -> dict[str, Any]:
    return {
        "name": name,
        "rate": len(tokens) / elapsed_s,
        "unit": "sequences/CPU s",
        "elapsed_s": elapsed_s,
        "rows": len(tokens),
        "padding_share": round(1 - int(tokens.sum()) / places, 4),
    }
