"""`feedmill bench code-parts`: the parts of the code family alone, in megabytes of source per second of CPU time.

Every part works on the Python standard library without its tests, in this process. CPU time is that of this process and
of its child, which parses documents. Each part first does a little work that is not measured, so that compiled code is
loaded. No broker: `feedmill bench code` measures the way from disk to clean.
"""

from __future__ import annotations

import os
import sysconfig
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import psutil

from consumers.form_options import FormOptions
from consumers.source_code.byte_pairs import train_byte_pairs
from consumers.source_code.form import code_form
from consumers.tensor_form import TensorForm
from producers.run import encoded, generate
from producers.sink import RecordLayout
from producers.source_code.decontamination import contaminated_documents, runs_of
from producers.source_code.exclusions import Exclusions
from producers.source_code.run import CodeRun
from producers.source_code.secrets import scrubbed
from schema.source_code.scores import scored
from streams.augmentation.source_code import augmented_documents

_LAYOUT = RecordLayout(partitions=4, rows_per_record=2048, record_max_bytes=1_000_000)
_WARM_UP_ROWS = 20
_EVALUATION_ROWS = 10
_COPIES = 4
_MB = 1e6

Part = Callable[[pl.DataFrame], object]


def run(rows: int | None = None) -> dict[str, Any]:
    """Return the rate of making records of at most `rows` documents with the other parts as peers.

    Keys: name, rate, unit, elapsed_s (CPU seconds), rows, and peers, a list of such objects with `ratio`, the rate of
    making records divided by the peer's rate; and `megabytes`, `windows`, `different_windows` and `tokens`.
    """
    documents = pl.concat(generate(_run(None)))
    documents = documents.head(documents.height if rows is None else rows)
    made = _run(documents.height)
    _records(_run(_WARM_UP_ROWS))
    records = _measured("records of documents, from disk", documents, lambda _: _records(made))
    signed = _measured("the same, with signatures", documents, lambda _: _records(replace(made, signatures=True)))
    evaluation = runs_of(documents["text"].head(_EVALUATION_ROWS))
    parts: dict[str, Part] = {
        "scores": scored,
        "search for secrets": lambda frame: [scrubbed(text) for text in frame["text"]],
        "decontamination": lambda frame: contaminated_documents(frame.select("text").to_dicts(), evaluation),
        f"{_COPIES} augmentations of each": lambda frame: augmented_documents(_copies(frame)),
    }
    peers = [signed]
    for name, part in parts.items():
        part(documents.head(_WARM_UP_ROWS))
        peers.append(_measured(name, documents, part))
    with tempfile.TemporaryDirectory(prefix="feedmill-bench-") as folder:
        windows, figures = _windows(Path(folder), documents)
    for peer in (peers := [*peers, *windows]):
        peer["ratio"] = records["rate"] / peer["rate"]
    return {**records, **figures, "peers": peers}


def _run(rows: int | None) -> CodeRun:
    return CodeRun(count=rows, paths=[sysconfig.get_paths()["stdlib"]], exclusions=Exclusions(tests=True))


def _records(run: CodeRun) -> None:
    for _ in encoded(run, _LAYOUT):
        pass


def _copies(frame: pl.DataFrame) -> pl.DataFrame:
    """Return each document `_COPIES` times, as the refine stage gives them to the augmentation."""
    numbers = pl.DataFrame({"copy": pl.Series(range(_COPIES), dtype=pl.UInt32)})
    return frame.with_row_index("record").join(numbers, how="cross", maintain_order="left_right")


def _windows(folder: Path, documents: pl.DataFrame) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return (the rates of training a tokenizer and of cutting windows with it, and what the windows hold)."""
    tokenizer = folder / "tokenizer.json"

    def train(frame: pl.DataFrame) -> None:
        tokenizer.write_text(train_byte_pairs(frame["text"]))

    trained = _measured("training of a tokenizer", documents, train)
    plain, cached = (code_form(FormOptions(tokenizer=tokenizer, cache=cache)) for cache in (None, folder / "cache"))

    def cut(form: TensorForm) -> Iterator[pl.Series]:
        assert form.expand is not None  # noqa: S101  # the code family has windows; for the type checker
        for _, windows in form.expand.sequences(documents, 0, 0):
            yield windows["input_ids"]

    def emptied(form: TensorForm) -> Part:
        return lambda _: deque(cut(form), maxlen=0)

    windows = pl.concat(cut(plain))
    peers = [
        _measured(name, documents, emptied(form))
        for name, form in (
            ("windows", plain),
            ("windows, and filling the cache", cached),
            ("windows from the cache", cached),
        )
    ]
    figures = {
        "windows": len(windows),
        "different_windows": windows.n_unique(),
        "tokens": int(windows.list.len().sum()),
    }
    return [trained, *peers], figures


def _measured(name: str, documents: pl.DataFrame, part: Part) -> dict[str, Any]:
    megabytes = int(documents["text"].str.len_bytes().sum()) / _MB
    began = _cpu_s()
    part(documents)
    elapsed_s = _cpu_s() - began
    return {
        "name": name,
        "rate": megabytes / elapsed_s,
        "unit": "MB of source per CPU s",
        "elapsed_s": elapsed_s,
        "rows": documents.height,
        "megabytes": round(megabytes, 2),
    }


def _cpu_s() -> float:
    """Return the CPU time (s) of this process and of its children, those that have ended included."""
    ended = os.times()
    running = [child.cpu_times() for child in psutil.Process().children()]
    children_s = ended.children_user + ended.children_system + sum(times.user + times.system for times in running)
    return time.process_time() + children_s
