"""Adapters on a base in 4 bits. Without a GPU, bitsandbytes quantises on the CPU: only the check for a GPU is replaced.

Training has no gradient on a CPU with AVX512-BF16 after bitsandbytes packed the weights of a model that it judged, so
that is turned off, too. No GPU does it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from bitsandbytes.nn import Linear4bit, Params4bit
from transformers import AutoModelForCausalLM

from consumers.language_model import quantization
from consumers.language_model.base_model import TinySizes, load_base
from consumers.language_model.generation import Generator, Sampling
from consumers.language_model.quantization import check_quantization, nf4
from consumers.language_model.saved_model import ADAPTER_FILES, Lora
from consumers.language_model.task import LanguageModelTask
from consumers.training.learner import Learner
from consumers.training.options import Execution, Optimisation
from consumers.training.ranks import ALONE
from schema.errors import ConfigError, UsageError
from tests.consumers.language_model.tiny import TEXT, quantising_on_the_cpu, tiny_task, tokenizer_file

QLORA = Lora(r=4, dropout=0.0, quantize="4bit")
SIZES = TinySizes(hidden_size=64, layers=2, heads=2)
TOKENS = torch.arange(40)[None] + 20


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    quantising_on_the_cpu(monkeypatch)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tokenizer_file(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def full(tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a full model."""
    folder = tmp_path_factory.mktemp("full")
    task = tiny_task(tokenizer, sizes=SIZES)
    torch.manual_seed(1)
    model: Any = task.build(None)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.05 * torch.randn_like(weight))
    task.save_model(model, folder)
    return folder


@pytest.fixture
def task(tokenizer: Path) -> LanguageModelTask:
    return tiny_task(tokenizer, sizes=SIZES, lora=QLORA)


def built(task: LanguageModelTask, checkpoint: Path) -> Any:
    torch.manual_seed(2)
    model = task.build(checkpoint).to(torch.device("cpu"))
    task.load_model(model, checkpoint)
    return model


def trained(task: LanguageModelTask, full: Path, *, gradient_checkpointing: bool = False) -> tuple[Any, list[float]]:
    """A model after three steps of the trainer's own optimizer, and its losses."""
    model = built(task, full)
    learner = Learner(task, model, Optimisation(learning_rate=1e-2), ALONE)
    learner.prepare(Execution(gradient_checkpointing=gradient_checkpointing))
    model.train()
    losses = []
    for _ in range(3):
        loss = model(input_ids=TOKENS, labels=TOKENS, use_cache=False).loss
        loss.backward()
        learner.optimizer.step()
        learner.optimizer.zero_grad()
        losses.append(loss.item())
    return model, losses


def logits(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        return model.eval()(input_ids=TOKENS.to(model.device)).logits.cpu()  # type: ignore[no-any-return]


def distance(first: torch.Tensor, second: torch.Tensor) -> float:
    """The difference of two tensors as a share of the first one."""
    return float((first - second).norm() / first.norm())


def test_a_machine_without_a_gpu_or_without_the_library_is_refused_in_a_line(
    monkeypatch: pytest.MonkeyPatch, full: Path, task: LanguageModelTask
) -> None:
    check_quantization(None)
    check_quantization("4bit")
    with monkeypatch.context() as patched:
        patched.setattr(quantization, "find_spec", lambda name: None)
        with pytest.raises(ConfigError, match=r"needs bitsandbytes: .*`pip install feedmill\[qlora\]`, or leave quant"):
            task.build(full)
    monkeypatch.setattr(quantization, "_has_gpu", lambda: False)
    check_quantization(None)
    for load in (task.build, lambda folder: Generator(str(folder), quantize="4bit")):
        with pytest.raises(UsageError, match=r"^quantize: 4bit needs a GPU, .*: leave quantize out, or use a machine"):
            load(full)


def test_linear_layers_are_nf4_with_quantised_scales_and_compute_in_bfloat16(full: Path) -> None:
    model = load_base(str(full), "4bit")
    layers = [each for each in model.modules() if isinstance(each, Linear4bit)]
    assert len(layers) == 7 * SIZES.layers
    assert {layer.compute_dtype for layer in layers} == {torch.bfloat16}
    states = [layer.weight.quant_state for layer in layers]
    assert {(state.quant_type, state.nested) for state in states} == {("nf4", True)}
    others = [weight for weight in model.parameters() if not isinstance(weight, Params4bit)]
    assert {weight.dtype for weight in others} == {torch.float32}
    assert not any(weight.requires_grad for weight in model.parameters())
    # Rounded, and still the same model.
    assert 0 < distance(logits(load_base(str(full))), logits(model)) < 0.2


def test_only_the_adapter_learns_and_gradient_checkpointing_changes_nothing(
    task: LanguageModelTask, full: Path
) -> None:
    before = {name: weight.clone() for name, weight in built(task, full).named_parameters()}
    model, losses = trained(task, full)
    assert losses[-1] < losses[0]
    changed = {name for name, weight in model.named_parameters() if not torch.equal(weight, before[name])}
    assert changed == set(task.trainable(model))
    assert len(changed) == 2 * 7 * SIZES.layers
    again, same_losses = trained(task, full, gradient_checkpointing=True)
    assert same_losses == losses
    assert torch.equal(logits(again), logits(model))


def test_a_checkpoint_is_the_adapter_alone_and_gives_the_same_model_again(
    task: LanguageModelTask, full: Path, tmp_path: Path
) -> None:
    model, _ = trained(task, full)
    task.save_model(model, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == set(ADAPTER_FILES)
    expected = logits(model)
    assert torch.equal(logits(built(task, tmp_path)), expected)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, quantization_config=nf4(), dtype=torch.bfloat16)
    assert distance(expected, logits(theirs)) < 0.05


def test_an_adapter_works_on_its_base_with_and_without_4_bits(
    task: LanguageModelTask, tokenizer: Path, full: Path, tmp_path: Path
) -> None:
    model, _ = trained(task, full)
    task.save_model(model, tmp_path)
    expected = logits(model)
    quantised = Generator(str(tmp_path), quantize="4bit")
    assert torch.equal(logits(quantised._model), expected)
    plain = Generator(str(tmp_path))
    assert not any(isinstance(weight, Params4bit) for weight in plain._model.parameters())
    # The adapter does more than the rounding.
    off = distance(expected, logits(plain._model))
    assert 0 < off < distance(expected, logits(load_base(str(full))))
    assert torch.allclose(logits(AutoModelForCausalLM.from_pretrained(tmp_path)), logits(plain._model), atol=1e-5)
    for generator in (quantised, plain, Generator(str(full), quantize="4bit")):
        (completion,) = generator.complete([TEXT[:9]], Sampling(max_new_tokens=5))
        assert completion.tokens <= 5
    # Training can go on without 4 bits, and a full run has the adapter merged in.
    unquantised = tiny_task(tokenizer, sizes=SIZES, lora=QLORA.model_copy(update={"quantize": None}))
    assert torch.allclose(logits(built(unquantised, tmp_path)), logits(plain._model), atol=1e-5)
    assert torch.allclose(logits(built(tiny_task(tokenizer, sizes=SIZES), tmp_path)), logits(plain._model), atol=1e-5)


def test_a_base_that_is_an_adapter_is_refused_in_4_bits(
    tokenizer: Path, task: LanguageModelTask, full: Path, tmp_path: Path
) -> None:
    task.save_model(built(task, full), tmp_path)
    on_an_adapter = tiny_task(tokenizer, base=str(tmp_path), lora=QLORA, trust_base=True)
    with pytest.raises(UsageError, match="is an adapter, which cannot be merged into a model in 4 bits: merge it by"):
        on_an_adapter.build(None)


def test_a_base_in_4_bits_is_checked_as_any_other(tokenizer: Path, full: Path) -> None:
    asked = {"base": str(full), "lora": QLORA}
    with pytest.raises(UsageError, match=r"perplexity of .* a word on plain English, above 1,000"):
        tiny_task(tokenizer, **asked).build(None)
    trusted: Any = tiny_task(tokenizer, **asked, trust_base=True).build(None)
    assert sum(isinstance(weight, Params4bit) for weight in trusted.parameters()) == 7 * SIZES.layers
