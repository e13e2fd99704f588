"""Base models in 4 bits, for QLoRA (Dettmers et al., arXiv:2305.14314): an adapter learns on a base of less memory.

bitsandbytes quantises the weights of linear layers to NormalFloat 4 while transformers loads them. Their scales are
quantised, too, and products are computed in bfloat16. Embeddings, norms and the last layer stay in float32. The weights
are quantised again at every start, with the same result, so checkpoints hold the adapter only.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Literal

import torch
from transformers import BitsAndBytesConfig

from schema.errors import ConfigError, UsageError

Quantize = Literal["4bit"]


def check_quantization(quantize: Quantize | None) -> None:
    """Check that this machine can load a base model in 4 bits; None needs nothing.

    Raises:
        UsageError: torch finds no GPU.
        ConfigError: bitsandbytes is missing.
    """
    if quantize is None:
        return
    if not _has_gpu():
        raise UsageError(
            f"quantize: {quantize} needs a GPU, and torch finds none on this machine: leave quantize out, or use a "
            "machine with a GPU and `pip install feedmill[qlora]`"
        )
    if find_spec("bitsandbytes") is None:
        raise ConfigError(
            f"quantize: {quantize} needs bitsandbytes: install the extra with `pip install feedmill[qlora]`, or leave "
            "quantize out"
        )


def nf4() -> BitsAndBytesConfig:
    """Return what transformers needs to load a model in 4 bits."""
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )


def _has_gpu() -> bool:
    return torch.cuda.is_available()
