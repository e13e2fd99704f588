"""The command `feedmill produce code`: documents from source trees as they lie on disk."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from feedmill.extras import require_code
from feedmill.produce_runs import Out, Workers, chosen_workers, connected, deliver, print_totals
from feedmill.progress import OnAdvance, progress
from schema.errors import UsageError
from schema.source_code import FAMILY

if TYPE_CHECKING:
    from rich.table import Table

    from broker.clients import Connection
    from producers.sink import ProduceReport
    from producers.source_code.run import CodeRun, CodeUnit

_MB = 1e6
# Nine of ten groups are in the split train; a smaller share than this has one large group elsewhere.
_EXPECTED_TRAIN_SHARE = 0.75
# A bar is drawn again at most once for so many files.
_FILES_PER_UPDATE = 200


def produce_code_command(
    paths: Annotated[
        list[str], typer.Argument(metavar="PATH...", help="Repositories, crates, Python packages, or folders of them.")
    ],
    vendor: Annotated[
        bool, typer.Option("--skip-vendor/--keep-vendor", help="Folders of third-party code, e.g. site-packages.")
    ] = True,
    node_modules: Annotated[bool, typer.Option("--skip-node-modules/--keep-node-modules")] = True,
    lock_files: Annotated[bool, typer.Option("--skip-lock-files/--keep-lock-files")] = True,
    tests: Annotated[
        bool, typer.Option("--skip-tests/--keep-tests", help="Test files, and test items of Rust files.")
    ] = False,
    benches: Annotated[bool, typer.Option("--skip-benches/--keep-benches")] = False,
    examples: Annotated[bool, typer.Option("--skip-examples/--keep-examples")] = False,
    file_limit: Annotated[
        int | None, typer.Option(min=1, metavar="BYTES", help="Skip larger files.", show_default="600000")
    ] = None,
    git_history: Annotated[
        bool, typer.Option("--git-history", help="Make a document of each change of a file in git histories, too.")
    ] = False,
    functions: Annotated[
        bool,
        typer.Option("--functions", help="Make a completion of each function of Rust and Python files, too."),
    ] = False,
    scrub: Annotated[
        bool,
        typer.Option("--scrub", help="Replace secrets and e-mail addresses in files; in histories they always are."),
    ] = False,
    with_signatures: Annotated[
        bool, typer.Option("--with-signatures", help="Add signatures of what a file imports from its repository.")
    ] = False,
    decontaminate: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="EVAL.jsonl",
            help="Leave out documents that share 13 consecutive words with a string of this file; repeatable.",
        ),
    ] = None,
    workers: Workers = None,
    run: Annotated[
        str, typer.Option(help="Name of this run in the ledger; made from the first PATH if not given.")
    ] = "",
    out: Out = None,
    follow: Annotated[bool, typer.Option("--follow", hidden=True)] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """Read source files and send each as a document: respects .gitignore, and counts what it skips by reason."""
    require_code("produce code")
    from producers.source_code.exclusions import Exclusions
    from producers.source_code.run import FILE_LIMIT_BYTES, CodeRun

    if follow:
        raise UsageError("--follow fills gaps with made rows, and source code is not made but read: leave out --follow")
    seen: list[OnAdvance] = []
    parameters = CodeRun(
        paths=paths,
        exclusions=Exclusions(vendor, node_modules, lock_files, tests, benches, examples),
        file_limit_bytes=FILE_LIMIT_BYTES if file_limit is None else file_limit,
        signatures=with_signatures,
        scrub=scrub,
        git_history=git_history,
        functions=functions,
        decontaminate=[str(path) for path in decontaminate or ()],
        workers=chosen_workers(workers),
        run=run,
        on_files=lambda files: seen[0](files) if files % _FILES_PER_UPDATE == 0 else None,
    )
    # Wrong paths are reported before a broker is looked for.
    parameters.check_paths()
    target = connected(FAMILY) if out is None else out
    where, report = _deliver(parameters, target, seen, quiet=as_json)
    figures = summary(report) | {"to": where}
    if as_json:
        print(json.dumps(figures))
        return
    print_totals("documents", where, report)
    print(telemetry(figures), file=sys.stderr)
    print(splits_line(figures["splits"]), file=sys.stderr)
    if functions:
        print(f"{figures['functions']:,} functions as completions", file=sys.stderr)
    if git_history:
        print(history_line(figures), file=sys.stderr)
    from rich.console import Console

    Console().print(skipped_table(figures["skipped"]))


def _deliver(
    run: CodeRun, target: Connection | Path, seen: list[OnAdvance], *, quiet: bool
) -> tuple[str, ProduceReport]:
    """Send or write the run's rows; show the files seen by the first reading in `seen`, then bytes, then commits."""
    with ExitStack() as stack:
        seen.append(stack.enter_context(progress("reading", None, "files", quiet=quiet)))
        shown: dict[str, OnAdvance] = {}

        def show(title: str, total: float, unit: str) -> OnAdvance:
            if title not in shown:
                # Only one bar can be on a terminal at a time.
                stack.close()
                shown[title] = stack.enter_context(progress(title, total, unit, quiet=quiet))
            return shown[title]

        def on_unit(unit: CodeUnit) -> None:
            done = unit.done
            if unit.portion is None:
                advance = show("making", done.bytes_total / _MB, "MB")
                advance(done.bytes / _MB, f"{done.files:,} of {done.files_total:,} files")
            else:
                show("histories", done.commits_total, "commits")(done.commits)

        return deliver(run, target, on_unit=on_unit)


def summary(report: ProduceReport) -> dict[str, Any]:
    """Return the totals of a run; `files_seen` is the sum of `documents` and of all numbers in `skipped`.

    `rows` is the sum of `documents`, `functions` and `evolutions`. `history_left_out` is about evolutions only. So is
    `scrubbed`, unless the run scrubs files.
    """
    from producers.source_code.skip_reasons import SKIP_REASONS

    counts = report.counts
    return {
        "family": FAMILY.name,
        "run": report.run,
        "rows": report.rows,
        "files_seen": counts.get("files_seen", 0),
        "documents": counts.get("documents", 0),
        "splits": {split: counts.get(f"split_{split}", 0) for split in ("train", "val", "test")},
        "skipped": {reason: counts[reason] for reason in SKIP_REASONS if counts.get(reason)},
        **{name: counts.get(name, 0) for name in ("sources", "shallow_clones", "without_commits")},
        **{name: counts.get(name, 0) for name in ("crlf_files", "near_duplicates", "functions")},
        **{name: counts.get(name, 0) for name in ("commits", "evolutions")},
        "history_left_out": _prefixed(counts, "change_", "commit_"),
        "scrubbed": _prefixed(counts, "scrubbed_"),
        "elapsed_s": round(report.elapsed_s, 3),
    }


def _prefixed(counts: Mapping[str, int], *prefixes: str) -> dict[str, int]:
    return {name: number for name, number in sorted(counts.items()) if name.startswith(prefixes) and number}


def history_line(figures: Mapping[str, Any]) -> str:
    """Return one line about the evolutions of a run.

    >>> history_line({"evolutions": 9, "commits": 4, "history_left_out": {"commit_merge": 1}, "scrubbed": {}})
    '9 changes of 4 commits, left out: 1 commit_merge; replaced: none'
    """
    left_out, scrubbed = (
        ", ".join(f"{number:,} {name}" for name, number in figures[key].items()) or "none"
        for key in ("history_left_out", "scrubbed")
    )
    made = f"{figures['evolutions']:,} changes of {figures['commits']:,} commits"
    return f"{made}, left out: {left_out}; replaced: {scrubbed}"


def splits_line(splits: Mapping[str, int]) -> str:
    """Return one line about the rows of each split, with advice if few are in train.

    >>> splits_line({"train": 90, "val": 6, "test": 4})
    'splits: train 90 (90.0%), val 6, test 4'
    """
    rows = sum(splits.values())
    share = f" ({splits['train'] / rows:.1%})" if rows else ""
    line = f"splits: train {splits['train']:,}{share}, val {splits['val']:,}, test {splits['test']:,}"
    if splits["train"] >= _EXPECTED_TRAIN_SHARE * rows:
        return line
    return f"{line}. A large repository is in one split as a whole: add more sources, or leave that one out"


def telemetry(figures: Mapping[str, Any]) -> str:
    """Return one line, `passed/total (x%), filtered by reason`.

    >>> telemetry({"documents": 9, "files_seen": 12, "skipped": {"binary": 1, "test": 2}})
    '9/12 files passed (75.0%), filtered: 2 test, 1 binary'
    """
    passed, total, skipped = figures["documents"], figures["files_seen"], figures["skipped"]
    share = f" ({passed / total:.1%})" if total else ""
    filtered = ", ".join(f"{skipped[reason]:,} {reason}" for reason in sorted(skipped, key=lambda one: -skipped[one]))
    return f"{passed:,}/{total:,} files passed{share}, filtered: {filtered or 'none'}"


def skipped_table(skipped: Mapping[str, int]) -> Table:
    """Return a table of the skipped files by reason, most first, with what each reason means."""
    from rich.table import Table

    from producers.source_code.skip_reasons import SKIP_REASONS

    table = Table("skipped", "files", "because")
    table.columns[1].justify = "right"
    for reason in sorted(skipped, key=lambda one: -skipped[one]):
        table.add_row(reason, f"{skipped[reason]:,}", SKIP_REASONS[reason])
    return table
