"""`feedmill demo`: runs the whole service once, on real data, in a few minutes on two cores.

Each step is one function, which shows its progress and returns figures for the closing tables. The broker and the
services that the demo starts end with it, also after Ctrl-C. The data are kept, and a later demo adds to them.
"""

from __future__ import annotations

import os
import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from feedmill.demo_code import augmented, code_demo
from feedmill.demo_steps import Pace, drain_shown, services_of, show_coverage, show_paces, suggest
from feedmill.extras import require_code
from feedmill.progress import progress
from feedmill.train_commands import require_torch, samples_of
from schema.registry import family_named
from schema.settings import load_settings

if TYPE_CHECKING:
    from broker.clients import Connection
    from consumers.reduction.samples import Sample
    from consumers.replay.topic_range import ReplayReport
    from consumers.training.report import TrainReport
    from feedmill.services import Service

FAMILY = "reduction"
SCENARIO = "scenario"
# About one generated term in ten is a duplicate from another trace; over 200,000 remain.
_COUNT = 250_000
_SCENARIOS = 2_000
_TRAIN_STEPS = 500
_TRAIN_LIMIT_S = 60.0
_BATCH_ROWS = 32
# In one minute of training, short terms teach as much as long ones, at a fraction of the cost.
_MAX_TOKENS = 96
_SAMPLES = 10


class DemoFamily(StrEnum):
    """The examples that a demo shows."""

    reduction = "reduction"
    code = "code"


def demo_command(
    family: Annotated[
        DemoFamily, typer.Option(help="reduction also shows scenarios; code reads Python's standard library.")
    ] = DemoFamily.reduction,
    count: Annotated[int, typer.Option(min=1000, help="Reductions to generate.")] = _COUNT,
    steps: Annotated[int, typer.Option(min=1, help="Training steps.")] = _TRAIN_STEPS,
    seed: Annotated[int | None, typer.Option(min=0, help="Random and printed if not given.")] = None,
) -> None:
    """Show the whole service: Kafka, generation, refining, coverage, a replay file and a first model."""
    from feedmill.services import broker_while_needed

    # Checked first, not after minutes of work.
    require_torch()
    if family is DemoFamily.code:
        require_code("the demo of code")
    settings = load_settings()
    if family is DemoFamily.code:
        settings = augmented(settings)
    console = Console()
    with (
        broker_while_needed(settings, lambda line: console.print(f"[dim]{line}[/]")) as connection,
        services_of(settings, connection) as services,
    ):
        console.print(f"Kafka at {connection.servers}")
        if family is DemoFamily.code:
            code_demo(connection, services, console)
            return
        paces = _fill(connection, services, count, seed, console)
        paces.append(_close_gaps(connection, console))
        report = show_coverage(connection, FAMILY, console)
        paces.append(_scenarios(connection, services, seed, console))
        show_coverage(connection, SCENARIO, console)
        replayed, pace = _replay(connection)
        paces.append(pace)
        trained, pace = _train(connection, steps, settings.data_dir / "demo" / "span-predictor")
        paces.append(pace)
        _show_samples(samples_of(trained)[:_SAMPLES], console)
        _close(console, paces, report, replayed, trained)


def _fill(
    connection: Connection, services: list[Service], count: int, seed: int | None, console: Console
) -> list[Pace]:
    """Generate `count` examples into raw, and wait until all are refined and folded into coverage."""
    from producers.reduction.run import ReductionRun
    from producers.run import produce
    from producers.seeds import fresh_seed

    run = ReductionRun(count=count, seed=fresh_seed() if seed is None else seed, workers=os.cpu_count() or 1)
    console.print(f"generating {count:,} reductions, seed {run.seed}")
    before = _rows_in(connection)
    began = time.monotonic()
    with progress("generate", count) as advance:
        produce(connection, run, advance)
    generated_s = time.monotonic() - began
    drain_shown(connection, services, FAMILY)
    refined_s = time.monotonic() - began
    rows = _rows_in(connection) - before
    return [
        Pace("generate", count, "examples/s", generated_s),
        Pace("raw -> clean, ledger, coverage (while generating)", rows, "examples/s", refined_s),
    ]


def _rows_in(connection: Connection) -> int:
    from streams.coverage.client import open_coverage

    with open_coverage(connection) as coverage:
        return int(coverage.report(FAMILY)["rows_in"])


def _close_gaps(connection: Connection, console: Console) -> Pace:
    """Make terms for the cells that random generation left empty, until coverage requests no more."""
    from producers.follow import FollowProgress, follow, maker
    from producers.reduction.filling import fill
    from producers.seeds import fresh_seed

    family, drawn = family_named(FAMILY), fresh_seed()
    make = maker(connection, family, fill, f"demo-gaps-{drawn:x}", drawn)
    began = time.monotonic()
    most = [1]
    with progress("close gaps", 100, "percent") as advance:

        def show(now: FollowProgress) -> None:
            most[0] = max(most[0], now.open_cells)
            advance(100 - 100 * now.open_cells / most[0], f"{now.open_cells} cells open")

        done = follow(connection, family, make, connection.settings.rows_per_record, show)
    console.print(f"gaps: {done.rows_sent:,} terms made for the cells that random generation left empty")
    return Pace("close gaps (requested, made, counted)", done.rows_sent, "examples/s", time.monotonic() - began)


def _scenarios(connection: Connection, services: list[Service], seed: int | None, console: Console) -> Pace:
    """Compose scenarios for all cells, in their target shares, and wait until they are refined and folded."""
    from producers.run import produce
    from producers.scenario.run import ScenarioRun
    from producers.seeds import fresh_seed

    run = ScenarioRun(count=_SCENARIOS, seed=fresh_seed() if seed is None else seed)
    console.print(f"composing {_SCENARIOS:,} scenarios, seed {run.seed}")
    began = time.monotonic()
    with progress("compose", _SCENARIOS) as advance:
        produce(connection, run, advance)
    drain_shown(connection, services, SCENARIO)
    return Pace("scenarios to coverage", _SCENARIOS, "examples/s", time.monotonic() - began)


def _replay(connection: Connection) -> tuple[ReplayReport, Pace]:
    from consumers.replay.topic_range import ReplayProgress, replay

    out = connection.settings.data_dir / "demo" / "reductions.parquet"
    out.parent.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    with progress("replay", 100, "percent") as advance:

        def show(done: ReplayProgress) -> None:
            advance(100 * done.offsets_done / max(done.offsets_total, 1), f"{done.rows:,} rows")

        report = replay(connection, FAMILY, out, on_progress=show)
    return report, Pace("replay to Parquet", report.rows, "examples/s", time.monotonic() - began)


def _train(connection: Connection, steps: int, out: Path) -> tuple[TrainReport, Pace]:
    with progress("train", steps) as advance:
        # Loading torch takes seconds, so the bar is shown first.
        import torch

        from consumers.feed import Feed, FeedOptions
        from consumers.reduction.task import ReductionTask
        from consumers.training.budget import Budget
        from consumers.training.options import Optimisation, Saving, TrainOptions, bf16_is_fast
        from consumers.training.run import train

        feed = Feed(
            connection,
            FAMILY,
            batch_size=_BATCH_ROWS,
            shuffle_seed=0,
            options=FeedOptions(max_tokens=_MAX_TOKENS, bucket=True),
        )
        budget = Budget(steps=steps, seconds=_TRAIN_LIMIT_S)
        options = TrainOptions(
            saving=Saving(out=out, replace=True),
            budget=budget,
            optimisation=Optimisation(bf16=bf16_is_fast(torch.device("cpu"))),
        )
        task = ReductionTask()
        report = train(task, feed, options, lambda step: advance(step.number, f"loss {step.loss:.3f}"))
    return report, Pace("train", report.real_tokens, "tokens/s", report.elapsed_s)


def _show_samples(samples: list[Sample], console: Console) -> None:
    from consumers.reduction.samples import render_sample

    console.print("\nheld-out terms: [bold green]^ right[/], [bold yellow]- missed[/], [bold red]x wrongly marked[/]")
    for sample in samples:
        console.print(render_sample(sample.term, sample.true_span, sample.predicted_span), soft_wrap=True)


def _close(
    console: Console, paces: list[Pace], report: dict[str, Any], replayed: ReplayReport, trained: TrainReport
) -> None:
    from feedmill.coverage_tables import accounting_line

    show_paces(paces, console)
    console.print(accounting_line(report))
    console.print(f"replay: {replayed.path} ({replayed.rows:,} rows, manifest {replayed.manifest})", soft_wrap=True)
    share = trained.judgement.figures["exact_span"]
    exact = "no held-out rows" if share is None else f"exact span {share:.1%} on held-out rows"
    console.print(
        f"model: {trained.checkpoint} - loss {trained.first_loss:.2f} -> {trained.last_loss:.2f} "
        f"in {trained.steps} steps, {exact}",
        soft_wrap=True,
    )
    suggest(
        console,
        ("feedmill up", "keep the services running, then in another terminal:"),
        ("feedmill watch", "see the topics move"),
        ("feedmill produce reduction --count 1000000", "send them a million examples"),
        ("feedmill produce scenario --follow", "make the rows that coverage lacks"),
        (f"feedmill coverage report {FAMILY}", "all axes, cells, quotas and gaps"),
        (f"feedmill replay {FAMILY} --where \"split = 'test'\" --out test.jsonl", "a batch replay"),
        ("feedmill train reduction --steps 1000", "a longer training run"),
    )
