"""States of torch's random generators, of CPU and GPU and of every rank, as text for a checkpoint.

Ranks draw different numbers (dropout must differ between them), so each rank has a state of its own. A resumed run with
the same number of ranks gets all states back. A rank that the checkpoint does not know begins from the seed, its number
and the step.
"""

from __future__ import annotations

import base64

import numpy as np
import torch

from consumers.training.ranks import Ranks

# Name of the state of rank 0's CPU.
FIRST = "rank-0-cpu"


def random_states(ranks: Ranks) -> dict[str, str]:
    """Return the states of all ranks by name (`rank-0-cpu`, `rank-0-gpu`, ...); every rank must call this."""
    own = {f"rank-{ranks.rank}-cpu": _text(torch.get_rng_state())}
    if ranks.device.type == "cuda":
        own[f"rank-{ranks.rank}-gpu"] = _text(torch.cuda.get_rng_state(ranks.device))
    return {name: state for states in ranks.gather(own) for name, state in states.items()}


def set_random_states(states: dict[str, str], ranks: Ranks) -> None:
    """Set this rank's generators to its states from `random_states`; a generator without a state keeps its own.

    Raises:
        ValueError, RuntimeError: a state is invalid.
    """
    if (cpu := states.get(f"rank-{ranks.rank}-cpu")) is not None:
        torch.set_rng_state(_tensor(cpu))
    if ranks.device.type == "cuda" and (gpu := states.get(f"rank-{ranks.rank}-gpu")) is not None:
        torch.cuda.set_rng_state(_tensor(gpu), ranks.device)


def seed_rank(seed: int, ranks: Ranks, step: int) -> None:
    """Seed the generators of a rank other than 0, so that each rank draws its own numbers from `step` on."""
    if not ranks.first:
        (own,) = np.random.SeedSequence((seed, ranks.rank, step)).generate_state(1, np.uint64)
        torch.manual_seed(int(own))


def _text(state: torch.Tensor) -> str:
    return base64.b64encode(state.numpy().tobytes()).decode()


def _tensor(text: str) -> torch.Tensor:
    return torch.frombuffer(bytearray(base64.b64decode(text)), dtype=torch.uint8)
