"""What stands on `<namespace>.<family>.requests`: the cells that want rows, and how far coverage has counted.

A compacted topic. One key per cell, the cell's label: its value says what is missing, and a tombstone that nothing is.
In each partition the key `accounted` says up to which offset of each raw partition the requests before it have taken
rows into account, and how many rows were written to raw anew by then; whoever sends rows waits until theirs are
accounted for, before it sends more for the same cell.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from schema.errors import RecordError
from schema.family import Family, cell_label

ACCOUNTED = "accounted"

# Ours are some hundred bytes; an account has some for each partition.
_LARGEST_VALUE_BYTES = 64 * 1024
# A producer makes as many rows as it is asked for.
_LARGEST_DEFICIT = 10**9
# What reading a foreign value may raise.
_MALFORMED = (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError)


@dataclass(frozen=True)
class Request:
    """A cell ({axis: bin}) with `count` rows, which wants `deficit` more."""

    cell: Mapping[str, str]
    count: int
    deficit: int

    @property
    def label(self) -> str:
        """The cell's label, the key it is published under."""
        return cell_label(self.cell)

    def encode(self) -> bytes:
        """Return the value of its record."""
        return json.dumps(asdict(self)).encode()


@dataclass(frozen=True)
class Account:
    """How far coverage has counted.

    Attributes:
        raw: {raw partition: the offset below which all records are taken into account}.
        moved: rows that refining, so far, wrote to raw anew (rerouted or augmented): those of records below `raw` stand
            there already, and are counted only where they stand now.
    """

    raw: Mapping[int, int]
    moved: int = 0

    def encode(self) -> bytes:
        """Return the value of its record."""
        offsets = {str(partition): offset for partition, offset in sorted(self.raw.items())}
        return json.dumps({"raw": offsets, "moved": self.moved}).encode()

    def reaches(self, other: Account) -> bool:
        """Whether all that `other` takes into account is in this one too."""
        return all(self.raw.get(partition, 0) >= offset for partition, offset in other.raw.items())


def _read(value: bytes) -> Any:
    if len(value) > _LARGEST_VALUE_BYTES:
        raise ValueError(f"{len(value)} bytes")
    return json.loads(value)


def decode_account(value: bytes) -> Account:
    """Return the account in a record's value.

    Raises:
        RecordError: `malformed_request`.
    """
    try:
        said = _read(value)
        offsets = {int(partition): int(offset) for partition, offset in said["raw"].items()}
        return Account(offsets, int(said.get("moved", 0)))
    except _MALFORMED as error:
        raise RecordError("malformed_request", f"not an account of raw offsets: {error}") from error


def decode_request(value: bytes, family: Family) -> Request:
    """Return the request in a record's value.

    Raises:
        RecordError: `malformed_request` where it is none, or names a cell that `family` does not have.
    """
    try:
        said = _read(value)
        cell = {name: str(said["cell"][name]) for name in family.cell_axes}
        request = Request(cell, int(said["count"]), int(said["deficit"]))
    except _MALFORMED as error:
        raise RecordError("malformed_request", f"not a request: {error}") from error
    unknown = [name for name, bin_ in cell.items() if bin_ not in family.axis(name).bins]
    if unknown or not 1 <= request.deficit <= _LARGEST_DEFICIT:
        raise RecordError("malformed_request", f"no deficit of a cell of {family.name}: {request.label}")
    return request
