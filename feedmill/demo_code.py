"""The demo of the code family: source files of this machine as documents, coverage, a tokenizer, and token windows."""

from __future__ import annotations

import os
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from feedmill.demo_steps import Pace, drain_shown, show_coverage, show_paces, suggest
from feedmill.progress import progress
from schema.settings import Settings

if TYPE_CHECKING:
    from broker.clients import Connection
    from feedmill.services import Service

FAMILY = "code"
# The goal for the windows of one source: with fewer, a small model sees the same windows too often.
WINDOWS_GOAL = 20_000
_VOCABULARY = 8_192
# Two renamings, one change of comments, one of layout.
_COPIES = 4.0
_BATCH_ROWS = 128
_MB = 1e6


def augmented(settings: Settings) -> Settings:
    """Return the settings with augmentations of code, unless the user has set their number."""
    return settings.model_copy(update={"augment": {FAMILY: _COPIES, **settings.augment}})


def code_demo(connection: Connection, services: list[Service], console: Console) -> None:
    """Send the Python standard library without its tests through the service, and cut it into windows of tokens."""
    paces = [_documents(connection, services, console)]
    report = show_coverage(connection, FAMILY, console)
    tokenizer = connection.settings.data_dir / "demo" / "tokenizer.json"
    paces.append(_tokenizer(connection, tokenizer, console))
    paces.append(_windows(connection, tokenizer, console))
    _close(console, paces, report)


def _documents(connection: Connection, services: list[Service], console: Console) -> Pace:
    """Read the standard library into raw, and wait until it is refined and counted."""
    from feedmill.source_code_commands import skipped_table, summary, telemetry
    from producers.run import produce
    from producers.source_code.exclusions import Exclusions
    from producers.source_code.run import CodeRun

    run = CodeRun(
        paths=[sysconfig.get_paths()["stdlib"]], exclusions=Exclusions(tests=True), workers=os.cpu_count() or 1
    )
    began = time.monotonic()
    with progress("documents", None, "documents") as advance:
        figures = summary(produce(connection, run, advance))
    drain_shown(connection, services, FAMILY)
    elapsed_s = time.monotonic() - began
    console.print(telemetry(figures))
    console.print(skipped_table(figures["skipped"]))
    return Pace("source files, disk to coverage", figures["documents"], "documents/s", elapsed_s)


def _tokenizer(connection: Connection, path: Path, console: Console) -> Pace:
    """Train a tokenizer on the clean documents of the split train."""
    from consumers.source_code.byte_pairs import train_byte_pairs
    from consumers.train_rows import train_rows
    from schema.registry import family_named

    path.parent.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    read = 0.0
    with progress("tokenizer", None, "MB read") as advance:

        def shown(texts: Iterator[str]) -> Iterator[str]:
            nonlocal read
            for text in texts:
                read += len(text.encode()) / _MB
                advance(read)
                yield text

        rows = train_rows(connection, family_named(FAMILY), {"text"})
        texts = shown(text for some in rows for text in some["text"])
        path.write_text(train_byte_pairs(texts, _VOCABULARY))
    console.print(f"tokenizer: {path}, {_VOCABULARY:,} tokens", soft_wrap=True)
    return Pace("train a tokenizer on the split train", read, "MB/s", time.monotonic() - began)


def _windows(connection: Connection, tokenizer: Path, console: Console) -> Pace:
    """Feed all windows once and count the different ones."""
    with progress("windows", None, "different windows") as advance:
        # Loading torch takes seconds, so the bar is shown first.
        from consumers.feed import Feed, FeedOptions
        from consumers.form_options import FormOptions
        from consumers.source_code.tensors import CodeBatch

        form = FormOptions(tokenizer=tokenizer)
        feed = Feed(connection, FAMILY, split=None, batch_size=_BATCH_ROWS, options=FeedOptions(form=form))
        began = time.monotonic()
        seen: set[bytes] = set()
        tokens = 0
        for batch in feed:
            assert isinstance(batch, CodeBatch)  # noqa: S101  # the family's own batch; for the type checker
            tokens += batch.real_tokens
            rows, masks = batch.tokens.numpy(), batch.attention_mask.numpy()
            seen.update(row[mask].tobytes() for row, mask in zip(rows, masks, strict=True))
            advance(len(seen), f"goal {WINDOWS_GOAL:,}")
    reached = "reached" if len(seen) >= WINDOWS_GOAL else f"{WINDOWS_GOAL - len(seen):,} short"
    console.print(f"{len(seen):,} different windows of {form.window:,} tokens; goal {WINDOWS_GOAL:,}: {reached}")
    return Pace("windows from clean to tensors", tokens, "tokens/s", time.monotonic() - began)


def _close(console: Console, paces: list[Pace], report: dict[str, Any]) -> None:
    from feedmill.coverage_tables import accounting_line

    show_paces(paces, console)
    console.print(accounting_line(report))
    suggest(
        console,
        ("feedmill up", "keep the services running, then in another terminal:"),
        ("feedmill produce code PATH... --git-history", "send your own repositories, with their history"),
        (f"feedmill coverage report {FAMILY}", "all axes, cells, quotas, and rejections by reason"),
        (
            f"feedmill replay {FAMILY} --windows --tokenizer .feedmill/demo/tokenizer.json --out windows.parquet",
            "token windows with their lines",
        ),
        (f"feedmill forget {FAMILY} --where \"license = 'GPL-3.0'\" --dry-run", "what a retraction would leave out"),
    )
