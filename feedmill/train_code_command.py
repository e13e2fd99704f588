"""The command `feedmill train code`: trains a causal language model on code, by a run file in YAML."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from feedmill.extras import require, require_code
from feedmill.progress import progress
from feedmill.train_commands import require_torch, show_steps
from schema.errors import UsageError
from schema.settings import load_settings

if TYPE_CHECKING:
    from consumers.training.report import TrainReport


def train_code_command(
    config: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="A run file, or one that ships with Feedmill, e.g. phase1.yml."),
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Optimizer steps, in place of those of the file.")] = None,
    base: Annotated[
        str | None, typer.Option(help="Base model, in place of the file's: tiny, a folder, or a cached name.")
    ] = None,
    load_from: Annotated[
        str | None, typer.Option(help="Folder of the run to begin with, in place of the file's.")
    ] = None,
    tokenizer: Annotated[str | None, typer.Option(help="Tokenizer, in place of the file's.")] = None,
    trust_base: Annotated[
        bool, typer.Option("--trust-base", help="Train a base model although it does not know plain English.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Folder of the run.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue from the newest checkpoint, with the run's own file.")
    ] = False,
    replace: Annotated[bool, typer.Option("--replace", help="Delete the run that is in the folder.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """Train a causal language model on the documents of code.clean, or a LoRA adapter of one.

    Under `torchrun --nproc-per-node N -m feedmill train code ...` N ranks share every batch.
    """
    require_torch()
    require_code("train code")
    require("training", "train", "peft", "yaml")
    settings = load_settings()
    from broker.clients import connect
    from consumers.language_model.code_run import CodeTraining, saved_run_file
    from consumers.language_model.model_card import write_model_card
    from consumers.language_model.run_file import read_run_file, with_changes, written
    from consumers.source_code.document_filters import count_documents
    from consumers.training.ranks import joined
    from consumers.training.stopping import StopRequest, stop_on_signals

    folder = out or settings.data_dir / "models" / "code"
    if config is None and not resume:
        raise UsageError("--config is missing: name a run file, e.g. phase1.yml, or say --resume")
    name = str(saved_run_file(folder)) if config is None else config
    file = with_changes(read_run_file(name), name, steps=steps, base=base, load_from=load_from, tokenizer=tokenizer)
    stop = StopRequest()
    with joined() as ranks:
        ranks.from_first(lambda: connect(settings).servers)
        training = CodeTraining(file, connect(settings), folder, settings.data_dir / "tokens", trust_base, resume)
        options = training.options(ranks, replace=replace)
        counts = count_documents(training.connection, training.filters) if ranks.first else None
        if counts is not None and not as_json:
            print(counts, file=sys.stderr)
        total = options.budget.steps or 0
        with stop_on_signals(stop), progress("training", total, "steps", quiet=as_json or not ranks.first) as advance:
            report = training.train(options, ranks, stop, show_steps(advance, options.budget))
    if counts is None:
        return
    write_model_card(folder, written(file), counts)
    if as_json:
        print(json.dumps({**report.to_json(), "documents": asdict(counts)}))
    else:
        _show(report)


def _show(report: TrainReport) -> None:
    figures = report.judgement.figures
    held_out = "no held-out rows"
    if figures["held_out_tokens"]:
        held_out = (
            f"held out: loss {figures['held_out_loss']:.3f}, perplexity {figures['perplexity']:,.1f}, "
            f"{figures['right_tokens']:.1%} of {figures['held_out_tokens']:,} tokens right"
        )
    print(
        f"loss {report.first_loss:.3f} -> {report.last_loss:.3f} in {report.steps:,} steps, {report.elapsed_s:,.0f} s; "
        f"{held_out}; {report.tokens_per_s:,.0f} tokens/s, {report.padding_share:.1%} padding -> {report.checkpoint}",
        file=sys.stderr,
    )
