"""The command `feedmill replay`: writes an offset range of a topic, or the rows of a training run, to a file."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from feedmill.extras import require_code
from feedmill.progress import progress
from schema.errors import UsageError
from schema.registry import family_named
from schema.settings import load_settings

if TYPE_CHECKING:
    from consumers.form_options import FormOptions
    from consumers.replay.topic_range import ReplayProgress, ReplayReport
    from consumers.replay.training_run import RunProgress, RunReport


def replay_command(
    out: Annotated[Path, typer.Option(help="File to write: .jsonl, .parquet or .arrow.")],
    family: Annotated[
        str | None, typer.Argument(metavar="[FAMILY]", help="e.g. reduction; not needed with --manifest.")
    ] = None,
    stage: Annotated[str | None, typer.Option(help="clean, rejected or ledger.", show_default="clean")] = None,
    start: Annotated[
        str | None, typer.Option("--from", metavar="OFFSET|TIME", help="First offset of every partition, or ISO time.")
    ] = None,
    end: Annotated[
        str | None, typer.Option("--to", metavar="OFFSET|TIME", help="End offset or ISO time, itself left out.")
    ] = None,
    where: Annotated[
        str | None, typer.Option(metavar="SQL", help="A condition over the columns, e.g. \"split = 'test'\".")
    ] = None,
    manifest: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Manifest of a training run: write its rows in its order.")
    ] = None,
    windows: Annotated[
        bool, typer.Option("--windows", help="Write each document's windows of tokens; needs --tokenizer.")
    ] = False,
    tokenizer: Annotated[
        str | None, typer.Option(metavar="FILE|NAME", help="Tokenizer of --windows, or of the run of --manifest.")
    ] = None,
    window: Annotated[int | None, typer.Option(help="Tokens of a window.", show_default="1024")] = None,
    stride: Annotated[
        int | None, typer.Option(help="Tokens from one window's start to the next.", show_default="256")
    ] = None,
    leave_out_retracted: Annotated[
        bool, typer.Option("--leave-out-retracted", help="With --manifest: leave out rows that were retracted since.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """Write an offset range of a topic to a file, the same bytes every time, with a manifest beside it."""
    from consumers.replay.formats import ending

    # Checked before a broker is looked for.
    if family is not None:
        family_named(family)
    ending(out)
    began = time.monotonic()
    if manifest is not None:
        named: dict[str, Any] = {"--stage": stage, "--from": start, "--to": end, "--where": where}
        named |= {"--windows": windows or None, "--window": window, "--stride": stride}
        if given := [name for name, value in named.items() if value is not None]:
            raise UsageError(f"--manifest already fixes the rows to replay: leave out {' and '.join(given)}")
        report: ReplayReport | RunReport = _replay_run(manifest, family, out, tokenizer, leave_out_retracted, as_json)
        notes: list[str] = []
        if report.rows_retracted:
            notes.append(f"{report.rows_retracted:,} rows of the run were retracted since and left out")
    elif family is None:
        raise UsageError("nothing to replay is named: name a family, or a run's manifest with --manifest")
    else:
        form = _form(windows, {"--tokenizer": tokenizer, "--window": window, "--stride": stride})
        report, notes = _replay(family, out, stage, (start, end), where, form, as_json)
    if as_json:
        print(json.dumps(asdict(report)))
        return
    elapsed_s = time.monotonic() - began
    print(f"{report.rows:,} rows -> {report.path} in {elapsed_s:.1f} s, sha256 {report.sha256}", file=sys.stderr)
    for line in notes:
        print(line, file=sys.stderr)


def _form(windows: bool, given: dict[str, Any]) -> FormOptions | None:
    """Return the options of the windows; None writes rows."""
    from consumers.form_options import FormOptions

    chosen = {name: value for name, value in given.items() if value is not None}
    if not windows:
        if chosen:
            raise UsageError(f"{' and '.join(chosen)} {'is' if len(chosen) == 1 else 'are'} for windows: add --windows")
        return None
    if "--tokenizer" not in chosen:
        raise UsageError(
            "--windows needs a tokenizer: give its file or name with --tokenizer, or make one with "
            "`feedmill tokenizer train`"
        )
    require_code("--windows")
    return FormOptions(**{name.removeprefix("--"): value for name, value in chosen.items()})


def _replay(
    family: str,
    out: Path,
    stage: str | None,
    bounds: tuple[str | None, str | None],
    where: str | None,
    form: FormOptions | None,
    quiet: bool,
) -> tuple[ReplayReport, list[str]]:
    """Return the report, and lines about undecodable records."""
    from broker.clients import connect
    from consumers.replay.bounds import parse_bound
    from consumers.replay.topic_range import replay
    from schema.record import CLEAN

    stage = CLEAN if stage is None else stage
    first, last = (parse_bound(bound) for bound in bounds)
    connection = connect(load_settings())
    with progress(f"replaying {family}.{stage}", 100, "percent of the offsets", quiet=quiet) as advance:

        def show(done: ReplayProgress) -> None:
            advance(100 * done.offsets_done / max(done.offsets_total, 1), f"{done.rows:,} rows")

        report = replay(
            connection, family, out, stage=stage, start=first, end=last, where=where, form=form, on_progress=show
        )
    notes = []
    if report.rows_retracted:
        notes.append(f"{report.rows_retracted:,} retracted rows of these offsets were left out")
    if report.dead_letters:
        notes.append(f"{report.dead_letters:,} of them are undecodable records, written as base64")
    if report.dead_letters_left_out:
        notes.append(
            f"{report.dead_letters_left_out:,} undecodable records were left out: replay to .jsonl without --where "
            "to get their bytes"
        )
    return report, notes


def _replay_run(
    path: Path, family: str | None, out: Path, tokenizer: str | None, leave_out_retracted: bool, quiet: bool
) -> RunReport:
    from broker.clients import connect
    from consumers.replay.training_run import read_manifest, replay_run

    manifest = read_manifest(path)
    connection = connect(load_settings())
    with progress(f"replaying the run of {path.name}", 100, "percent of the passes", quiet=quiet) as advance:

        def show(done: RunProgress) -> None:
            advance(100 * done.passes_done / max(done.passes_total, 1), f"{done.rows:,} rows")

        return replay_run(
            connection,
            manifest,
            out,
            family=family,
            tokenizer=tokenizer,
            leave_out_retracted=leave_out_retracted,
            on_progress=show,
        )
