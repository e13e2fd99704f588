"""The command `feedmill iterate`: rounds in which a model learns from the best of what it wrote itself."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from feedmill.extras import require, require_code
from feedmill.iterate_tables import prompts_line, rounds_table
from feedmill.train_commands import require_torch
from schema.errors import UsageError
from schema.settings import load_settings

RESULTS = "results.json"


def iterate_command(
    config: Annotated[str, typer.Option(metavar="FILE", help="Run file of each round's training, e.g. expert.yml.")],
    load_from: Annotated[str, typer.Option(help="Folder of the run to begin with.")],
    language: Annotated[str, typer.Option(help="rust or python.")] = "rust",
    rounds: Annotated[int, typer.Option(min=1, max=1000, help="How many rounds.")] = 2,
    prompts: Annotated[int, typer.Option(min=1, help="Functions of split train to complete in each round.")] = 400,
    samples: Annotated[int, typer.Option(min=1, max=1000, help="Completions of each of them.")] = 4,
    held_out: Annotated[int, typer.Option(min=1, help="Functions of the other splits that measure a model.")] = 200,
    max_warnings: Annotated[int, typer.Option(help="Keep code with at most so many warnings.")] = 2,
    min_idiomatic: Annotated[float, typer.Option(help="Keep code with at least this idiomatic score.")] = 0.7,
    min_doc: Annotated[float, typer.Option(help="0.5 keeps documented code only; 0 any.")] = 0.5,
    control: Annotated[
        bool, typer.Option("--control", help="Also train as long without an expert's rows, to compare.")
    ] = False,
    steps: Annotated[int | None, typer.Option(min=1, help="Steps of each training, in place of the file's.")] = None,
    temperature: Annotated[float, typer.Option(help="Of the draws for an expert; models are measured at 0.")] = 0.8,
    top_p: Annotated[float, typer.Option(help="Draw from the likeliest tokens with this probability.")] = 0.95,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="The most tokens of a completion.")] = 256,
    batch_size: Annotated[int, typer.Option(min=1, help="Prompts that are completed together.")] = 32,
    seed: Annotated[int, typer.Option(min=0, help="Of prompts and draws.")] = 0,
    jobs: Annotated[
        int | None, typer.Option(min=1, max=256, help="Samples judged at once.", show_default="one for each core")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the iteration.")] = None,
    unsafe_no_sandbox: Annotated[
        bool, typer.Option("--unsafe-no-sandbox", help="Run compilers with your rights.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """Let a model write code, send what compiles and is good to the topic, and train on the mix; repeat.

    The same command goes on with an iteration that was stopped. `feedmill up` must be running.
    """
    require_torch()
    require_code("iterate")
    require("iterate", "train", "peft", "yaml", "tokenizers")
    from broker.clients import connect
    from consumers.expert_iteration.experts import Bounds
    from consumers.expert_iteration.judging import Judging
    from consumers.expert_iteration.round_files import RoundFiles
    from consumers.language_model.generation import Sampling
    from consumers.language_model.quantization import check_quantization
    from consumers.language_model.run_file import read_run_file, with_changes
    from consumers.source_code.tokenizer import load_tokenizer
    from consumers.training.run_folder import find_checkpoint
    from feedmill.iteration import Iteration

    settings = load_settings()
    bounds = Bounds(most_warnings=max_warnings, least_idiomatic=min_idiomatic, least_documented=min_doc)
    sampling = Sampling(
        temperature=temperature, top_p=top_p, seed=seed, max_new_tokens=max_new_tokens, batch_size=batch_size
    )
    file = with_changes(read_run_file(config), config, steps=steps)
    room = file.train.sequence_length - max_new_tokens
    if room <= 0:
        raise UsageError(
            f"--max-new-tokens {max_new_tokens} leaves no room for a prompt in sequences of "
            f"{file.train.sequence_length} tokens: give fewer"
        )
    check_quantization(file.model.quantize)
    about = {
        "file": file.model_dump(mode="json"),
        "load_from": str(Path(load_from).resolve()),
        "language": language,
        "prompts": prompts,
        "samples": samples,
        "held_out": held_out,
        "bounds": asdict(bounds),
        "sampling": asdict(sampling),
        "control": control,
    }
    judging = Judging(language, jobs, unsafe=unsafe_no_sandbox)
    tokenizer = load_tokenizer(str(find_checkpoint(Path(load_from)))).tokenizer

    def fits(prompt: str) -> bool:
        return len(tokenizer.encode(prompt).ids) <= room

    files = RoundFiles(out or settings.data_dir / "models" / "iterate")
    with files.owned(about):
        iteration = Iteration(connect(settings), files, file, judging, bounds, sampling, quiet=as_json)
        chosen = iteration.choose(language, prompts, held_out, fits, seed)
        if not as_json:
            print(prompts_line(chosen), file=sys.stderr)
        results: dict[str, Any] = {"prompts": chosen, "rounds": [iteration.begin(load_from)], "control": []}
        for number in range(1, rounds + 1):
            results["rounds"].append(iteration.round(number, load_from, samples))
            if control:
                results["control"].append(iteration.control(number, load_from))
            if not as_json:
                Console().print(rounds_table(results))
        files.path(RESULTS).write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    if as_json:
        print(json.dumps(results))
