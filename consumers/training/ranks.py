"""Where this process stands among those that train together: alone, or one rank of a `torchrun` group.

`joined` takes nothing but the environment that `torchrun` makes, and gives `Ranks`: gloo between CPUs, nccl between
GPUs. Everything that ranks tell one another goes through it; with one rank nothing is sent.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from schema.errors import FeedmillError

# A rank waits this long for another, which may be judging held-out rows or writing a checkpoint; then it fails, and
# torchrun ends the rest.
_PATIENCE = timedelta(minutes=5)

Value = TypeVar("Value")


@dataclass(frozen=True)
class Ranks:
    """This process among its fellows.

    Attributes:
        rank: from 0; rank 0 prints and writes for all.
        world: how many there are.
        device: where this rank's model lives.
        store: what ranks tell one another outside of steps; None for a rank alone.
    """

    rank: int = 0
    world: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    store: Store | None = None

    @property
    def first(self) -> bool:
        """Whether this is the rank that prints and writes."""
        return self.rank == 0

    def share(self, value: Value) -> Value:
        """Return rank 0's `value`, made of JSON values, on every rank.

        It travels as JSON. torch's own way of sending objects unpickles whatever comes over the network.
        """
        if self.world == 1:
            return value
        text = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
        size = torch.tensor([len(text) if self.first else 0], device=self.device)
        dist.broadcast(size, src=0)
        held = text.to(self.device) if self.first else torch.empty(int(size), dtype=torch.uint8, device=self.device)
        dist.broadcast(held, src=0)
        return cast(Value, json.loads(held.cpu().numpy().tobytes()))

    def from_first(self, make: Callable[[], Value]) -> Value:
        """Return what rank 0 makes, JSON values, on every rank.

        Where rank 0 fails with a `FeedmillError` the others end with its exit status, and leave the line to it.
        """
        if self.world == 1:
            return make()
        if not self.first:
            value, status = self.share(cast(list[Any], None))
            if status:
                raise SystemExit(status)
            return cast(Value, value)
        try:
            made = make()
        except FeedmillError as error:
            self.share([None, error.exit_status])
            raise
        self.share([made, 0])
        return made

    def tell(self, key: str, text: str) -> None:
        """Let every rank see a text under a key; nobody is waited for."""
        if self.store is not None:
            self.store.set(key, text)

    def look(self, key: str) -> str | None:
        """Return the text that a rank told under a key; None so far."""
        if self.store is None or not self.store.check([key]):
            return None
        return self.store.get(key).decode()

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """Return `values` added up over all ranks; it comes back on the CPU."""
        if self.world == 1:
            return values.cpu()
        total = values.to(self.device)
        dist.all_reduce(total)
        return total.cpu()

    def wrap(self, model: nn.Module) -> nn.Module:
        """Return `model` such that its gradients are averaged over the ranks."""
        if self.world == 1:
            return model
        places = [self.device.index] if self.device.type == "cuda" else None
        # torch's own types leave the constructor without one.
        return cast(nn.Module, DistributedDataParallel(model, device_ids=places))


ALONE = Ranks()


@contextmanager
def joined() -> Iterator[Ranks]:
    """Join the group that `torchrun` started this process in, or stand alone; leave it in the end.

    The first GPU is used where there is one, and by a group each rank its own.
    """
    if not dist.is_available() or not dist.is_torchelastic_launched():
        yield Ranks(device=torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu"))
        return
    device = torch.device("cpu")
    if torch.cuda.is_available():
        device = torch.device("cuda", dist.get_node_local_rank())
        torch.cuda.set_device(device)
    store, rank, world = next(rendezvous("env://", timeout=_PATIENCE))
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=_PATIENCE)
    try:
        yield Ranks(rank, world, device, PrefixStore("feedmill", store))
    finally:
        dist.destroy_process_group()
