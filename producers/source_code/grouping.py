"""The final groups of all documents of a run: near duplicates, and the versions of one file, are in one group.

1. The default group is the repository, or the file if one repository has most of the documents.
2. Near duplicates are joined into components (`producers.source_code.components`).
3. So are the documents of one path: a file, and the evolutions from and to it, have the same text in them.
4. Each component has one group, and so one split.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import count
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from producers.source_code.components import components_of, joined_components
from schema.family import SPLITS, split_of

# A repository with a larger share of the documents would put nearly all of them into one split.
_LARGEST_REPOSITORY = 0.5


class Place(NamedTuple):
    """Where a document is from: its repository, its path, and the path that it had before a change."""

    repository: str
    path: str
    old_path: str


class Groups(NamedTuple):
    """The group of each document, and the number of documents that have a near duplicate."""

    names: list[str]
    near_duplicates: int


def final_groups_of(
    places: Sequence[Place], sketches: npt.NDArray[np.uint8], read: Callable[[int], str | None]
) -> Groups:
    """Return the final groups of N documents.

    Args:
        places: of each document.
        sketches: (N, SLOTS), from `components.sketch_documents`.
        read: number of a document -> its text, or None if it can no longer be read.
    """
    if not places:
        return Groups([], 0)
    largest = max(Counter(place.repository for place in places).values())
    by_repository = largest <= _LARGEST_REPOSITORY * len(places)
    default = [place.repository if by_repository else f"{place.repository}/{place.path}" for place in places]
    similar, _ = components_of(sketches, read)
    _, sizes = np.unique(similar, return_counts=True)
    components = joined_components(similar, *_same_file(places))
    names = named_groups(components, pl.Series(default), by_repository=by_repository)
    return Groups(names.to_list(), int(sizes[sizes > 1].sum()))


def named_groups(components: npt.NDArray[np.int64], groups: pl.Series, *, by_repository: bool) -> pl.Series:
    """Return the group of each document, so that each component has one.

    A component within one default group keeps it. A component of several repositories gets a group of its own in
    train; the other documents of these repositories keep their group. A component of several files gets the default
    group that comes first in byte order.

    >>> named_groups(np.array([0, 0, 2]), pl.Series(["b.py", "a.py", "c.py"]), by_repository=False).to_list()
    ['a.py', 'a.py', 'c.py']

    Args:
        components: (N,) int64, equal for the documents of a component.
        groups: (N,) String, the default group of each document: its repository, or its repository and path.
        by_repository: whether the default groups are repositories.
    """
    named = pl.DataFrame({"component": components, "group": groups})
    first = named.group_by("component").agg(pl.col("group").min(), several=pl.col("group").n_unique() > 1)
    if by_repository:
        spanning = first.filter("several").with_columns(pl.col("group").map_elements(_train_group, pl.String))
        first = first.update(spanning, on="component")
    joined = named.select("component").join(first, on="component", how="left", maintain_order="left")
    return joined["group"].rename(groups.name)


def _train_group(repository: str) -> str:
    """Return a group for a component of several repositories, the first of them `repository`; its split is train."""
    names = (f"{repository} and near duplicates {number}" for number in count())
    return next(name for name in names if pl.DataFrame({"name": name}).select(split_of("name")).item() == SPLITS[0])


def _same_file(places: Sequence[Place]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return pairs of documents (left, right) whose joining joins all documents that have a path in common."""
    count = len(places)
    paths = pl.DataFrame(
        {
            "repository": [place.repository for place in places] * 2,
            "path": [place.path for place in places] + [place.old_path for place in places],
            "number": np.tile(np.arange(count), 2),
        }
    )
    pairs = paths.select("number", first=pl.col("number").min().over("repository", "path"))
    pairs = pairs.filter(pl.col("first") != pl.col("number"))
    return pairs["first"].to_numpy(), pairs["number"].to_numpy()
