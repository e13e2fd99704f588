"""The records of `<namespace>.<family>.requests`: cells that need rows, and the raw offsets that coverage has counted.

The topic is compacted. A request has the cell's label as its key and the missing rows in its value; a tombstone means
that no rows are missing. In each partition the key `accounted` holds an account: up to which offset of each raw
partition the requests before it count rows. It also has the number of rows that refining had written back to raw by
then. A producer waits until its own rows are counted before it sends more rows for the same cell.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from schema.errors import RecordError
from schema.family import Family, cell_label

ACCOUNTED = "accounted"

# Feedmill's requests take some hundred bytes; an account takes some bytes for each partition.
_LARGEST_VALUE_BYTES = 64 * 1024
# A producer makes as many rows as a request asks for, so another program's request needs a limit.
_LARGEST_DEFICIT = 10**9
# Exceptions of reading another program's value.
_MALFORMED = (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError)


@dataclass(frozen=True)
class Request:
    """A cell ({axis: bin}) that has `count` rows and needs `deficit` more."""

    cell: Mapping[str, str]
    count: int
    deficit: int

    @property
    def label(self) -> str:
        """The cell's label, which is the record's key."""
        return cell_label(self.cell)

    def encode(self) -> bytes:
        """Return the record's value, as JSON."""
        return json.dumps(asdict(self)).encode()


@dataclass(frozen=True)
class Account:
    """The raw offsets up to which coverage has counted.

    Attributes:
        raw: {raw partition: the offset below which all records are counted}.
        moved: rows of the records below `raw` that refining has written back to raw so far (rerouted or augmented).
            These rows are counted at their new offsets only.
    """

    raw: Mapping[int, int]
    moved: int = 0

    def encode(self) -> bytes:
        """Return the record's value, as JSON."""
        offsets = {str(partition): offset for partition, offset in sorted(self.raw.items())}
        return json.dumps({"raw": offsets, "moved": self.moved}).encode()

    def reaches(self, other: Account) -> bool:
        """Return whether every offset that `other` counts is counted in this account too."""
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
        fields = _read(value)
        offsets = {int(partition): int(offset) for partition, offset in fields["raw"].items()}
        return Account(offsets, int(fields.get("moved", 0)))
    except _MALFORMED as error:
        raise RecordError("malformed_request", f"not an account of raw offsets: {error}") from error


def decode_request(value: bytes, family: Family) -> Request:
    """Return the request in a record's value.

    Raises:
        RecordError: `malformed_request`: the value is not a request, or names a cell that `family` does not have.
    """
    try:
        fields = _read(value)
        cell = {name: str(fields["cell"][name]) for name in family.cell_axes}
        request = Request(cell, int(fields["count"]), int(fields["deficit"]))
    except _MALFORMED as error:
        raise RecordError("malformed_request", f"not a request: {error}") from error
    unknown = [name for name, bin_ in cell.items() if bin_ not in family.axis(name).bins]
    if unknown or not 1 <= request.deficit <= _LARGEST_DEFICIT:
        raise RecordError("malformed_request", f"no deficit of a cell of {family.name}: {request.label}")
    return request
