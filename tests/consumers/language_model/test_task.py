"""Models of the task: their files, adapters, bases that are refused, and that transformers loads the same model."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from consumers.language_model.base_model import MOST_PERPLEXITY, PLAIN_TEXT, TinySizes, check_base, load_base
from consumers.language_model.saved_model import ADAPTER, ADAPTER_FILES, FULL_FILES, Lora
from consumers.language_model.task import LanguageModelTask
from consumers.source_code.byte_pairs import train_byte_pairs
from consumers.source_code.tokenizer import load_tokenizer
from schema.errors import CheckpointError, UsageError
from tests.consumers.language_model.tiny import TEXT, tiny_task, tokenizer_file

TOKENS = torch.arange(7)[None] + 20


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tokenizer_file(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def full(tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a full model."""
    return saved(tiny_task(tokenizer), None, tmp_path_factory.mktemp("full"))


@pytest.fixture(scope="module")
def adapter(tokenizer: Path, full: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an adapter of the full model, whose updates are not zero."""
    return saved(tiny_task(tokenizer, lora=Lora(r=4)), full, tmp_path_factory.mktemp("adapter"))


def saved(task: LanguageModelTask, checkpoint: Path | None, folder: Path) -> Path:
    torch.manual_seed(1)
    model = task.build(checkpoint)
    if checkpoint is not None:
        task.load_model(model, checkpoint)
    with torch.no_grad():
        for weight in task.trainable(model).values():
            weight.add_(0.05 * torch.randn_like(weight))
    task.save_model(model, folder)
    return folder


def logits(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        return model.eval()(input_ids=TOKENS).logits  # type: ignore[no-any-return]


def loaded(task: LanguageModelTask, folder: Path) -> Any:
    """The model of a folder, from other random weights."""
    torch.manual_seed(99)
    model = task.build(folder)
    task.load_model(model, folder)
    return model


def test_the_files_are_those_that_are_named(full: Path, adapter: Path) -> None:
    assert {path.name for path in full.iterdir()} == set(FULL_FILES)
    assert {path.name for path in adapter.iterdir()} == set(ADAPTER_FILES)


def test_transformers_loads_the_same_models(tokenizer: Path, full: Path, adapter: Path) -> None:
    for task, folder in ((tiny_task(tokenizer), full), (tiny_task(tokenizer, lora=Lora(r=4)), adapter)):
        theirs = AutoModelForCausalLM.from_pretrained(folder)
        assert torch.equal(logits(loaded(task, folder)), logits(theirs))
        names = AutoTokenizer.from_pretrained(folder)
        assert names.decode(names(TEXT)["input_ids"]) == TEXT
        assert names(TEXT)["input_ids"] == load_tokenizer(tokenizer).tokenizer.encode(TEXT).ids
        assert names.eos_token_id == load_tokenizer(tokenizer).end


def test_an_adapter_trains_its_own_weights_alone(tokenizer: Path, full: Path, adapter: Path) -> None:
    task = tiny_task(tokenizer, lora=Lora(r=4))
    model = task.build(full)
    # A new adapter changes nothing, a trained one does.
    assert torch.equal(logits(model), logits(load_base(str(full))))
    assert not torch.equal(logits(loaded(task, adapter)), logits(load_base(str(full))))
    assert all("lora_" in name for name in task.trainable(model))
    # Two matrices for each of the seven linear layers of each block.
    assert len(task.trainable(model)) == 2 * 7 * 2
    assert len(tiny_task(tokenizer).trainable(load_base(str(full)))) == len(list(load_base(str(full)).parameters()))


def test_a_full_run_that_begins_with_an_adapter_has_it_merged(tokenizer: Path, adapter: Path) -> None:
    merged = loaded(tiny_task(tokenizer), adapter)
    with_adapter = loaded(tiny_task(tokenizer, lora=Lora(r=4)), adapter)
    assert torch.allclose(logits(merged), logits(with_adapter), atol=1e-5)
    assert "lora" not in "".join(merged.state_dict())


def test_a_tiny_base_cannot_have_an_adapter(tokenizer: Path) -> None:
    with pytest.raises(UsageError, match="LoRA would leave them so"):
        tiny_task(tokenizer, lora=Lora()).build(None)
    with pytest.raises(UsageError, match="make no model"):
        TinySizes(hidden_size=30, heads=4)


def test_a_base_that_knows_no_english_is_refused_unless_it_is_trusted(tokenizer: Path, full: Path) -> None:
    with pytest.raises(UsageError, match=r"perplexity of .* a word on plain English, above 1,000: .* --trust-base"):
        tiny_task(tokenizer, base=str(full)).build(None)
    trusted = tiny_task(tokenizer, base=str(full), trust_base=True).build(None)
    assert torch.equal(logits(trusted), logits(load_base(str(full))))


def test_a_model_that_has_learned_the_paragraph_passes_the_check(tokenizer: Path) -> None:
    torch.manual_seed(0)
    task = tiny_task(tokenizer, context=1024)
    model = task.build(None)
    tokens = torch.tensor([task.tokenizer.tokenizer.encode(PLAIN_TEXT).ids])
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.02)
    for _ in range(150):
        optimizer.zero_grad()
        model(input_ids=tokens, labels=tokens).loss.backward()
        optimizer.step()
    perplexity = check_base(model, "x", task.tokenizer)
    assert 1 < perplexity < MOST_PERPLEXITY
    # The same by hand.
    with torch.inference_mode():
        guesses = torch.log_softmax(model(input_ids=tokens).logits[0, :-1], dim=-1)
    nats = -guesses.gather(1, tokens[0, 1:, None]).sum().item()
    assert perplexity == pytest.approx(math.exp(nats / len(PLAIN_TEXT.split())), rel=1e-4)


def test_a_model_that_is_too_small_for_the_task_is_refused(tokenizer: Path, full: Path, tmp_path: Path) -> None:
    for lora in (None, Lora()):
        with pytest.raises(UsageError, match="sequence_length is 65 tokens, but the model's context is 64"):
            tiny_task(tokenizer, context=65, lora=lora).build(full)
    larger = tmp_path / "tokenizer.json"
    larger.write_text(train_byte_pairs([TEXT, "while other: continue"] * 3, 320))
    with pytest.raises(UsageError, match="give the model's own tokenizer"):
        tiny_task(larger).build(full)


@pytest.mark.parametrize(
    ("damage", "line"),
    [
        (lambda folder: shutil.rmtree(folder), "there is no model"),
        (lambda folder: (folder / "model.safetensors").unlink(), "cannot be loaded"),
        (lambda folder: (folder / "config.json").write_text("{}"), "cannot be loaded"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"x" * 99), "has 99 bytes of weights, but"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"x" * 9999), "cannot be loaded"),
        (lambda folder: grown(folder), "has no weights for"),
    ],
)
def test_a_base_that_is_not_whole_is_refused(full: Path, tmp_path: Path, damage: Any, line: str) -> None:
    folder = tmp_path / "model"
    shutil.copytree(full, folder)
    damage(folder)
    with pytest.raises(UsageError, match=line):
        load_base(str(folder))


def grown(folder: Path) -> None:
    """Let config.json promise more layers than the weights have."""
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**values, "num_hidden_layers": 3}))


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"num_hidden_layers": 10**6}, r"has 1,000,000 layers, over 1,024"),
        ({"hidden_size": 1 << 14, "intermediate_size": 1 << 16}, r"bytes of weights, but its config.json asks for"),
    ],
)
def test_a_config_that_asks_for_far_more_than_the_weights_is_refused_at_once(
    full: Path, tokenizer: Path, tmp_path: Path, changes: dict[str, int], line: str
) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(full, damaged)
    config = json.loads((damaged / "config.json").read_text())
    (damaged / "config.json").write_text(json.dumps({**config, **changes}))
    with pytest.raises(UsageError, match=line):
        load_base(str(damaged))
    with pytest.raises(UsageError, match=line):
        tiny_task(tokenizer).build(damaged)


@pytest.mark.parametrize(
    "changed",
    [
        {"peft_type": "LOHA"},
        {"base_model_name_or_path": ""},
        {"r": 0},
        {"target_modules": ["no_such_layer"]},
        {"modules_to_save": ["lm_head"]},
        {"use_dora": True},
    ],
)
def test_an_adapter_of_another_kind_is_refused(
    tokenizer: Path, adapter: Path, tmp_path: Path, changed: dict[str, Any]
) -> None:
    folder = tmp_path / "adapter"
    shutil.copytree(adapter, folder)
    values = json.loads((folder / ADAPTER).read_text())
    (folder / ADAPTER).write_text(json.dumps({**values, **changed}))
    with pytest.raises(CheckpointError, match="cannot be read"):
        tiny_task(tokenizer, lora=Lora(r=4)).build(folder)


def test_an_adapter_of_another_rank_is_refused_and_dropout_may_change(
    tokenizer: Path, adapter: Path, full: Path
) -> None:
    with pytest.raises(UsageError, match="has r 4 and alpha 16, but r 8 and alpha 16 are asked for"):
        tiny_task(tokenizer, lora=Lora(r=8)).build(adapter)
    model = tiny_task(tokenizer, lora=Lora(r=4, dropout=0.5)).build(adapter)
    assert {each.p for name, each in model.named_modules() if name.endswith("lora_dropout.default")} == {0.5}


def test_weights_of_another_adapter_are_refused(tokenizer: Path, adapter: Path, full: Path) -> None:
    task = tiny_task(tokenizer, lora=Lora(r=8))
    with pytest.raises((RuntimeError, KeyError)):
        task.load_model(task.build(full), adapter)
