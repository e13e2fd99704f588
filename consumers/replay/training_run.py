"""Replay a training run: write the rows that its feed gave, in the same order, to a file.

A run's manifest (`Feed.manifest()`) holds the data that decides the sequence, and how far the run went. `replay_run`
goes through the same sequence again, without tensors, and writes whole rows. The order is that of the global batches;
the number of ranks does not change it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from broker.clients import Connection
from broker.held_offsets import require_unchanged
from broker.retractions import RetractionBound, retractions_beside
from consumers.replay.replay_file import check_out, replay_file
from consumers.replay.sequence_rows import SequenceRows, sequence_lines
from consumers.sequence.blocks import reading_order
from consumers.sequence.cursor import Cursor, Place
from consumers.sequence.predicates import Predicate
from consumers.sequence.retracted import RetractedSince, reasons_text
from consumers.sequence.spec import FeedSpec, FeedState, Passes, difference, read_state
from consumers.sequence.stream import KeptColumns
from consumers.sequence.windows import windows
from consumers.tensor_form import TensorForm, form_of
from schema.errors import FeedError, ReplayError, UsageError
from schema.json_file import read_json_file
from schema.json_form import json_lines
from schema.registry import family_named
from schema.retractions import WIRE_IDS


@dataclass(frozen=True)
class RunReport:
    """The result of a replay of a run; the manifest next to the file has the same values, with file names for paths.

    Attributes:
        rows: rows in the file; a row that the run saw n times is there n times.
        sha256: of the file, in hex.
        offsets: {topic: {partition: [begin, end]}}, without the end, that contain the rows.
        batches: global batches of the run.
        passes: passes that the run began.
        rows_retracted: rows that the run saw and the file leaves out, because they were retracted since.
        retracted_by_reason: {reason: rows} of these rows.
        retractions: {topic: the bound of the retractions that were known}.
        run: the run's manifest, so that the file can be written again from the manifest next to it.
        created: time of writing, ISO 8601 in UTC.
        feedmill: the version of Feedmill that wrote the file.
    """

    rows: int
    sha256: str
    offsets: dict[str, dict[int, list[int]]]
    batches: int
    passes: int
    path: str
    manifest: str
    family: str
    rows_retracted: int
    retracted_by_reason: dict[str, int]
    retractions: dict[str, RetractionBound | None]
    run: dict[str, Any]
    created: str
    feedmill: str


@dataclass(frozen=True)
class RunProgress:
    """Progress of a replay of a run: passes done (with a fraction of the current one), all passes, rows written."""

    passes_done: float
    passes_total: int
    rows: int


def read_manifest(path: Path) -> dict[str, Any]:
    """Read a run's manifest from a file, which may also be the manifest of an earlier replay of the run.

    Raises:
        UsageError: the file cannot be read.
        ReplayError: the file holds no manifest.
    """
    try:
        content = read_json_file(path)
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror}): name the manifest of a run") from error
    except ValueError as error:
        raise ReplayError(f"{path} cannot be read as JSON ({error}): give the value of `Feed.manifest()`") from error
    if isinstance(content, dict) and isinstance(content.get("run"), dict):
        content = content["run"]
    if not isinstance(content, dict):
        raise ReplayError(f"{path} is not the manifest of a run: give the value of `Feed.manifest()`")
    return content


def replay_run(
    connection: Connection,
    manifest: Mapping[str, Any],
    out: Path,
    *,
    family: str | None = None,
    where: pl.Expr | None = None,
    tokenizer: str | Path | None = None,
    leave_out_retracted: bool = False,
    on_progress: Callable[[RunProgress], None] = lambda progress: None,
) -> RunReport:
    """Write the rows that a run saw, in the same order, to `out`, and a report to `<out>.manifest.json`.

    Args:
        connection: the broker that holds the run's topics.
        manifest: the value of `Feed.manifest()`, at any moment of the run.
        out: ends in .jsonl, .parquet or .arrow; an existing file is replaced.
        family: the family that the run must have; None accepts any.
        where: the Polars expression that the run's feed had as its filter. The manifest holds only its fingerprint,
            which must match; an SQL filter is in the manifest itself.
        tokenizer: where the run's tokenizer is now; None looks where the run found it. The file has one row per
            training sequence if the run had a tokenizer.
        leave_out_retracted: write the file although rows of the run were retracted since; it lacks these rows, and the
            report counts them.
        on_progress: called after every window of rows.

    Raises:
        UsageError: the ending is unknown, the run has another family, `where` is not its filter, or the tokenizer is
            missing.
        ReplayError: the manifest is invalid, that of a feed in `follow` mode, or of a run with another tokenizer; a
            topic no longer holds the run's offsets; rows of the run were retracted since; or the file cannot be
            written.
        BrokerError: a topic is gone, or the broker cannot be read.

    Example::

        seen = replay_run(connection, feed.manifest(), Path("seen.parquet"))
        seen.rows  # 32
    """
    check_out(out)
    try:
        state = read_state(manifest)
    except FeedError as error:
        raise ReplayError(f"this is not the manifest of a run: {error}") from error
    if state.spec.mode == "follow":
        raise ReplayError(
            "the manifest is that of a feed in follow mode, whose order depends on when rows arrived: "
            "replay its offsets with --from and --to"
        )
    if family not in (None, state.spec.family):
        raise UsageError(f"the manifest is for family {state.spec.family!r}, not {family!r}: leave the family out")
    declared = family_named(state.spec.family)
    spec = _as_planned(_with_filter(state.spec, where))
    for source in spec.sources:
        require_unchanged(connection, source.topic, source.topic_id, source.bounds, ReplayError)
    run_passes = _run_passes(state)
    retracted = RetractedSince(connection, spec, ReplayError)
    form = _form(spec, tokenizer)
    columns: Mapping[str, pl.DataType] = declared.wire
    lines: Callable[[pl.DataFrame], bytes] = partial(json_lines, family=declared)
    if form.expand is not None:
        columns, lines = SequenceRows(declared, form.expand).columns, sequence_lines
    with replay_file(out, columns, lines) as file:
        batches = 0
        for progress, frame, whole in _seen(connection, spec, form, tuple(columns), run_passes, retracted):
            file.rows.take(frame, 0)
            batches += whole
            on_progress(replace(progress, rows=file.rows.written))
        left_out = retracted.reasons
        if left_out and not leave_out_retracted:
            raise ReplayError(
                f"the run saw {left_out.total():,} rows that were retracted since ({reasons_text(left_out)}): write "
                "the file without them with --leave-out-retracted, and the report counts them"
            )
        written = file.finish()
        report = RunReport(
            **written,
            rows=file.rows.written,
            offsets=_offsets(state.spec),
            batches=batches,
            passes=_count(run_passes),
            family=declared.name,
            rows_retracted=left_out.total(),
            retracted_by_reason=dict(left_out.most_common()),
            retractions={
                retractions_beside(source.topic): bound
                for source, bound in zip(spec.sources, retracted.bounds, strict=True)
            },
            run=dict(manifest),
        )
        file.place(report)
    return report


def _as_planned(spec: FeedSpec) -> FeedSpec:
    """Return the spec without the rows that a resume dropped, because the run saw some of them before."""
    return replace(spec, sources=tuple(replace(source, withdrawn=None) for source in spec.sources))


def _with_filter(spec: FeedSpec, where: pl.Expr | None) -> FeedSpec:
    """Return the spec with a filter that can run."""
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
            f"{spec.where.text if spec.where else 'no filter'}: pass the filter of the run's feed"
        )
    return replace(spec, where=given)


def _form(spec: FeedSpec, tokenizer: str | Path | None) -> TensorForm:
    """Return the tensor form of the run, which must make the run's sequences."""
    if spec.form is None and tokenizer is not None:
        raise UsageError(f"the run of family {spec.family} had no tokenizer: leave the tokenizer out")
    form = form_of(spec.family, None if spec.form is None else spec.form.options(tokenizer))
    if spec.form is not None and (fault := difference(spec.form, form.identity)) is not None:
        name, of_run, now = fault
        raise ReplayError(f"the run's form has {name} {of_run}, but this one has {now}: give the run's tokenizer")
    return form


@dataclass(frozen=True)
class _Pass:
    """One pass of a run: the whole pass, or its first `batches` batches."""

    epoch: int
    batches: int | None


def _run_passes(state: FeedState) -> tuple[Passes, ...]:
    """Return the passes to go through, including the one in progress."""
    cursor = state.cursor
    # Right after the end of a pass, the next one has given no batch yet.
    under_way = [Passes(first=cursor.epoch, last=cursor.epoch, batches=cursor.batches)] if cursor.batches else []
    return (*state.passes, *under_way)


def _passes(run_passes: tuple[Passes, ...]) -> Iterator[_Pass]:
    for one_pass in run_passes:
        for epoch in range(one_pass.first, one_pass.last + 1):
            yield _Pass(epoch, one_pass.batches)


def _count(run_passes: tuple[Passes, ...]) -> int:
    return sum(one_pass.last + 1 - one_pass.first for one_pass in run_passes)


def _seen(
    connection: Connection,
    spec: FeedSpec,
    form: TensorForm,
    columns: tuple[str, ...],
    run_passes: tuple[Passes, ...],
    retracted: RetractedSince,
) -> Iterator[tuple[RunProgress, pl.DataFrame, int]]:
    """Yield the rows of each window in the order of its batches, and the number of these batches.

    Rows that were retracted since are left out and counted by `retracted`.
    """
    wire = family_named(spec.family).wire
    kept = KeptColumns.of(form, (name for name in wire if name in columns or name in WIRE_IDS))
    blocks = len(reading_order(spec, 0, 0, 0, Place()))
    for number, each in enumerate(_passes(run_passes)):
        given = 0
        for window in windows(connection, spec, Cursor(epoch=each.epoch), kept):
            batches = window.batches if each.batches is None else window.batches[: each.batches - given]
            given += len(batches)
            part = given / each.batches if each.batches else min(window.start.places[0].block / max(blocks, 1), 1)
            # A window whose rows were all dropped has no batches.
            order = np.concatenate([np.empty(0, dtype=np.int64), *(batch.sequences for batch in batches)])
            rows = retracted.without(window.rows[order]).select(columns)
            yield RunProgress(number + part, _count(run_passes), 0), rows, len(batches)
            if given == each.batches:
                break
        if each.batches is not None and given < each.batches:
            raise ReplayError(
                f"the manifest has {each.batches} batches in pass {each.epoch}, but its offsets hold {given}: "
                "give the manifest as the run left it"
            )


def _offsets(spec: FeedSpec) -> dict[str, dict[int, list[int]]]:
    offsets: dict[str, dict[int, list[int]]] = {}
    for source in spec.sources:
        of_topic = offsets.setdefault(source.topic, {})
        # Two sources may read offset ranges of one topic.
        for number, extent in source.bounds.items():
            begin, end = of_topic.get(number, (extent.begin, extent.end))
            of_topic[number] = [min(begin, extent.begin), max(end, extent.end)]
    return offsets
