"""Completions: the same in batches as alone, ended by the end token or a fence, with and without a chat template."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LogitsProcessor, LogitsProcessorList

from consumers.language_model.generation import SYSTEM_PROMPT, Completion, Generator, Sampling, code_of
from consumers.language_model.saved_model import Lora
from schema.errors import CheckpointError, UsageError
from tests.consumers.language_model.tiny import TEXT, tiny_task, tokenizer_file


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that has learned one text by heart."""
    place = tmp_path_factory.mktemp("model")
    task = tiny_task(tokenizer_file(place))
    torch.manual_seed(0)
    model = task.build(None)
    tokens = torch.tensor([[*task.tokenizer.tokenizer.encode(TEXT).ids, task.tokenizer.end]])
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.02)
    for _ in range(150):
        loss = model(input_ids=tokens, labels=tokens).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.05
    task.save_model(model, place)
    return place


def test_completions_in_a_batch_are_those_of_each_prompt_alone(folder: Path) -> None:
    generator = Generator(str(folder))
    prompts = [TEXT[:4], TEXT[:15], "x", TEXT[:30], "def add(first"]
    together = list(generator.complete(prompts, Sampling(max_new_tokens=12, batch_size=5)))
    alone = [next(iter(generator.complete([prompt], Sampling(max_new_tokens=12)))) for prompt in prompts]
    assert together == alone


def test_a_completion_ends_at_the_end_token_and_is_the_rest_of_the_text(folder: Path) -> None:
    generator = Generator(str(folder))
    begun = TEXT[: TEXT.index(",")]
    (ended,) = generator.complete([begun], Sampling(max_new_tokens=50))
    assert (begun + ended.text, ended.finished) == (TEXT, True)
    (cut,) = generator.complete([begun], Sampling(max_new_tokens=3))
    assert (cut.finished, cut.tokens) == (False, 3)


def test_a_seed_fixes_sampled_completions(folder: Path) -> None:
    generator = Generator(str(folder))
    drawn = [
        [each.text for each in generator.complete(["x", "y"], Sampling(temperature=3, seed=seed, max_new_tokens=8))]
        for seed in (1, 1, 2)
    ]
    assert drawn[0] == drawn[1] != drawn[2]


def test_a_chat_template_gets_a_system_prompt(folder: Path) -> None:
    generator = Generator(str(folder))
    assert not generator.chats
    generator._tokenizer.chat_template = (
        "{% for message in messages %}[{{ message.role }}]{{ message.content }}{% endfor %}[assistant]"
    )
    assert generator._asked("add two numbers") == f"[system]{SYSTEM_PROMPT}[user]add two numbers[assistant]"
    # Some templates refuse a system's part.
    generator._tokenizer.chat_template = (
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}{{ messages[0].content }}"
    )
    assert generator._asked("add two numbers") == f"{SYSTEM_PROMPT}\n\nadd two numbers"
    for template, line in (
        ("{{ raise_exception('no') }}", "cannot be used \\(no\\)"),
        ("{% if %}", "cannot be used"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
    ):
        generator._tokenizer.chat_template = template
        with pytest.raises(CheckpointError, match=line):
            list(generator.complete(["x"], Sampling()))


class Dictated(LogitsProcessor):  # type: ignore[misc]
    """Makes a model write a text."""

    def __init__(self, generator: Generator, text: str, length: int) -> None:
        self._tokens = generator._tokenizer(text)["input_ids"] + [generator._tokenizer.eos_token_id]
        self._length = length

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        forced = torch.full_like(scores, -1e9)
        forced[:, self._tokens[input_ids.shape[1] - self._length]] = 0.0
        return forced


def dictated(generator: Generator, text: str, monkeypatch: pytest.MonkeyPatch, **options: bool) -> Completion:
    """Return the completion by a model that would write `text`, and then end."""
    with monkeypatch.context() as patched:
        generate = generator._model.generate

        def made(**given: Any) -> torch.Tensor:
            processor = Dictated(generator, text, given["input_ids"].shape[1])
            written: torch.Tensor = generate(**given, logits_processor=LogitsProcessorList([processor]))
            return written

        patched.setattr(generator._model, "generate", made)
        (completion,) = generator.complete(["x"], Sampling(max_new_tokens=62), **options)
    return completion


def test_a_completion_ends_with_its_block_whatever_comes_before_the_block(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = Generator(str(folder))
    answer = "Here:\n```\nx = 1\n```\nDone\n```\n"
    cut = dictated(generator, answer, monkeypatch)
    assert (cut.text, cut.finished) == ("Here:\n", True)
    # A response of a scenario may have blocks.
    whole = dictated(generator, answer, monkeypatch, ends_at_fence=False)
    assert (whole.text, whole.finished) == (answer, True)
    generator._tokenizer.chat_template = "{{ messages[1].content }}"
    code = dictated(generator, answer, monkeypatch)
    assert (code.text, code.finished) == ("x = 1\n", True)


def test_a_long_prompt_does_not_cut_the_completions_beside_it(folder: Path) -> None:
    generator = Generator(str(folder))
    prompts = ["x", "y" * 55]
    together = list(generator.complete(prompts, Sampling(max_new_tokens=50, batch_size=2)))
    alone = [next(iter(generator.complete([prompt], Sampling(max_new_tokens=50)))) for prompt in prompts]
    assert together == alone


def test_the_files_of_a_model_do_not_choose_tokens(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    hostile = {"return_dict_in_generate": True, "num_beams": 3, "repetition_penalty": 1e-9, "max_time": 0.0}
    (tmp_path / "generation_config.json").write_text(json.dumps(hostile))
    sampling = Sampling(max_new_tokens=12)
    first, second = (list(Generator(str(place)).complete([TEXT[:9]], sampling)) for place in (folder, tmp_path))
    assert first == second


def test_an_adapter_that_is_its_own_base_or_is_damaged_is_refused(folder: Path, tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    task = tiny_task(folder / "tokenizer.json", lora=Lora(r=2, alpha=2))
    adapter.mkdir()
    task.save_model(task.build(folder), adapter)
    assert Generator(str(adapter)).found == adapter
    weights = (adapter / "adapter_model.safetensors").read_bytes()
    (adapter / "adapter_model.safetensors").write_bytes(weights[:-9])
    with pytest.raises(CheckpointError, match="cannot be read"):
        Generator(str(adapter))
    settings = json.loads((adapter / "adapter_config.json").read_text())
    settings["base_model_name_or_path"] = str(adapter)
    (adapter / "adapter_config.json").write_text(json.dumps(settings))
    with pytest.raises(CheckpointError, match="is its own base"):
        Generator(str(adapter))


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        ("a\n```rust\nfn f() {}\n```\nb\n```\nc\n```", "fn f() {}\n"),
        ("```\nx = 1", "x = 1\n"),
        ("x = 1\n", "x = 1\n"),
    ],
)
def test_the_code_of_an_answer_is_its_first_block(answer: str, code: str) -> None:
    assert code_of(answer) == code


def test_the_text_of_a_special_token_is_text_unless_the_prompt_has_special_tokens(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = Generator(str(folder))
    lengths = []

    def generate(**given: torch.Tensor) -> torch.Tensor:
        lengths.append(given["input_ids"].shape[1])
        return given["input_ids"]

    monkeypatch.setattr(generator._model, "generate", generate)
    for has_special_tokens in (False, True):
        list(generator.complete(["x<|endoftext|>"], Sampling(), has_special_tokens=has_special_tokens))
    assert lengths[0] > lengths[1] == 2


def test_what_cannot_be_completed_is_refused(folder: Path, tmp_path: Path) -> None:
    generator = Generator(str(folder))
    # All prompts are looked at first.
    for prompt, line in (("", "is empty"), ("\ud800", "half of a surrogate pair"), ("x" * 99, "has 99 tokens")):
        with pytest.raises(UsageError, match=f"prompt 2 .*{line}"):
            next(generator.complete(["x", prompt], Sampling(batch_size=1)))
    with pytest.raises(UsageError, match="there is no model aaa"):
        Generator("a" * 5000)
    with pytest.raises(UsageError, match="there is no model nothing/such on this machine"):
        Generator("nothing/such")
    with pytest.raises(UsageError, match="there is no model "):
        Generator("no such: name")
    with pytest.raises(UsageError, match="the model's context is 64"):
        list(generator.complete(["x" * 99], Sampling()))
    for values in (
        {"temperature": -1.0},
        {"temperature": 1e-45},
        {"seed": 1 << 64},
        {"top_p": 0.0},
        {"max_new_tokens": 0},
        {"batch_size": 0},
    ):
        with pytest.raises(UsageError):
            Sampling(**values)  # type: ignore[arg-type]
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        Generator(str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(UsageError, match="cannot be loaded"):
        Generator(str(tmp_path))


def test_a_caller_ends_completions_each_at_its_place(folder: Path) -> None:
    generator = Generator(str(folder))
    asked: list[tuple[str, str]] = []

    def end_of(prompt: str, text: str) -> int | None:
        asked.append((prompt, text))
        place = text.find("return")
        return place if place >= 0 and prompt == TEXT[:15] else None

    sampling, prompts = Sampling(max_new_tokens=40), [TEXT[:15], TEXT[:4]]
    free = list(generator.complete(prompts, sampling))
    assert all("return" in each.text for each in free)
    ended, whole = generator.complete(prompts, sampling, end_of=end_of)
    assert (ended.text, ended.finished) == (free[0].text[: free[0].text.index("return")], True)
    assert whole == free[1]
    assert {prompt for prompt, _ in asked} == {TEXT[:15], TEXT[:4]}
    # A completion that ended early used fewer tokens than the most.
    [alone] = generator.complete([TEXT[:15]], Sampling(max_new_tokens=400), end_of=lambda *_: 3)
    assert (len(alone.text), alone.finished, alone.tokens <= 8) == (3, True, True)
