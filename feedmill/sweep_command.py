"""The command `feedmill sweep`: looks for good settings of `feedmill train code` in trials of a run file."""

from __future__ import annotations

import json
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from feedmill.child_command import last_line, run_child
from feedmill.extras import require, require_code
from feedmill.train_commands import require_torch
from schema.errors import UsageError
from schema.settings import load_settings

if TYPE_CHECKING:
    from consumers.language_model.run_file import RunFile
    from consumers.language_model.sweep import Trial

# The metrics of `feedmill train code --json`, and whether a larger value is better.
METRICS = {"held_out_loss": False, "perplexity": False, "right_tokens": True}
RESULTS, PLOT = "sweep.json", "sweep.png"
_TRIAL_FILE, _REPORT, _LOG = "trial.yml", "report.json", "log"


def sweep_command(
    base_cfg: Annotated[str, typer.Option(metavar="FILE", help="The run file that is varied, e.g. phase1.yml.")],
    trials: Annotated[int, typer.Option(min=1, help="Trials in all, those of earlier calls included.")] = 20,
    metric: Annotated[str, typer.Option(help=f"One of {', '.join(METRICS)}.")] = "held_out_loss",
    steps: Annotated[int | None, typer.Option(min=1, help="Steps of a trial, in place of those of the file.")] = None,
    tokenizer: Annotated[str | None, typer.Option(help="Tokenizer, in place of the file's.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the sampler.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Folder of the study and of its runs.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show settings of trials, and train nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """Try settings of `feedmill train code`, and rank them by a metric on held-out rows.

    Varied are the learning rate, the length of rows, and rank and alpha of an adapter. The same command goes on with a
    study that was stopped. Only the run of the best trial is kept.
    """
    require_torch()
    require_code("sweep")
    require("a sweep", "sweep", "optuna")
    from consumers.language_model.quantization import check_quantization
    from consumers.language_model.run_file import read_run_file, with_changes, written
    from consumers.language_model.sweep import Sweep, planned

    if metric not in METRICS:
        raise UsageError(f"there is no metric {metric!r}: use one of {', '.join(METRICS)}")
    folder = out or load_settings().data_dir / "models" / "sweep"
    file = with_changes(read_run_file(base_cfg), base_cfg, steps=steps, tokenizer=tokenizer)
    if dry_run:
        for number, plan in enumerate(planned(file, trials, seed)):
            print(f"# trial {number}\n{written(plan)}")
        return
    check_quantization(file.model.quantize)
    with Sweep(file, folder, seed, largest=METRICS[metric]) as sweep:

        def run_trial(number: int, trial: RunFile) -> float:
            value = _run(folder, number, trial, metric)
            print(f"trial {number}: {metric} {value:.4f}", file=sys.stderr, flush=True)
            return value

        try:
            sweep.run(trials, run_trial)
        finally:
            found = sweep.trials()
            _keep_best(folder, found)
    results: dict[str, Any] = {"metric": metric, "trials": [trial.to_json() for trial in found]}
    (folder / RESULTS).write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    if find_spec("matplotlib") is not None:
        from feedmill.sweep_plot import draw

        draw(results["trials"], metric, folder / PLOT)
    if as_json:
        print(json.dumps(results))
    else:
        _show(found, metric, folder)


def _keep_best(folder: Path, found: list[Trial]) -> None:
    """Remove the runs of all trials but the best; their logs stay."""
    for trial in found[1:] if found and found[0].metric is not None else found:
        place = _place(folder, trial.number)
        # A link may lead to a folder that is no part of the study.
        for path in place.iterdir() if place.is_dir() and not place.is_symlink() else ():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path.name not in (_TRIAL_FILE, _REPORT, _LOG):
                path.unlink()


def _place(folder: Path, number: int) -> Path:
    return folder / f"trial-{number:04d}"


def _run(folder: Path, number: int, trial: RunFile, metric: str) -> float:
    """Train a trial in a process of its own and return its metric.

    Raises:
        TrialFailedError: the training failed, or gave no metric.
    """
    from consumers.language_model.run_file import written
    from consumers.language_model.sweep import TrialFailedError

    place = _place(folder, number)
    place.mkdir(exist_ok=True)
    (place / _TRIAL_FILE).write_text(written(trial), encoding="utf-8")
    arguments = ["train", "code", "--config", str(place / _TRIAL_FILE), "--out", str(place), "--replace", "--json"]
    printed, log = place / _REPORT, place / _LOG
    status = run_child(arguments, printed, log)
    value = _metric(printed.read_text(encoding="utf-8"), metric) if status == 0 else None
    if value is None:
        raise TrialFailedError(last_line(log) or f"no {metric}: there are no held-out rows")
    return value


def _metric(printed: str, metric: str) -> float | None:
    values: dict[str, Any] = json.loads(printed)
    return None if values[metric] is None else float(values[metric])


def _show(found: list[Trial], metric: str, folder: Path) -> None:
    names = list(dict.fromkeys(name for trial in found for name in trial.settings))
    table = Table("rank", "trial", metric, *names, "state", title=f"sweep -> {folder}")
    for rank, trial in enumerate(found, start=1):
        value = "" if trial.metric is None else f"{trial.metric:.4f}"
        settings = (f"{trial.settings[name]:.3g}" if name in trial.settings else "" for name in names)
        table.add_row(str(rank), str(trial.number), value, *settings, trial.error or trial.state)
    Console().print(table)
