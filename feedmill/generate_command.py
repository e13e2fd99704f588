"""The commands `feedmill generate code` and `generate scenario`: complete prompts with a trained model."""

from __future__ import annotations

import json
import sys
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any, Literal

import typer

from feedmill.extras import require
from feedmill.progress import progress
from feedmill.train_commands import require_torch
from schema.errors import UsageError

if TYPE_CHECKING:
    from consumers.language_model.generation import Sampling

_MOST_LINE_BYTES = 1 << 20
_MOST_PROMPTS = 100_000


Model = Annotated[str, typer.Option(help="Folder of a run or a model, or a name in the cache of Hugging Face.")]
Out = Annotated[Path | None, typer.Option(metavar="FILE.jsonl", help="Write rows here, and print no completion.")]
MaxNewTokens = Annotated[int, typer.Option(min=1, help="The most tokens of a completion.")]
Temperature = Annotated[float, typer.Option(min=0, help="Above 0, tokens are drawn at random.")]
TopP = Annotated[float, typer.Option(help="Draw from the likeliest tokens with this probability.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of the draws.")]
Quantize = Annotated[
    Literal["4bit"] | None, typer.Option(help="Load the model, or the base of an adapter, in 4 bits; needs a GPU.")
]
BatchSize = Annotated[int, typer.Option(min=1, help="Prompts that are completed together.")]


def generate_code_command(
    model: Model,
    prompts: Annotated[list[str] | None, typer.Argument(metavar="[PROMPT]...", help="Texts to complete.")] = None,
    prompt_file: Annotated[
        Path | None, typer.Option(metavar="FILE.jsonl", help="Rows with `prompt`, and `task_id` if they have one.")
    ] = None,
    out: Out = None,
    max_new_tokens: MaxNewTokens = 512,
    temperature: Temperature = 0.0,
    top_p: TopP = 1.0,
    seed: Seed = 0,
    batch_size: BatchSize = 8,
    quantize: Quantize = None,
) -> None:
    """Complete prompts with a model; a run's folder gives its newest checkpoint.

    Rows on stdout or in --out have prompt, completion, finished, tokens, and the task_id of their prompt.
    """
    _require()
    from consumers.language_model.generation import Sampling

    if prompt_file is not None and out is not None and prompt_file.resolve() == out.resolve():
        raise UsageError(f"--prompt-file and --out are both {out}, whose prompts would be lost: choose another name")
    asked = [{"prompt": prompt} for prompt in prompts or []] + ([] if prompt_file is None else _read(prompt_file))
    if not asked:
        raise UsageError("there is no prompt: give texts, or a file with --prompt-file")
    sampling = Sampling(
        temperature=temperature, top_p=top_p, seed=seed, max_new_tokens=max_new_tokens, batch_size=batch_size
    )
    _generate(model, asked, sampling, out, quantize)


def generate_scenario_command(
    model: Model,
    context: Annotated[str, typer.Option(help="Who asks, and in which situation.")],
    request: Annotated[str, typer.Option(help="What the person asks.")],
    max_new_tokens: MaxNewTokens = 1024,
    temperature: Temperature = 0.0,
    top_p: TopP = 1.0,
    seed: Seed = 0,
    quantize: Quantize = None,
) -> None:
    """Write the response to a request with a model of `feedmill train scenario`; prints a row as `generate code`."""
    _require()
    from consumers.language_model.generation import Sampling
    from consumers.scenario.byte_tokenizer import prompt_of

    sampling = Sampling(temperature=temperature, top_p=top_p, seed=seed, max_new_tokens=max_new_tokens)
    _generate(model, [{"prompt": prompt_of(context, request)}], sampling, None, quantize, is_scenario=True)


def _require() -> None:
    require_torch()
    require("generation", "train", "peft", "tokenizers")


def _generate(
    model: str,
    asked: list[dict[str, Any]],
    sampling: Sampling,
    out: Path | None,
    quantize: Literal["4bit"] | None,
    *,
    is_scenario: bool = False,
) -> None:
    from consumers.language_model.generation import Generator
    from consumers.language_model.quantization import check_quantization

    check_quantization(quantize)
    generator = Generator(model, quantize=quantize)
    print(f"model {generator.found}", file=sys.stderr)
    with (
        nullcontext(sys.stdout) if out is None else _writing(out) as stream,
        progress("generating", len(asked), "prompts", quiet=out is None) as advance,
    ):
        prompts = [row["prompt"] for row in asked]
        made = generator.complete(prompts, sampling, has_special_tokens=is_scenario, ends_at_fence=not is_scenario)
        for number, (row, completion) in enumerate(zip(asked, made, strict=True), start=1):
            values = asdict(completion)
            values["completion"] = values.pop("text")
            _write(stream, {**row, **values})
            advance(number)


def _writing(path: Path) -> IO[str]:
    try:
        return path.open("w", encoding="utf-8")
    except OSError as error:
        raise UsageError(
            f"--out {path} cannot be written ({error.strerror}): name a file, e.g. completions.jsonl"
        ) from error


def _read(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a file of prompts; raises UsageError with the number of a line that is none."""
    rows = []
    try:
        with path.open("rb") as lines:
            number = 0
            while line := lines.readline(_MOST_LINE_BYTES + 1):
                number += 1
                if line.strip():
                    rows.append(_row(path, number, line))
                if len(rows) > _MOST_PROMPTS:
                    raise UsageError(f"{path} has more than {_MOST_PROMPTS:,} prompts: give fewer at a time")
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror}): name a file of JSON lines") from None
    return rows


def _row(path: Path, number: int, line: bytes) -> dict[str, Any]:
    if len(line) > _MOST_LINE_BYTES:
        raise UsageError(f"{path}, line {number}: it has more than {_MOST_LINE_BYTES:,} bytes")
    try:
        values = json.loads(line)
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict) or not isinstance(values.get("prompt"), str):
        raise UsageError(f"{path}, line {number}: it is no JSON object with a text `prompt`")
    return {name: values[name] for name in ("task_id", "prompt") if name in values}


def _write(stream: IO[str], row: dict[str, Any]) -> None:
    stream.write(json.dumps(row) + "\n")
    stream.flush()
