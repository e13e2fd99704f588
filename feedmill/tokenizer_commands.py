"""The command `feedmill tokenizer train`: a byte-level BPE for code, from source folders or the clean topic."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from feedmill.extras import require_code
from schema.errors import UsageError
from schema.settings import load_settings
from schema.stale_files import in_making

app = typer.Typer(help="Train tokenizers for code.", no_args_is_help=True)

# The argument that names the topic; a folder of this name is written ./code.
_TOPIC = "code"


@app.callback()
def _group() -> None:
    """Keep `train` a subcommand, although it is the only one."""


@app.command("train")
def train_command(
    sources: Annotated[
        list[str],
        typer.Argument(metavar="code|PATH...", help="`code` reads the topic code.clean, split train; else folders."),
    ],
    out: Annotated[Path, typer.Option(help="File to write, e.g. tokenizer.json.")],
    vocabulary_size: Annotated[
        int | None, typer.Option(help="The most tokens, special ones included.", show_default="16384")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """Train a byte-level BPE on source code; the same sources give the same file.

    The tokenizer has tokens that mask, pad, end a text, and mark a missing middle. It needs no network.
    """
    require_code("tokenizer train")
    from consumers.source_code.byte_pairs import VOCABULARY_SIZE, train_byte_pairs

    if out.is_dir():
        raise UsageError(f"{out} is a folder: name a file, e.g. {out / 'tokenizer.json'}")
    if _TOPIC in sources and len(sources) > 1:
        raise UsageError(f"{_TOPIC} is the topic, and cannot be mixed with folders: write ./{_TOPIC} for a folder")
    began = time.monotonic()
    texts = _topic_texts() if sources == [_TOPIC] else _folder_texts(sources)
    text = train_byte_pairs(texts, VOCABULARY_SIZE if vocabulary_size is None else vocabulary_size)
    written = in_making(out, "part")
    try:
        written.write_text(text, encoding="utf-8")
        written.replace(out)
    except OSError as error:
        raise UsageError(f"{out} cannot be written ({error.strerror or error}): choose another place") from error
    finally:
        written.unlink(missing_ok=True)
    tokens = len(json.loads(text)["model"]["vocab"])
    digest = hashlib.sha256(text.encode()).hexdigest()
    if as_json:
        print(json.dumps({"path": str(out), "sha256": digest, "vocabulary_size": tokens}))
        return
    print(f"{tokens:,} tokens -> {out} in {time.monotonic() - began:.1f} s, sha256 {digest}", file=sys.stderr)


def _topic_texts() -> Iterator[str]:
    from broker.clients import connect
    from consumers.train_rows import train_rows
    from schema.source_code import FAMILY

    rows = train_rows(connect(load_settings()), FAMILY, {"text"})
    return (text for some in rows for text in some["text"])


def _folder_texts(paths: list[str]) -> Iterator[str]:
    """Yield the text of every file that `feedmill produce code` would read."""
    from producers.source_code.documents import read_file
    from producers.source_code.run import CodeRun

    run = CodeRun(paths=paths)
    run.check_paths()
    for unit in run.plan():
        for file in unit.files:
            read = read_file(file, run.rules)
            if not isinstance(read, str):
                yield read.text
