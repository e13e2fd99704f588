"""The reduction family's tokens: special ones, then one for each character of a term."""

from __future__ import annotations

PAD, BOS, EOS = range(3)
ALPHABET = "\\.()0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
VOCABULARY_SIZE = 3 + len(ALPHABET)
# BOS and EOS.
SPECIAL_TOKENS = 2
# Terms of up to 2,048 characters.
MAX_TOKENS = 2048 + SPECIAL_TOKENS
