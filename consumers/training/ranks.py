"""The ranks of a training run: this process alone, or one of the processes that `torchrun` started.

`joined` reads the environment that `torchrun` sets, and gives `Ranks`: gloo between CPUs, nccl between GPUs. Ranks
exchange all values through it; a single rank sends nothing.
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

# A rank waits this long for another one, which may be judging held-out rows or writing a checkpoint. Then it fails, and
# torchrun ends the others.
_PATIENCE = timedelta(minutes=5)

Value = TypeVar("Value")


@dataclass(frozen=True)
class Ranks:
    """This process and its place among the ranks of a run.

    Attributes:
        rank: number of this rank, from 0; rank 0 prints and writes for all.
        world: number of ranks.
        device: device of this rank's model.
        store: key-value store for messages outside of steps; None for a single rank.
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

        The value is sent as JSON, because torch's own functions for objects unpickle data from the network.
        """
        if self.world == 1:
            return value
        text = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
        size = torch.tensor([len(text) if self.first else 0], device=self.device)
        dist.broadcast(size, src=0)
        received = text.to(self.device) if self.first else torch.empty(int(size), dtype=torch.uint8, device=self.device)
        dist.broadcast(received, src=0)
        return cast(Value, json.loads(received.cpu().numpy().tobytes()))

    def gather(self, value: Value) -> list[Value]:
        """Return the values of all ranks, made of JSON values, in the order of the ranks, on every rank."""
        if self.world == 1:
            return [value]
        text = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8).to(self.device)
        sizes = [torch.empty(1, dtype=torch.int64, device=self.device) for _ in range(self.world)]
        dist.all_gather(sizes, torch.tensor([len(text)], device=self.device))
        longest = max(int(size) for size in sizes)
        texts = [torch.empty(longest, dtype=torch.uint8, device=self.device) for _ in range(self.world)]
        dist.all_gather(texts, torch.nn.functional.pad(text, (0, longest - len(text))))
        return [json.loads(each[: int(size)].cpu().numpy().tobytes()) for each, size in zip(texts, sizes, strict=True)]

    def from_first(self, make: Callable[[], Value]) -> Value:
        """Call `make` on rank 0 and return its result, made of JSON values, on every rank.

        If rank 0 fails with a `FeedmillError`, the others end with its exit status, and only rank 0 prints the line.
        """
        if self.world == 1:
            return make()
        if not self.first:
            value, status = self.share(cast(list[Any], None))
            if status:
                raise SystemExit(status)
            return cast(Value, value)
        try:
            result = make()
        except FeedmillError as error:
            self.share([None, error.exit_status])
            raise
        self.share([result, 0])
        return result

    def publish(self, key: str, text: str) -> None:
        """Store a text under a key for every rank, without waiting for them."""
        if self.store is not None:
            self.store.set(key, text)

    def look(self, key: str) -> str | None:
        """Return the text that a rank has published under a key; None if there is no text yet."""
        if self.store is None or not self.store.check([key]):
            return None
        return self.store.get(key).decode()

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """Return the sum of `values` over all ranks, on the CPU."""
        if self.world == 1:
            return values.cpu()
        total = values.to(self.device)
        dist.all_reduce(total)
        return total.cpu()

    def wrap(self, model: nn.Module) -> nn.Module:
        """Return `model` wrapped so that its gradients are averaged over the ranks."""
        if self.world == 1:
            return model
        places = [self.device.index] if self.device.type == "cuda" else None
        # torch declares no type for the constructor.
        return cast(nn.Module, DistributedDataParallel(model, device_ids=places))


ALONE = Ranks()


@contextmanager
def joined() -> Iterator[Ranks]:
    """Join the ranks that `torchrun` started, or run as a single rank; leave them when the context ends.

    A single rank uses the first GPU, if there is one. Ranks of `torchrun` use one GPU each.
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
