"""Training runs of a small span predictor on a topic of 1,100 rows, for the tests of the trainer."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl

from broker.clients import Connection
from consumers.feed import Feed, FeedOptions
from consumers.reduction.samples import Sample
from consumers.reduction.task import ReductionTask
from consumers.training.budget import Budget
from consumers.training.options import Judging, Optimisation, Saving, TrainOptions
from consumers.training.report import Step, TrainReport
from consumers.training.run import train
from consumers.training.stopping import StopRequest
from tests import reductions
from tests.consumers.records import write

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}


def normal_forms(count: int) -> pl.DataFrame:
    forms = ["\\." * (1 + number % 40) + "0" * (1 + number // 40) for number in range(count)]
    return reductions.frame(
        [
            reductions.row(number, term=form, trace_id=f"n{number}", step_k=1, span_start=0, span_end=0)
            for number, form in enumerate(forms)
        ]
    )


def every_row() -> pl.DataFrame:
    """The rows of the topic."""
    return pl.concat([reductions.valid(1000), normal_forms(100)])


def write_rows(connection: Connection) -> None:
    """Write the rows to clean."""
    write(connection, every_row(), rows_per_record=128)


def feed(connection: Connection, **options: Any) -> Feed:
    return Feed(
        connection,
        "reduction",
        batch_size=32,
        shuffle_seed=1,
        options=FeedOptions(bucket=True, **options),
    )


def options(out: Path, steps: int, *, learning_rate: float = 2e-3, **others: Any) -> TrainOptions:
    settings: dict[str, Any] = {
        "saving": Saving(out=out),
        "budget": Budget(steps=steps),
        "optimisation": Optimisation(learning_rate=learning_rate, warmup_steps=30),
        "judging": Judging(rows=40),
        **others,
    }
    return TrainOptions(**settings)


def train_spans(
    feed: Feed, options: TrainOptions, *args: Any, sizes: dict[str, int] = SMALL, **named: Any
) -> TrainReport:
    """Train a span predictor of the given sizes."""
    return train(ReductionTask(sizes=sizes), feed, options, *args, **named)


def samples_of(report: TrainReport) -> list[Sample]:
    """The held-out terms of a report with their predictions."""
    return [Sample.from_json(values) for values in report.judgement.samples]


def stopped_after(step: int, number: signal.Signals = signal.SIGTERM) -> tuple[StopRequest, Callable[[Step], None]]:
    """A stop request, and a callback that makes the request after `step`."""
    stop = StopRequest()

    def watch(done: Step) -> None:
        if done.number == step:
            stop.heed(number, None)

    return stop, watch


def resumed(out: Path) -> Saving:
    return Saving(out=out, resume=True, every_steps=4)
