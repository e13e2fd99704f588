"""Options of a tensor form that makes sequences with a tokenizer, and the identity that follows from them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from schema.errors import UsageError

# Windows of more tokens would make one sequence take more than 4 MiB.
_MOST_TOKENS = 1_048_576

MaskingForm = Literal["mask", "fim"]


@dataclass(frozen=True, kw_only=True)
class FormOptions:
    """How rows become training sequences, for families whose tensor form needs a tokenizer.

    Attributes:
        tokenizer: a tokenizer's file or folder, or the name of one in the local cache of Hugging Face.
        window: the most tokens of a sequence.
        stride: tokens from the start of a window to the start of the next, at most `window`.
        masking: share of a sequence's tokens that are masked, from 0 to below 1.
        masking_form: "mask" replaces tokens by the tokenizer's mask token. "fim" moves one span of tokens to the end,
            in the tokenizer's fill-in-the-middle form. None takes the mask token if the tokenizer has one.
        completions: make sequences for a language model: each document ends with the tokenizer's end token, a change of
            a git history is its new file with message and old file as the prompt, and `labels` has the tokens to learn.
        cache: a folder on this machine that keeps tokenized documents for later passes, ranks, loader workers and runs;
            None keeps none. It changes no batch, so it is not part of the form's identity.
        cache_bytes: the most bytes of files in `cache`; the least recently used ones are removed.

    Raises:
        UsageError: a number is outside its range.

    >>> FormOptions(tokenizer="bpe.json", window=512, stride=128).masking
    0.0
    """

    tokenizer: str | Path
    window: int = 1024
    stride: int = 256
    masking: float = 0.0
    masking_form: MaskingForm | None = None
    completions: bool = False
    cache: str | Path | None = None
    cache_bytes: int = 4 * 1024**3

    def __post_init__(self) -> None:
        if not 1 <= self.window <= _MOST_TOKENS:
            raise UsageError(f"window is {self.window} tokens: use 1 to {_MOST_TOKENS}")
        if not 1 <= self.stride <= self.window:
            raise UsageError(
                f"stride is {self.stride}, but window is {self.window}: use 1 to {self.window}, or tokens would be lost"
            )
        if not (math.isfinite(self.masking) and 0 <= self.masking < 1):
            raise UsageError(f"masking is {self.masking}: use a share from 0 to below 1")
        if self.cache_bytes < 1:
            raise UsageError(f"cache_bytes is {self.cache_bytes}: use 1 or more, or leave cache out")
        if self.masking_form not in (None, "mask", "fim"):
            raise UsageError(f"masking_form is {self.masking_form!r}: use mask or fim")
        if self.completions and self.masking:
            raise UsageError("completions and masking both decide the labels: use one of them")


@dataclass(frozen=True, kw_only=True)
class FormIdentity:
    """Everything that decides the sequences of a row: another identity gives other sequences.

    Attributes:
        version: of the form's own rules.
        tokenizer: sha256 of the tokenizer's file, in hex.
        window: the most tokens of a sequence.
        stride: tokens from the start of a window to the start of the next.
        masking: share of tokens masked.
        masking_form: how they are masked; None without masking.
        completions: whether the sequences are those of a language model.
        found_at: the tokenizer's path or name when the feed was made. It is not compared.
    """

    version: int
    tokenizer: str
    window: int
    stride: int
    masking: float = 0.0
    masking_form: MaskingForm | None = None
    completions: bool = False
    found_at: str = field(default="", compare=False)

    def options(self, tokenizer: str | Path | None = None) -> FormOptions:
        """Return the options that give this identity, with the tokenizer at another place if one is given.

        Raises:
            UsageError: a number is outside its range, which happens only in a damaged state.
        """
        return FormOptions(
            tokenizer=self.found_at if tokenizer is None else tokenizer,
            window=self.window,
            stride=self.stride,
            masking=self.masking,
            masking_form=self.masking_form,
            completions=self.completions,
        )
