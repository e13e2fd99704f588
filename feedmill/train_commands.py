"""The command `feedmill train reduction`: trains a span predictor."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from feedmill.extras import require
from feedmill.progress import OnAdvance, progress
from feedmill.train_settings import (
    BATCH_TOKENS,
    CURRICULUM,
    LEARNING_RATE,
    MAX_TOKENS,
    STEPS,
    budget_of,
    chosen_settings,
    parse_curriculum,
)
from schema.errors import UsageError
from schema.settings import load_settings

if TYPE_CHECKING:
    from broker.clients import Connection
    from consumers.feed import Feed
    from consumers.reduction.samples import Sample
    from consumers.sequence.sources import Source
    from consumers.training.options import TrainOptions
    from consumers.training.rank_passes import RankPasses
    from consumers.training.ranks import Ranks
    from consumers.training.report import Step, TrainReport
    from consumers.training.stages import CurriculumStage
    from consumers.training.stopping import StopRequest

_SAMPLES = 10


def train_reduction_command(
    steps: Annotated[
        int | None, typer.Option(min=1, help=f"Optimizer steps; {STEPS} if --minutes is not given.")
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(min=0.01, help="End after this time; a resumed run counts its earlier time.")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Terms in a batch, over all ranks.")] = None,
    batch_tokens: Annotated[
        int | None,
        typer.Option(min=3, help=f"Tokens in a batch, over all ranks; {BATCH_TOKENS} if --batch-size is not given."),
    ] = None,
    least_rows: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Fewest terms in a batch, and most ranks that can share it. Terms that fill no batch are dropped.",
            show_default="the number of ranks",
        ),
    ] = None,
    max_tokens: Annotated[
        int | None, typer.Option(min=3, help="Longer terms are left out and counted.", show_default=str(MAX_TOKENS))
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="Train on train, val or test; another one judges the run.", show_default="train")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Seed of weights, shuffling and held-out rows.", show_default="0")
    ] = None,
    length_curriculum: Annotated[
        str | None,
        typer.Option(
            metavar="SHARE:TOKENS,...",
            help="Short terms first: 0.35:128 leaves out terms of over 128 tokens for 35% of the budget. Or `none`.",
            show_default=",".join(f"{share}:{tokens}" for share, tokens in CURRICULUM),
        ),
    ] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Highest rate.", show_default=str(LEARNING_RATE))] = None,
    bf16: Annotated[
        bool | None,
        typer.Option("--bf16/--no-bf16", help="Use bfloat16 for matrix products; by default if it is faster here."),
    ] = None,
    compiled: Annotated[bool, typer.Option("--compile", help="Have torch compile the model.")] = False,
    gradient_checkpointing: Annotated[
        bool, typer.Option("--gradient-checkpointing", help="Use less memory and more time.")
    ] = False,
    checkpoint_every: Annotated[int, typer.Option(min=1, help="Steps between checkpoints.")] = 200,
    eval_every: Annotated[int, typer.Option(min=1, help="Steps between evaluations on held-out terms.")] = 500,
    out: Annotated[Path | None, typer.Option(help="Folder of the run.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue from the newest checkpoint, with its settings.")
    ] = False,
    leave_out_retracted: Annotated[
        bool,
        typer.Option("--leave-out-retracted", help="Resume although rows were retracted since, without these rows."),
    ] = False,
    init_from: Annotated[
        Path | None,
        typer.Option(
            help="Begin a new run with the weights of this checkpoint, e.g. to train on rows that arrived since."
        ),
    ] = None,
    old_share: Annotated[
        float | None,
        typer.Option(help="With --init-from: train on rows that arrived since, and on this share of earlier rows."),
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Delete the run that is in the folder.")] = False,
    follow: Annotated[bool, typer.Option("--follow", help="Also train on rows that arrive during the run.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """Train a span predictor, which marks the redex that normal order reduces next.

    Under `torchrun --nproc-per-node N -m feedmill train reduction ...` N ranks share every batch.
    """
    require_torch()
    settings = load_settings()
    from broker.clients import connect
    from consumers.training.options import Execution, Judging, Optimisation, Saving, TrainOptions
    from consumers.training.ranks import joined
    from consumers.training.run import saved_choices
    from consumers.training.stages import CurriculumStage
    from consumers.training.stopping import StopRequest

    given = {
        "split": split,
        "batch_size": batch_size,
        "batch_tokens": batch_tokens,
        "least_rows": least_rows,
        "max_tokens": max_tokens,
        "seed": seed,
        "curriculum": None if length_curriculum is None else parse_curriculum(length_curriculum),
        "learning_rate": learning_rate,
        "bf16": bf16,
        "mode": "follow" if follow else None,
    }
    saving = Saving(
        out=out or settings.data_dir / "models" / "reduction",
        every_steps=checkpoint_every,
        resume=resume,
        init_from=init_from,
        replace=replace,
    )
    with joined() as ranks:
        saved = ranks.from_first(lambda: saved_choices(saving.out)) if resume else {}
        chosen = chosen_settings(given, saved, ranks)
        options = TrainOptions(
            saving=saving,
            budget=budget_of(steps, minutes, saved),
            seed=chosen["seed"],
            optimisation=Optimisation(learning_rate=chosen["learning_rate"], bf16=chosen["bf16"]),
            execution=Execution(compile=compiled, gradient_checkpointing=gradient_checkpointing),
            judging=Judging(every_steps=eval_every),
        )
        # Rank 0 connects first: without a configured broker it starts one, which the other ranks then find.
        ranks.from_first(lambda: connect(settings).servers)
        connection = connect(settings)
        stop = StopRequest()
        sources = _sources(connection, old_share, init_from, saved)
        stages = [
            CurriculumStage(
                _feed(
                    connection,
                    {**chosen, "max_tokens": tokens, "leave_out_retracted": leave_out_retracted, "sources": sources},
                    ranks,
                    _together(ranks, number, chosen, stop),
                ),
                until,
            )
            for number, (until, tokens) in enumerate([*chosen["curriculum"], (1.0, chosen["max_tokens"])])
        ]
        report = _train(stages, options, ranks, stop, quiet=as_json or not ranks.first)
    if not ranks.first:
        return
    if as_json:
        print(json.dumps(_as_json(report)))
    else:
        _show(report, chosen["max_tokens"])


def require_torch() -> None:
    """Raise ConfigError, naming the extra to install, if a training library is missing."""
    require("training", "train", "torch", "transformers", "safetensors", "tensorboard")


def show_steps(advance: OnAdvance, options: TrainOptions) -> Callable[[Step], None]:
    """Return a callback that shows each step of a run against the budget, in steps or in seconds.

    After a step it says if the model is judged next, because that can take as long as many steps.
    """
    budget, every = options.budget, options.judging.every_steps

    def show(step: Step) -> None:
        done = step.elapsed_s if budget.steps is None else step.number
        note = f"loss {step.loss:.3f}, {step.tokens_per_s:,.0f} tokens/s"
        if step.number % every == 0 or step.number == budget.steps:
            note += ", judging held-out rows"
        advance(done, note if budget.steps is not None else f"step {step.number:,}, {note}")

    return show


def _together(ranks: Ranks, stage: int, chosen: Mapping[str, Any], stop: StopRequest) -> RankPasses | None:
    """Return how ranks agree on the passes of a stage's feed; None if they need not agree."""
    from consumers.training.rank_passes import RankPasses

    return RankPasses(ranks, f"stage-{stage}", stop) if ranks.world > 1 and chosen["mode"] == "follow" else None


def _sources(
    connection: Connection, old_share: float | None, init_from: Path | None, saved: Mapping[str, Any]
) -> tuple[Source, ...]:
    """Return the sources of the feed: the topic, or what arrived since a checkpoint and a share of earlier rows."""
    from consumers.sequence.sources import Source
    from consumers.training.old_rows import newer_and_older, sources_of

    if saved:
        if old_share is not None:
            raise UsageError("a resumed run keeps its rows: leave --old-share out")
        return sources_of(saved["sources"]) if len(saved["sources"]) > 1 else (Source(),)
    if old_share is None:
        return (Source(),)
    if init_from is None:
        raise UsageError("--old-share needs --init-from, the run that was trained on the old rows")
    return newer_and_older(connection, init_from, old_share)


def _feed(connection: Connection, chosen: Mapping[str, Any], ranks: Ranks, together: RankPasses | None) -> Feed:
    from consumers.feed import Feed, FeedOptions

    return Feed(
        connection,
        "reduction",
        split=chosen["split"],
        batch_size=chosen["batch_size"],
        mode=chosen["mode"],
        shuffle_seed=chosen["seed"],
        options=FeedOptions(
            max_tokens=chosen["max_tokens"],
            batch_tokens=chosen["batch_tokens"],
            least_rows=chosen["least_rows"],
            bucket=True,
            rank=ranks.rank,
            world=ranks.world,
            together=together,
            leave_out_retracted=chosen["leave_out_retracted"],
            sources=chosen["sources"],
        ),
    )


def _train(
    stages: Sequence[CurriculumStage], options: TrainOptions, ranks: Ranks, stop: StopRequest, *, quiet: bool
) -> TrainReport:
    from consumers.reduction.task import ReductionTask
    from consumers.training.run import train
    from consumers.training.stopping import stop_on_signals

    total = options.budget.steps or options.budget.seconds or 0.0
    unit = "s" if options.budget.steps is None else "steps"
    *before, last = stages
    with stop_on_signals(stop), progress("training", total, unit, quiet=quiet) as advance:
        show = show_steps(advance, options)
        return train(ReductionTask(), last.feed, options, show, before=before, ranks=ranks, stop=stop)


def samples_of(report: TrainReport) -> list[Sample]:
    """Return the first held-out terms with their predictions."""
    from consumers.reduction.samples import Sample

    return [Sample.from_json(values) for values in report.judgement.samples[:_SAMPLES]]


def _as_json(report: TrainReport) -> dict[str, Any]:
    samples = [asdict(sample) | {"correct": sample.correct} for sample in samples_of(report)]
    return report.to_json() | {"samples": samples}


def _show(report: TrainReport, max_tokens: int) -> None:
    from consumers.reduction.samples import render_sample
    from feedmill.eval_tables import spans_table

    console = Console()
    figures = report.judgement.figures
    for sample in samples_of(report):
        console.print(render_sample(sample.term, sample.true_span, sample.predicted_span), soft_wrap=True)
    if figures["held_out_rows"]:
        if report.before is not None:
            console.print(spans_table(report.before["held_out"], "held-out terms before"))
        console.print(spans_table(figures["held_out"], "held-out terms"))
        exact = f"{figures['exact_span']:.1%} of {figures['held_out_rows']:,}"
    else:
        exact = "no held-out rows"
    print(
        f"loss {report.first_loss:.3f} -> {report.last_loss:.3f} in {report.steps:,} steps, {report.elapsed_s:,.0f} s; "
        f"exact span: {exact}; {report.tokens_per_s:,.0f} tokens/s, {report.padding_share:.1%} padding "
        f"-> {report.checkpoint}",
        file=sys.stderr,
    )
    if report.too_long:
        print(f"{report.too_long:,} terms of over {max_tokens} tokens were left out", file=sys.stderr)
