"""The scenario family's tokens: special ones, then one for each byte of UTF-8.

A token per byte needs no vocabulary file and covers every language.
"""

from __future__ import annotations

import polars as pl

PAD, BOS, SEP, EOS = range(4)
# A byte's token is the byte plus this.
FIRST_BYTE = 4
VOCABULARY_SIZE = FIRST_BYTE + 256
TEXTS = ("context", "request", "response")
# BOS, EOS, and a SEP between texts.
SPECIAL_TOKENS = 2 + len(TEXTS) - 1
# About 700 words, several times the length of a scenario.
MAX_TOKENS = 4096


def token_count() -> pl.Expr:
    """Return a row's length in tokens, special tokens included (Int64)."""
    return pl.sum_horizontal(pl.col(name).str.len_bytes().cast(pl.Int64) for name in TEXTS) + SPECIAL_TOKENS
