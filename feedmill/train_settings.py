"""The settings of `feedmill train reduction`: defaults, the length curriculum, and the values that a resume keeps."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from schema.errors import UsageError

if TYPE_CHECKING:
    from consumers.training.budget import Budget
    from consumers.training.ranks import Ranks

STEPS = 300
# Defaults of a new run.
BATCH_TOKENS = 4096
MAX_TOKENS = 2050
LEARNING_RATE = 3e-3
# Brackets are learnt sooner in short terms, at a fraction of the cost; docs/reduction.md has the figures.
CURRICULUM = [[0.35, 128], [0.65, 384]]
_DEFAULTS: Mapping[str, Any] = {
    "mode": "snapshot",
    "split": "train",
    "batch_size": None,
    "batch_tokens": BATCH_TOKENS,
    "least_rows": None,
    "max_tokens": MAX_TOKENS,
    "seed": 0,
    "curriculum": CURRICULUM,
    "learning_rate": LEARNING_RATE,
}


def parse_curriculum(text: str) -> list[list[float]]:
    """Return `SHARE:TOKENS,...` as [[share, tokens], ...]; `none` as an empty list.

    Raises:
        UsageError: `text` is malformed, or its shares do not increase from above 0 to below 1.
    """
    try:
        stages = [stage.split(":") for stage in text.split(",")] if text != "none" else []
        parsed: list[list[float]] = [[float(share), int(tokens)] for share, tokens in stages]
    except ValueError:
        raise UsageError(
            f"--length-curriculum {text!r} is malformed: give SHARE:TOKENS,... such as 0.3:128,0.6:384, or none"
        ) from None
    shares = [0.0, *(share for share, _ in parsed), 1.0]
    if any(share >= later for share, later in itertools.pairwise(shares)):
        raise UsageError(f"--length-curriculum {text!r} is invalid: its shares must increase, from above 0 to below 1")
    return parsed


def chosen_settings(given: Mapping[str, Any], saved: Mapping[str, Any], ranks: Ranks) -> dict[str, Any]:
    """Return every setting: the given value, else the checkpoint's, else the default. So `--resume` alone changes none.

    Args:
        given: the command's options by name; None for one that is not given.
        saved: the checkpoint's settings; empty for a new run.
        ranks: the ranks of the run, and which one this process is.

    Raises:
        UsageError: the checkpoint's batches may hold fewer rows than there are ranks.
    """
    from consumers.training.options import bf16_is_fast

    settings = {**_DEFAULTS, "bf16": bf16_is_fast(ranks.device), **saved}
    if given["batch_size"] is not None or given["batch_tokens"] is not None:
        settings |= {"batch_size": None, "batch_tokens": None}
    chosen = {name: settings[name] if value is None else value for name, value in given.items()}
    if saved and given["least_rows"] is None and chosen["least_rows"] < ranks.world:
        raise UsageError(
            f"the run's batches hold at least {chosen['least_rows']} rows, too few for {ranks.world} ranks: resume "
            f"with at most {chosen['least_rows']} ranks, or begin a new run with --least-rows {ranks.world}"
        )
    if not saved and given["batch_size"] is None and given["batch_tokens"] is None:
        # Every rank needs a row of each batch, the longest rows included.
        chosen["batch_tokens"] = max(BATCH_TOKENS, (chosen["least_rows"] or ranks.world) * chosen["max_tokens"])
    # Drop stages that leave out no more terms than the whole run does.
    stages = [[share, tokens] for share, tokens in chosen["curriculum"] if tokens < chosen["max_tokens"]]
    return {**chosen, "curriculum": stages}


def budget_of(steps: int | None, minutes: float | None, saved: Mapping[str, Any]) -> Budget:
    """Return the given limits of a run, else those of the checkpoint, else the default."""
    from consumers.training.budget import Budget

    if steps is None and minutes is None:
        return Budget(**saved["budget"]) if saved else Budget(steps=STEPS)
    return Budget(steps=steps, seconds=None if minutes is None else 60 * minutes)
