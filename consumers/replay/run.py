"""Replays of runs: the rows that a feed gave to a training run, in the order in which it gave them, as a file.

A run's manifest (`Feed.manifest()`) says what its sequence follows from and how far it went. `replay_run` goes through
the same sequence again, without making tensors of it, and writes whole rows. The order is that of the global batches;
how many ranks shared them does not show.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from broker.clients import Connection
from broker.topics import extents, topic_id
from consumers.reading import gone
from consumers.replay.formats import ending, open_writer
from consumers.replay.row_groups import RowGroups
from consumers.replay.whole_file import whole_file
from consumers.sequence.blocks import reading_order
from consumers.sequence.cursor import Cursor, Place
from consumers.sequence.predicates import Predicate
from consumers.sequence.spec import FeedSpec, FeedState, Passes, read_state
from consumers.sequence.windows import windows
from schema.errors import FeedError, ReplayError, UsageError
from schema.json_form import json_lines
from schema.registry import family_named


@dataclass(frozen=True)
class RunReport:
    """What a replay of a run wrote; the manifest beside the file says the same, with file names for paths.

    Attributes:
        rows: in the file; a row that the run saw n times stands there n times.
        sha256: of the file, in hex.
        offsets: {topic: {partition: [from, to]}}, half-open, in which the rows stand.
        batches: global batches that the rows came in.
        passes: passes that the run began.
        run: the run's manifest, so that the file can be made again from the one beside it.
        created: when, ISO 8601 in UTC.
        feedmill: the version that wrote it.
    """

    rows: int
    sha256: str
    offsets: dict[str, dict[int, list[int]]]
    batches: int
    passes: int
    path: str
    manifest: str
    family: str
    run: dict[str, Any]
    created: str
    feedmill: str


@dataclass(frozen=True)
class RunProgress:
    """How far a replay of a run is: passes done, with the part of the one under way, of all, and rows found."""

    passes_done: float
    passes_total: int
    rows: int


def read_manifest(path: Path) -> dict[str, Any]:
    """Return the run's manifest in a file, or in the manifest that a replay of a run left beside its own file.

    Raises:
        UsageError: there is no such file.
        ReplayError: it holds no manifest.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror}): name the manifest of a run") from error
    except ValueError as error:
        raise ReplayError(f"{path} is not JSON ({error}): give what `Feed.manifest()` returned") from error
    if isinstance(found, dict) and isinstance(found.get("run"), dict):
        found = found["run"]
    if not isinstance(found, dict):
        raise ReplayError(f"{path} is no manifest of a run: give what `Feed.manifest()` returned")
    return found


def replay_run(
    connection: Connection,
    manifest: Mapping[str, Any],
    out: Path,
    *,
    family: str | None = None,
    where: pl.Expr | None = None,
    on_progress: Callable[[RunProgress], None] = lambda progress: None,
) -> RunReport:
    """Write the rows that a run saw, in the order seen, to `out`, and what was done to `<out>.manifest.json`.

    Args:
        connection: the broker that holds the run's topics.
        manifest: what `Feed.manifest()` returned, at any moment of the run.
        out: ends in .jsonl, .parquet or .arrow; a file of that name is replaced.
        family: that the run has to be of; None takes any.
        where: the Polars expression that the run's feed had as its filter. A manifest keeps its fingerprint only, which
            must fit; a filter given as SQL is in the manifest.
        on_progress: called after every window of rows.

    Raises:
        UsageError: the ending is unknown, the run is of another family, or `where` is not its filter.
        ReplayError: the manifest is none or a following feed's, a topic no longer holds what the run read, or the file
            cannot be written.
        BrokerError: a topic is gone, or the broker cannot be read.
    """
    ending(out)
    if out.is_dir():
        raise UsageError(f"{out} is a folder: name a file")
    try:
        state = read_state(manifest)
    except FeedError as error:
        raise ReplayError(f"this is no manifest of a run: {error}") from error
    if state.spec.mode == "follow":
        raise ReplayError(
            "the manifest is that of a feed that follows, whose order depends on when rows came: replay its offsets "
            "with --from and --to"
        )
    if family not in (None, state.spec.family):
        raise UsageError(f"the manifest is of the family {state.spec.family!r}, not {family!r}: leave the family out")
    declared = family_named(state.spec.family)
    spec = _with_filter(state.spec, where)
    _require_held(connection, spec)
    beside = out.with_name(f"{out.name}.manifest.json")
    stretches = _stretches(state)
    with whole_file(out, beside) as file:
        with closing(open_writer(out, file.stream, declared.wire, partial(json_lines, family=declared))) as writer:
            groups = RowGroups(writer, declared.wire)
            batches = 0
            for progress, frame, whole in _seen(connection, spec, stretches):
                groups.take(frame, 0)
                batches += whole
                on_progress(replace(progress, rows=groups.written))
            groups.flush()
        report = RunReport(
            rows=groups.written,
            sha256=file.close(),
            offsets=_offsets(state.spec),
            batches=batches,
            passes=_count(stretches),
            path=str(out),
            manifest=str(beside),
            family=declared.name,
            run=dict(manifest),
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            feedmill=version("feedmill"),
        )
        file.place(json.dumps(asdict(replace(report, path=out.name, manifest=beside.name)), indent=2) + "\n")
    return report


def _with_filter(spec: FeedSpec, where: pl.Expr | None) -> FeedSpec:
    """Return the spec with a filter that can be run."""
    if where is None:
        if spec.where is not None and not spec.where.is_portable:
            raise ReplayError(
                "the run's filter was a Polars expression, of which a manifest keeps only the fingerprint: call "
                "`replay_run(..., where=EXPRESSION)` with the same one, or give feeds their filter as SQL"
            )
        return spec
    given = Predicate.of(where, family_named(spec.family).wire)
    if given != spec.where:
        raise UsageError(
            f"the filter given is not the run's: its fingerprint is {given.text}, and the manifest has "
            f"{spec.where.text if spec.where else 'no filter'}: pass what the run's feed had"
        )
    return replace(spec, where=given)


@dataclass(frozen=True)
class _Pass:
    """One pass that a run made: all of it, or its first `batches` batches."""

    epoch: int
    batches: int | None


def _stretches(state: FeedState) -> tuple[Passes, ...]:
    """Return the passes to go through, the one under way among them."""
    cursor = state.cursor
    # Where a pass has just ended, the next one has given nothing yet.
    under_way = [Passes(first=cursor.epoch, last=cursor.epoch, batches=cursor.batches)] if cursor.batches else []
    return (*state.passes, *under_way)


def _passes(stretches: tuple[Passes, ...]) -> Iterator[_Pass]:
    for made in stretches:
        for epoch in range(made.first, made.last + 1):
            yield _Pass(epoch, made.batches)


def _count(stretches: tuple[Passes, ...]) -> int:
    return sum(made.last + 1 - made.first for made in stretches)


def _seen(
    connection: Connection, spec: FeedSpec, stretches: tuple[Passes, ...]
) -> Iterator[tuple[RunProgress, pl.DataFrame, int]]:
    """Yield the rows of each window in the order of its batches, with how many batches those are."""
    wire = tuple(family_named(spec.family).wire)
    blocks = len(reading_order(spec, 0, 0, 0, Place()))
    for number, made in enumerate(_passes(stretches)):
        given = 0
        for window in windows(connection, spec, Cursor(epoch=made.epoch), columns=wire):
            batches = window.batches if made.batches is None else window.batches[: made.batches - given]
            given += len(batches)
            part = given / made.batches if made.batches else min(window.start.places[0].block / max(blocks, 1), 1)
            # A window whose rows were all dropped has no batches.
            order = np.concatenate([np.empty(0, dtype=np.int64), *batches])
            rows = window.rows.select(wire)[order]
            yield RunProgress(number + part, _count(stretches), 0), rows, len(batches)
            if given == made.batches:
                break
        if made.batches is not None and given < made.batches:
            raise ReplayError(
                f"the manifest says that pass {made.epoch} gave {made.batches} batches, and its offsets hold {given}: "
                "give the manifest as the run left it"
            )


def _require_held(connection: Connection, spec: FeedSpec) -> None:
    """Check that the topics still hold what the run read."""
    for source in spec.sources:
        held = extents(connection, source.topic)
        if topic_id(connection, source.topic) != source.topic_id or set(source.bounds) - set(held):
            raise ReplayError(f"{source.topic} was made anew since the run read it: its rows cannot be had any more")
        for partition, extent in sorted(source.bounds.items()):
            for offset in (extent.begin, extent.end):
                if not held[partition].begin <= offset <= held[partition].end:
                    raise ReplayError(gone(source.topic, partition, offset, held[partition]))


def _offsets(spec: FeedSpec) -> dict[str, dict[int, list[int]]]:
    offsets: dict[str, dict[int, list[int]]] = {}
    for source in spec.sources:
        of_topic = offsets.setdefault(source.topic, {})
        # Two sources may read stretches of one topic.
        for number, extent in source.bounds.items():
            begin, end = of_topic.get(number, (extent.begin, extent.end))
            of_topic[number] = [min(begin, extent.begin), max(end, extent.end)]
    return offsets
