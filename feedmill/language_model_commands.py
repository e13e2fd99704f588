"""The commands `feedmill train code` and `train scenario`: train a causal language model by a run file in YAML."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from feedmill.extras import require, require_code
from feedmill.progress import progress
from feedmill.train_commands import require_torch, show_steps
from schema.errors import UsageError
from schema.settings import load_settings

if TYPE_CHECKING:
    from consumers.language_model.run_file import RunFile
    from consumers.language_model.training import ModelTraining
    from consumers.training.report import TrainReport

Config = Annotated[
    str | None, typer.Option(metavar="FILE", help="A run file, or one that ships with Feedmill, e.g. phase1.yml.")
]
Steps = Annotated[int | None, typer.Option(min=1, help="Optimizer steps, in place of those of the file.")]
LoadFrom = Annotated[str | None, typer.Option(help="Folder of the run to begin with, in place of the file's.")]
Out = Annotated[Path | None, typer.Option(help="Folder of the run.")]
Resume = Annotated[bool, typer.Option("--resume", help="Continue from the newest checkpoint, with the run's own file.")]
LeaveOutRetracted = Annotated[
    bool,
    typer.Option("--leave-out-retracted", help="Resume although rows were retracted since, without these rows."),
]
Replace = Annotated[bool, typer.Option("--replace", help="Delete the run that is in the folder.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]


def train_code_command(
    config: Config = None,
    steps: Steps = None,
    base: Annotated[
        str | None, typer.Option(help="Base model, in place of the file's: tiny, a folder, or a cached name.")
    ] = None,
    load_from: LoadFrom = None,
    tokenizer: Annotated[str | None, typer.Option(help="Tokenizer, in place of the file's.")] = None,
    trust_base: Annotated[
        bool, typer.Option("--trust-base", help="Train a base model although it does not know plain English.")
    ] = False,
    out: Out = None,
    resume: Resume = False,
    leave_out_retracted: LeaveOutRetracted = False,
    replace: Replace = False,
    as_json: Json = False,
) -> None:
    """Train a causal language model on the documents of code.clean, or a LoRA adapter of one.

    Under `torchrun --nproc-per-node N -m feedmill train code ...` N ranks share every batch.
    """
    _require()
    require_code("train code")
    from consumers.language_model.training import CodeTraining

    file, folder = _run_file("code", config, out, resume, steps, load_from, base=base, tokenizer=tokenizer)
    training = partial(CodeTraining, file, trust_base=trust_base, leave_out_retracted=leave_out_retracted)
    _train(training, file, folder, resume=resume, replace=replace, as_json=as_json)


def train_scenario_command(
    config: Config = None,
    steps: Steps = None,
    load_from: LoadFrom = None,
    out: Out = None,
    resume: Resume = False,
    leave_out_retracted: LeaveOutRetracted = False,
    replace: Replace = False,
    as_json: Json = False,
) -> None:
    """Train a causal language model on scenario.clean: the response, given context and request.

    Under `torchrun --nproc-per-node N -m feedmill train scenario ...` N ranks share every batch.
    """
    _require()
    from consumers.language_model.training import ScenarioTraining

    file, folder = _run_file("scenario", config, out, resume, steps, load_from)
    training = partial(ScenarioTraining, file, leave_out_retracted=leave_out_retracted)
    _train(training, file, folder, resume=resume, replace=replace, as_json=as_json)


def _require() -> None:
    require_torch()
    require("training", "train", "peft", "yaml", "tokenizers")


def _run_file(
    family: str,
    config: str | None,
    out: Path | None,
    resume: bool,
    steps: int | None,
    load_from: str | None,
    **model: str | None,
) -> tuple[RunFile, Path]:
    """Return the run file, with the values of the command line, and the run's folder."""
    from consumers.language_model.quantization import check_quantization
    from consumers.language_model.run_file import read_run_file, with_changes
    from consumers.language_model.training import saved_run_file

    folder = out or load_settings().data_dir / "models" / family
    if config is None and not resume:
        raise UsageError("--config is missing: name a run file, e.g. phase1.yml, or say --resume")
    name = str(saved_run_file(folder)) if config is None else config
    file = with_changes(read_run_file(name), name, steps=steps, load_from=load_from, **model)
    # Before the broker starts and documents are counted.
    check_quantization(file.model.quantize)
    return file, folder


def _train(
    made: Callable[..., ModelTraining],
    file: RunFile,
    folder: Path,
    *,
    resume: bool,
    replace: bool,
    as_json: bool,
) -> None:
    """Train, write the model card and print the result; rank 0 alone prints and writes."""
    from broker.clients import connect
    from consumers.language_model.model_card import write_model_card
    from consumers.language_model.run_file import written
    from consumers.training.ranks import joined
    from consumers.training.stopping import StopRequest, stop_on_signals

    settings = load_settings()
    stop = StopRequest()
    with joined() as ranks:
        # Rank 0 connects first: without a configured broker it starts one, which the other ranks then find.
        ranks.from_first(lambda: connect(settings).servers)
        training = made(connection=connect(settings), out=folder, cache=settings.data_dir / "tokens", resume=resume)
        counts = training.counts() if ranks.first else None
        if counts is not None and not as_json:
            print(counts, file=sys.stderr)
        options = training.options(ranks, replace=replace)
        quiet = as_json or not ranks.first
        with (
            stop_on_signals(stop),
            progress("training", options.budget.steps or 0, "steps", quiet=quiet) as advance,
        ):
            report = training.train(options, ranks, stop, show_steps(advance, options))
    if counts is None:
        return
    write_model_card(folder, training.family, written(file), counts)
    if as_json:
        print(json.dumps({**report.to_json(), "train_rows": asdict(counts)}))
    else:
        _show(report)


def _show(report: TrainReport) -> None:
    figures = report.judgement.figures
    held_out = "no held-out rows"
    if figures["held_out_tokens"]:
        before = f"{report.before['held_out_loss']:.3f} -> " if report.before is not None else ""
        held_out = (
            f"held out: loss {before}{figures['held_out_loss']:.3f}, perplexity {figures['perplexity']:,.1f}, "
            f"{figures['right_tokens']:.1%} of {figures['held_out_tokens']:,} tokens right"
        )
    print(
        f"loss {report.first_loss:.3f} -> {report.last_loss:.3f} in {report.steps:,} steps, {report.elapsed_s:,.0f} s; "
        f"{held_out}; {report.tokens_per_s:,.0f} tokens/s, {report.padding_share:.1%} padding -> {report.checkpoint}",
        file=sys.stderr,
    )
    if report.too_long:
        print(f"{report.too_long:,} rows of over a row's tokens were left out", file=sys.stderr)
