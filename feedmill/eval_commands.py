"""The command `feedmill eval reduction`: evaluates a checkpoint on freshly generated examples."""

from __future__ import annotations

import json
import sys
import time
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from feedmill.progress import OnAdvance, progress
from feedmill.train_commands import require_torch
from schema.errors import BrokerError, CheckpointError, FeedError
from schema.settings import load_settings

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

# Fixed, so that two checkpoints are judged on the same terms. Nobody types it for a training run; terms that are in
# the training set all the same are dropped.
_SEED = 918_273_645
_HINT = "give --unchecked, which may judge the model on terms it was trained on"


def eval_reduction_command(
    checkpoint: Annotated[Path, typer.Option(help="Folder of a training run, or of one of its checkpoints.")],
    count: Annotated[int, typer.Option(min=1, help="Fresh rows whose redex is predicted.")] = 10_000,
    traces: Annotated[
        int, typer.Option(min=1, help="Initial terms to reduce to the end; size bands that lack terms get more.")
    ] = 600,
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Seed of the fresh terms.")] = _SEED,
    fuel: Annotated[int, typer.Option(min=1, help="Most beta steps of a trace.")] = 250,
    bf16: Annotated[
        bool | None,
        typer.Option("--bf16/--no-bf16", help="Use bfloat16 for matrix products; by default if it is faster here."),
    ] = None,
    unchecked: Annotated[
        bool, typer.Option("--unchecked", help="Do not drop terms that are in the training set.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """Evaluate a span predictor on fresh terms: exact spans, and whole traces reduced by its predictions alone."""
    require_torch()
    import torch

    from consumers.reduction.evaluation import evaluate
    from consumers.reduction.model_predictor import ModelPredictor
    from consumers.reduction.saved_model import load_model
    from consumers.reduction.whole_trace import TraceLimits
    from consumers.training.options import bf16_is_fast
    from consumers.training.run_folder import find_checkpoint
    from feedmill.fresh_terms import draw
    from producers.reduction.run import ReductionRun

    began = time.monotonic()
    folder = find_checkpoint(checkpoint)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    predict = ModelPredictor(load_model(folder).to(device), bf16=bf16_is_fast(device) if bf16 is None else bf16)
    run = ReductionRun(count=count, seed=seed, fuel=fuel)
    known = _known(folder, unchecked=unchecked, quiet=as_json)
    fresh = draw(run, traces, known)
    with _Bars({"rows": fresh.rows.height, "traces": fresh.starts.height}, quiet=as_json) as bars:
        figures = evaluate(fresh.rows, fresh.starts, predict, TraceLimits(fuel, run.size_cap), bars.show)
    report: dict[str, Any] = {
        "checkpoint": str(folder),
        "seed": seed,
        "fuel": fuel,
        "size_cap": run.size_cap,
        "training_terms": None if unchecked else len(known),
        "generated": fresh.generated,
        "dropped": fresh.dropped,
        "repeated": fresh.repeated,
        **asdict(figures),
        "elapsed_s": round(time.monotonic() - began, 3),
    }
    if as_json:
        print(json.dumps(report))
    else:
        _show(report)


def _known(folder: Path, *, unchecked: bool, quiet: bool) -> npt.NDArray[np.uint64]:
    """Return the ids of the terms that the checkpoint was trained on; an empty array if `unchecked`.

    Raises:
        CheckpointError: the checkpoint does not record its training set.
        FeedError, BrokerError: the topics cannot be read completely.
    """
    import numpy as np

    if unchecked:
        return np.empty(0, dtype=np.uint64)
    from broker.clients import connect
    from consumers.training.checkpoint import TRAINER, read_feed_states
    from consumers.training.training_set import TrainingSet

    states = read_feed_states(folder)
    if states is None:
        raise CheckpointError(f"{folder / TRAINER} does not record which rows the run read: {_HINT}")
    try:
        connection = connect(load_settings())
        ids = []
        for training_set in [TrainingSet(connection, state) for state in states]:
            with progress("reading the training set", training_set.offsets, quiet=quiet) as advance:
                ids.append(training_set.ids(advance))
        return np.unique(np.concatenate(ids))
    except (FeedError, BrokerError) as error:
        raise type(error)(f"{error}; or {_HINT}") from error


class _Bars:
    """Progress bars for the stages of an evaluation, one after the other."""

    def __init__(self, totals: dict[str, int], *, quiet: bool) -> None:
        self._totals, self._quiet = totals, quiet
        self._shown = ExitStack()
        self._stage = ""
        self._advance: OnAdvance | None = None

    def __enter__(self) -> _Bars:
        return self

    def __exit__(self, *error: object) -> None:
        self._shown.close()

    def show(self, stage: str, done: int, note: str) -> None:
        """Show the items done in a stage; the bar of an earlier stage ends."""
        if stage != self._stage or self._advance is None:
            self._shown.close()
            self._stage = stage
            self._advance = self._shown.enter_context(progress(stage, self._totals[stage], quiet=self._quiet))
        self._advance(done, note)


def _show(report: dict[str, Any]) -> None:
    from rich.console import Console

    from feedmill.eval_tables import evaluation_tables

    Console().print(evaluation_tables(report), soft_wrap=True)
    checked = "not checked against the training set"
    if report["training_terms"] is not None:
        checked = f"{report['dropped']:,} were among the {report['training_terms']:,} of the training set and dropped"
    print(
        f"seed {report['seed']}: of {report['generated']:,} terms generated, {checked}; {report['elapsed_s']:,.0f} s",
        file=sys.stderr,
    )
