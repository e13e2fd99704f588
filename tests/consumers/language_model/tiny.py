"""A tokenizer and tiny models for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import bitsandbytes.nn.modules
import pytest

from consumers.language_model import quantization
from consumers.language_model.base_model import TinySizes
from consumers.language_model.task import LanguageModelTask
from consumers.source_code.byte_pairs import train_byte_pairs
from consumers.source_code.tokenizer import load_tokenizer

SIZES = TinySizes(hidden_size=16, layers=2, heads=2)
TEXT = "def add(first, second):\n    return first + second\n"


def tokenizer_file(folder: Path) -> Path:
    path = folder / "tokenizer.json"
    path.write_text(train_byte_pairs([TEXT] * 3, 300))
    return path


def tiny_task(tokenizer: Path, **options: Any) -> LanguageModelTask:
    return LanguageModelTask(
        **{"family": "code", "tokenizer": load_tokenizer(tokenizer), "context": 64, "sizes": SIZES, **options}
    )


def quantising_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let models be in 4 bits on a machine without a GPU, and give gradients after they were judged there."""
    monkeypatch.setattr(quantization, "_has_gpu", lambda: True)
    # bitsandbytes packs weights in evaluation mode on a CPU with AVX512-BF16, and they have no gradient from then on.
    monkeypatch.setattr(bitsandbytes.nn.modules, "has_avx512bf16", lambda: False)
