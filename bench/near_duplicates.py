"""`python -m bench.near_duplicates PATH...`: which near duplicates of source trees are found, out of all pairs.

1. Read the source files below the folders (`--suffix`, default .py and .rs).
2. Compute the exact Jaccard similarity of all pairs of documents, by the code family's shingles.
3. Join the documents into components, as the code producer does.
4. Judge the documents in order, as the refine stage does: in partitions by route, each with an index of its own.

The figures are counted by band of exact similarity:

- `pairs`: all pairs.
- `online`: pairs whose second document the refine stage refuses if there are only these two: they meet in a partition,
  share a band of slots, and agree in enough slots.
- `offline`: pairs in one component.
- `left`: pairs of documents that are both admitted when all are judged in order.
- `leaks`: those of `left` that are in two splits, if each file is a group of its own.
- `leaks_joined`: the same with the final groups of the components.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from producers.source_code.components import components_of, sketch_documents
from producers.source_code.grouping import named_groups
from schema.family import Family, identify, partition_of
from schema.settings import load_settings
from schema.shingles import shingles
from schema.source_code import FAMILY
from schema.text_measures import similar_pairs
from streams.refine.sketch import Banding, banding, sketches
from streams.refine.state import State

BANDS = (0.5, 0.6, 0.65, 0.7, 0.75, 0.8, 0.9, 1.0, 2.0)

Flags = NDArray[np.bool_]


def run(texts: pl.Series, family: Family, partitions: int = 4) -> dict[str, Any]:
    """Return the counts named above for texts (N,) String without nulls.

    Keys: documents, megabytes, partitions, bands [{from, below, pairs, online, offline, left, leaks, leaks_joined}],
    components (of two or more documents), joined (documents in them), largest, all_pairs_s, offline_s, online_s. Only
    pairs of similarity 0.5 or more are counted.

    Args:
        texts: the documents, in the order in which they are judged.
        family: its text and its identity are the column `text`, its group is the column `group`; no share gates.
        partitions: of the topic.
    """
    names = pl.Series([str(number) for number in range(len(texts))])
    began = time.perf_counter()
    pairs, similarities = similar_pairs(*shingles(texts, family.shingle_words), BANDS[0])
    compared = time.perf_counter()
    components, _ = components_of(sketch_documents(texts), texts.__getitem__)
    groups = named_groups(components, names, by_repository=False)
    joined = time.perf_counter()
    rows = _identified(texts, names, family, partitions)
    admitted = _admitted(rows, family)
    judged = time.perf_counter()
    rows_joined = _identified(texts, groups, family, partitions)
    left, right = pairs.T
    both, both_joined = (flags[left] & flags[right] for flags in (admitted, _admitted(rows_joined, family)))
    _, sizes = np.unique(components, return_counts=True)
    sizes = sizes[sizes > 1]
    counted = {
        "online": _online(rows, family, pairs),
        "offline": components[left] == components[right],
        "left": both,
        "leaks": both & _apart(rows["split"], pairs),
        "leaks_joined": both_joined & _apart(rows_joined["split"], pairs),
    }
    return {
        "documents": len(texts),
        "megabytes": round(int(texts.str.len_bytes().sum()) / 1e6, 1),
        "partitions": partitions,
        "bands": [_band(similarities, counted, *edges) for edges in pairwise(BANDS)],
        "components": len(sizes),
        "joined": int(sizes.sum()),
        "largest": int(sizes.max(initial=0)),
        "all_pairs_s": round(compared - began, 2),
        "offline_s": round(joined - compared, 2),
        "online_s": round(judged - joined, 2),
    }


def _identified(texts: pl.Series, groups: pl.Series, family: Family, partitions: int) -> pl.DataFrame:
    frame = pl.DataFrame({"text": texts, "group": groups})
    return identify(frame, family).with_columns(partition_of(family, partitions))


def _admitted(rows: pl.DataFrame, family: Family) -> Flags:
    """Return which rows go to clean when all are judged in order, each by the state of its partition."""
    admitted = np.zeros(rows.height, dtype=np.bool_)
    for partition in rows["partition"].unique():
        mine = np.flatnonzero(rows["partition"].to_numpy() == partition)
        admitted[mine] = State.empty(family, load_settings()).admit(rows[mine]) == 0
    return admitted


def _online(rows: pl.DataFrame, family: Family, pairs: NDArray[np.int64]) -> Flags:
    rule: Banding = banding(family.near_duplicate_threshold)
    slots = sketches(rows, family).slots
    left, right = pairs.T
    meet = rows["partition"].to_numpy()[left] == rows["partition"].to_numpy()[right]
    agree = slots[left] == slots[right]
    in_bands = agree[:, : rule.width * rule.bands].reshape(-1, rule.bands, rule.width)
    equal = rows["example_id"].to_numpy()[left] == rows["example_id"].to_numpy()[right]
    near = in_bands.all(axis=2).any(axis=1) & (agree.sum(axis=1) >= rule.least)
    return np.asarray(meet & (near | equal), dtype=np.bool_)


def _apart(splits: pl.Series, pairs: NDArray[np.int64]) -> Flags:
    values = splits.to_numpy()
    return np.asarray(values[pairs[:, 0]] != values[pairs[:, 1]], dtype=np.bool_)


def _band(similarities: NDArray[np.float64], counted: dict[str, Flags], low: float, high: float) -> dict[str, Any]:
    inside = (similarities >= low) & (similarities < high)
    counts = {name: int(flags[inside].sum()) for name, flags in counted.items()}
    return {"from": low, "below": high, "pairs": int(inside.sum()), **counts}


def _texts(paths: Iterable[Path], suffixes: Sequence[str]) -> pl.Series:
    """Return the texts of the files with these suffixes, in order of their paths; others and undecodable ones not."""
    texts = []
    for path in paths:
        for file in sorted(path.rglob("*")):
            if file.suffix in suffixes and file.is_file() and not file.is_symlink():
                try:
                    texts.append(file.read_text(encoding="utf-8"))
                except UnicodeDecodeError:
                    continue
    return pl.Series(texts, dtype=pl.String)


def main() -> None:
    """Print the figures of the folders on the command line as a JSON object."""
    parser = argparse.ArgumentParser(prog="python -m bench.near_duplicates")
    parser.add_argument("paths", metavar="PATH", nargs="+", type=Path)
    parser.add_argument("--suffix", action="append", help="of the files to read, e.g. .py; may be repeated")
    parser.add_argument("--partitions", type=int, default=4)
    given = parser.parse_args()
    texts = _texts(given.paths, given.suffix or [".py", ".rs"])
    # Share gates would refuse documents for other reasons.
    print(json.dumps(run(texts, replace(FAMILY, quotas=()), given.partitions), indent=1))


if __name__ == "__main__":
    main()
