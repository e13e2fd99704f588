"""Let a model complete prompts, and judge what it wrote."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from consumers.code_evaluation.samples import CodeSample
from consumers.code_evaluation.verdicts import CodeVerdict, wilson
from consumers.expert_iteration.prompts import FunctionPrompt, Judge
from consumers.language_model.generation import Generator, Sampling
from schema.source_code.functions import end_of_function


def complete(
    model: str, prompts: Sequence[FunctionPrompt], sampling: Sampling, on_progress: Callable[[int], object]
) -> list[str]:
    """Return a completion of each prompt; it ends where the function ends.

    Args:
        model: see `Generator`.
        prompts: all of one language.
        sampling: how tokens are chosen.
        on_progress: called with the number of completions so far.

    Raises:
        CheckpointError, UsageError: the model cannot be loaded, or a prompt has too many tokens for it.
    """
    if not prompts:
        return []
    generator = Generator(model)
    end_of = partial(end_of_function, language=prompts[0].language)
    # Prompts of about the same length are completed together, because a batch is as wide as its longest one.
    order = sorted(range(len(prompts)), key=lambda place: len(prompts[place].prompt))
    made = generator.complete([prompts[place].prompt for place in order], sampling, end_of=end_of)
    texts = [""] * len(prompts)
    for number, (place, completion) in enumerate(zip(order, made, strict=True), start=1):
        texts[place] = completion.text
        on_progress(number)
    return texts


def judged(
    prompts: Sequence[FunctionPrompt], completions: Sequence[str], judge: Judge
) -> Iterator[tuple[FunctionPrompt, str, CodeVerdict]]:
    """Yield each prompt with its completion and the verdict on both together."""
    samples = (
        CodeSample(prompt.task_id, prompt.language, prompt.prompt + text, text)
        for prompt, text in zip(prompts, completions, strict=True)
    )
    yield from zip(prompts, completions, judge(samples), strict=True)


def figures(verdicts: Sequence[Mapping[str, Any]], linter: str) -> dict[str, Any]:
    """Return the figures of completions.

    `compile_rate` is over all samples: one that the pre-filter leaves out, such as an unfinished function, counts as
    one that does not compile. The other averages are over the samples that compile, and None without one.

    Args:
        verdicts: as `CodeVerdict.as_json` gives them.
        linter: their key of the warnings.
    """
    good = [each for each in verdicts if each["compiled"]]

    def mean(values: Iterator[float]) -> float | None:
        return sum(values) / len(good) if good else None

    return {
        "samples": len(verdicts),
        "filtered": sum(each["filtered"] for each in verdicts),
        "compiled": len(good),
        "compile_rate": len(good) / len(verdicts) if verdicts else None,
        "compile_rate_interval": wilson(len(good), len(verdicts)),
        "avg_warnings": mean(float(sum(each[linter].values())) for each in good),
        "avg_idiomatic_score": mean(each["idiomatic"] for each in good),
        "doc_comment_rate": mean(float(each["documented"]) for each in good),
    }
