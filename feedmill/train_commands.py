"""The commands `feedmill train ...`: one per family that has a trainer."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from feedmill.progress import progress
from schema.errors import ConfigError
from schema.settings import load_settings

if TYPE_CHECKING:
    from consumers.reduction.trainer import TrainReport

app = typer.Typer(help="Train a model from a family's clean topic.", no_args_is_help=True)

_SAMPLES = 10


@app.callback()
def _train() -> None:
    """Train a model from a family's clean topic."""


@app.command("reduction")
def train_reduction_command(
    steps: Annotated[int, typer.Option(min=1, help="Optimizer steps.")] = 300,
    batch_size: Annotated[int, typer.Option(min=1, help="Terms to a batch.")] = 32,
    split: Annotated[str, typer.Option(help="train, val or test.")] = "train",
    max_tokens: Annotated[int, typer.Option(min=3, help="Longer terms are left out, and counted.")] = 96,
    seed: Annotated[int, typer.Option(min=0, help="Of weights, shuffling and held-out rows.")] = 0,
    out: Annotated[Path | None, typer.Option(help="The checkpoint's folder; replaced if it is there.")] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Train on what arrives, too.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """Train a span predictor: point at the redex that normal order reduces next."""
    from broker.clients import connect

    require_torch()
    settings = load_settings()
    connection = connect(settings)
    with progress("training", steps, quiet=as_json) as advance:
        # Loading torch takes seconds: the bar stands there already.
        from consumers.feed import Feed, FeedOptions
        from consumers.reduction.trainer import Step, TrainOptions, train

        feed = Feed(
            connection,
            "reduction",
            split=split,
            batch_size=batch_size,
            mode="follow" if follow else "snapshot",
            shuffle_seed=seed,
            options=FeedOptions(max_tokens=max_tokens, bucket=True),
        )
        options = TrainOptions(out=out or settings.data_dir / "models" / "reduction", steps=steps, seed=seed)

        def show(step: Step) -> None:
            advance(step.number, f"loss {step.loss:.3f}, {step.tokens_per_s:,.0f} tokens/s")

        report = train(feed, options, show)
    if as_json:
        print(json.dumps(_told(report)))
    else:
        _show(report, max_tokens)


def require_torch() -> None:
    """Raise ConfigError, naming the extra to install, where a training library is missing."""
    missing = [name for name in ("torch", "transformers", "safetensors") if find_spec(name) is None]
    if missing:
        raise ConfigError(f"training needs {', '.join(missing)}: install the extra with `pip install feedmill[train]`")


def _told(report: TrainReport) -> dict[str, Any]:
    samples = [asdict(sample) | {"correct": sample.correct} for sample in report.samples[:_SAMPLES]]
    return asdict(report) | {"checkpoint": str(report.checkpoint), "samples": samples}


def _show(report: TrainReport, max_tokens: int) -> None:
    from consumers.reduction.samples import render_sample

    console = Console()
    for sample in report.samples[:_SAMPLES]:
        console.print(render_sample(sample.term, sample.true_span, sample.predicted_span), soft_wrap=True)
    exact = "no held-out rows" if report.exact_span is None else f"{report.exact_span:.1%} of {report.held_out_rows}"
    print(
        f"loss {report.first_loss:.3f} -> {report.last_loss:.3f} in {report.steps} steps; exact span: {exact}; "
        f"{report.tokens_per_s:,.0f} tokens/s, {report.padding_share:.1%} padding -> {report.checkpoint}",
        file=sys.stderr,
    )
    if report.too_long:
        print(f"{report.too_long:,} terms of over {max_tokens} tokens were left out", file=sys.stderr)
