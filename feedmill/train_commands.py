"""The command `feedmill train reduction`: trains a span predictor."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from feedmill.progress import OnAdvance, progress
from schema.errors import ConfigError, UsageError
from schema.settings import load_settings

if TYPE_CHECKING:
    from broker.clients import Connection
    from consumers.feed import Feed
    from consumers.training.budget import Budget
    from consumers.training.options import CurriculumStage, TrainOptions
    from consumers.training.rank_passes import RankPasses
    from consumers.training.ranks import Ranks
    from consumers.training.report import Step, TrainReport
    from consumers.training.stopping import StopRequest

_SAMPLES = 10
_STEPS = 300
# Defaults of a new run.
_BATCH_TOKENS = 4096
_MAX_TOKENS = 2050
_LEARNING_RATE = 3e-3
# Brackets are learnt sooner in short terms, at a fraction of the cost; docs/reduction.md has the figures.
_CURRICULUM = [[0.35, 128], [0.65, 384]]
_DEFAULTS: Mapping[str, Any] = {
    "mode": "snapshot",
    "split": "train",
    "batch_size": None,
    "batch_tokens": _BATCH_TOKENS,
    "least_rows": None,
    "max_tokens": _MAX_TOKENS,
    "seed": 0,
    "curriculum": _CURRICULUM,
    "learning_rate": _LEARNING_RATE,
}


def train_reduction_command(
    steps: Annotated[
        int | None, typer.Option(min=1, help=f"Optimizer steps; {_STEPS} if --minutes is not given.")
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(min=0.01, help="End after this time; a resumed run counts its earlier time.")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Terms in a batch, over all ranks.")] = None,
    batch_tokens: Annotated[
        int | None,
        typer.Option(min=3, help=f"Tokens in a batch, over all ranks; {_BATCH_TOKENS} if --batch-size is not given."),
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
        int | None, typer.Option(min=3, help="Longer terms are left out and counted.", show_default=str(_MAX_TOKENS))
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
            show_default=",".join(f"{share}:{tokens}" for share, tokens in _CURRICULUM),
        ),
    ] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Highest rate.", show_default=str(_LEARNING_RATE))] = None,
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
    from consumers.training.options import CurriculumStage, Execution, Judging, Optimisation, Saving, TrainOptions
    from consumers.training.ranks import joined
    from consumers.training.run import saved_choices
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
        replace=replace,
    )
    with joined() as ranks:
        saved = ranks.from_first(lambda: saved_choices(saving.out)) if resume else {}
        chosen = chosen_settings(given, saved, ranks)
        options = TrainOptions(
            saving=saving,
            budget=_budget(steps, minutes, saved),
            seed=chosen["seed"],
            optimisation=Optimisation(learning_rate=chosen["learning_rate"], bf16=chosen["bf16"]),
            execution=Execution(compile=compiled, gradient_checkpointing=gradient_checkpointing),
            judging=Judging(every_steps=eval_every),
        )
        # Rank 0 connects first: without a configured broker it starts one, which the other ranks then find.
        ranks.from_first(lambda: connect(settings).servers)
        connection = connect(settings)
        stop = StopRequest()
        stages = [
            CurriculumStage(
                _feed(connection, {**chosen, "max_tokens": tokens}, ranks, _together(ranks, number, chosen, stop)),
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
    missing = [name for name in ("torch", "transformers", "safetensors", "tensorboard") if find_spec(name) is None]
    if missing:
        raise ConfigError(f"training needs {', '.join(missing)}: install the extra with `pip install feedmill[train]`")


def show_steps(advance: OnAdvance, budget: Budget) -> Callable[[Step], None]:
    """Return a callback that shows each step of a run against the budget, in steps or in seconds."""

    def show(step: Step) -> None:
        done = step.elapsed_s if budget.steps is None else step.number
        note = f"loss {step.loss:.3f}, {step.tokens_per_s:,.0f} tokens/s"
        advance(done, note if budget.steps is not None else f"step {step.number:,}, {note}")

    return show


def parse_curriculum(text: str) -> list[list[float]]:
    """Return `SHARE:TOKENS,...` as [[share, tokens], ...]; `none` as an empty list.

    Raises:
        UsageError: `text` is malformed, or its shares do not increase from above 0 to below 1.
    """
    try:
        stages = [stage.split(":") for stage in text.split(",")] if text != "none" else []
        parsed: list[list[float]] = [[float(share), int(tokens)] for share, tokens in stages]
    except ValueError:
        raise UsageError(
            f"--length-curriculum {text!r} is malformed: give SHARE:TOKENS,... such as 0.3:128,0.6:384, or none"
        ) from None
    shares = [0.0, *(share for share, _ in parsed), 1.0]
    if any(share >= later for share, later in itertools.pairwise(shares)):
        raise UsageError(f"--length-curriculum {text!r} is invalid: its shares must increase, from above 0 to below 1")
    return parsed


def chosen_settings(given: Mapping[str, Any], saved: Mapping[str, Any], ranks: Ranks) -> dict[str, Any]:
    """Return every setting: the given value, else the checkpoint's, else the default. So `--resume` alone changes none.

    Args:
        given: the command's options by name; None for one that is not given.
        saved: the checkpoint's settings; empty for a new run.
        ranks: the ranks of the run, and which one this process is.

    Raises:
        UsageError: the checkpoint's batches may hold fewer rows than there are ranks.
    """
    from consumers.training.options import bf16_is_fast

    settings = {**_DEFAULTS, "bf16": bf16_is_fast(ranks.device), **saved}
    if given["batch_size"] is not None or given["batch_tokens"] is not None:
        settings |= {"batch_size": None, "batch_tokens": None}
    chosen = {name: settings[name] if value is None else value for name, value in given.items()}
    if saved and given["least_rows"] is None and chosen["least_rows"] < ranks.world:
        raise UsageError(
            f"the run's batches hold at least {chosen['least_rows']} rows, too few for {ranks.world} ranks: resume "
            f"with at most {chosen['least_rows']} ranks, or begin a new run with --least-rows {ranks.world}"
        )
    if not saved and given["batch_size"] is None and given["batch_tokens"] is None:
        # Every rank needs a row of each batch, the longest rows included.
        chosen["batch_tokens"] = max(_BATCH_TOKENS, (chosen["least_rows"] or ranks.world) * chosen["max_tokens"])
    # Drop stages that leave out no more terms than the whole run does.
    stages = [[share, tokens] for share, tokens in chosen["curriculum"] if tokens < chosen["max_tokens"]]
    return {**chosen, "curriculum": stages}


def _budget(steps: int | None, minutes: float | None, saved: Mapping[str, Any]) -> Budget:
    from consumers.training.budget import Budget

    if steps is None and minutes is None:
        return Budget(**saved["budget"]) if saved else Budget(steps=_STEPS)
    return Budget(steps=steps, seconds=None if minutes is None else 60 * minutes)


def _together(ranks: Ranks, stage: int, chosen: Mapping[str, Any], stop: StopRequest) -> RankPasses | None:
    """Return how ranks agree on the passes of a stage's feed; None if they need not agree."""
    from consumers.training.rank_passes import RankPasses

    return RankPasses(ranks, f"stage-{stage}", stop) if ranks.world > 1 and chosen["mode"] == "follow" else None


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
        ),
    )


def _train(
    stages: Sequence[CurriculumStage], options: TrainOptions, ranks: Ranks, stop: StopRequest, *, quiet: bool
) -> TrainReport:
    from consumers.training.run import train
    from consumers.training.stopping import stop_on_signals

    total = options.budget.steps or options.budget.seconds or 0.0
    unit = "s" if options.budget.steps is None else "steps"
    *before, last = stages
    with stop_on_signals(stop), progress("training", total, unit, quiet=quiet) as advance:
        return train(last.feed, options, show_steps(advance, options.budget), before=before, ranks=ranks, stop=stop)


def _as_json(report: TrainReport) -> dict[str, Any]:
    samples = [asdict(sample) | {"correct": sample.correct} for sample in report.samples[:_SAMPLES]]
    return asdict(report) | {"checkpoint": str(report.checkpoint), "samples": samples}


def _show(report: TrainReport, max_tokens: int) -> None:
    from consumers.reduction.samples import render_sample
    from feedmill.eval_tables import spans_table

    console = Console()
    for sample in report.samples[:_SAMPLES]:
        console.print(render_sample(sample.term, sample.true_span, sample.predicted_span), soft_wrap=True)
    if report.held_out_rows:
        console.print(spans_table(report.held_out, "held-out terms"))
    exact = "no held-out rows" if report.exact_span is None else f"{report.exact_span:.1%} of {report.held_out_rows:,}"
    print(
        f"loss {report.first_loss:.3f} -> {report.last_loss:.3f} in {report.steps:,} steps, {report.elapsed_s:,.0f} s; "
        f"exact span: {exact}; {report.tokens_per_s:,.0f} tokens/s, {report.padding_share:.1%} padding "
        f"-> {report.checkpoint}",
        file=sys.stderr,
    )
    if report.too_long:
        print(f"{report.too_long:,} terms of over {max_tokens} tokens were left out", file=sys.stderr)
