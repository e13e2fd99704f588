"""Train a byte-level BPE tokenizer on source texts: the same texts in the same order give the same file."""

from __future__ import annotations

import json
from collections.abc import Iterable

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from schema.errors import UsageError

END, PADDING, MASK = "<|endoftext|>", "<pad>", "<mask>"
FIM = ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>")
SPECIAL = (END, PADDING, MASK, *FIM)
VOCABULARY_SIZE = 16_384
# Every byte has a token of its own, so any text can be encoded.
LEAST_VOCABULARY = 256 + len(SPECIAL)


def train_byte_pairs(texts: Iterable[str], vocabulary_size: int = VOCABULARY_SIZE) -> str:
    """Return the content of a `tokenizer.json` that was trained on `texts`.

    Args:
        texts: source texts; memory grows with their distinct words.
        vocabulary_size: the most tokens, special ones included, at least `LEAST_VOCABULARY`.

    Raises:
        UsageError: the vocabulary is too small, or there are no texts.

    Example::

        Path("bpe.json").write_text(train_byte_pairs(["def f(x): return x"], 300))
    """
    if not LEAST_VOCABULARY <= vocabulary_size <= 1 << 20:
        raise UsageError(f"the vocabulary size is {vocabulary_size}: use {LEAST_VOCABULARY} to {1 << 20}")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    # The text of a special token in a source file is text.
    tokenizer.encode_special_tokens = True
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        min_frequency=2,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    read = 0

    def counted() -> Iterable[str]:
        nonlocal read
        for text in texts:
            read += 1
            yield text

    tokenizer.train_from_iterator(counted(), trainer)
    if not read:
        raise UsageError("there are no texts to train a tokenizer on: name folders with source files")
    return json.dumps(json.loads(tokenizer.to_str()), ensure_ascii=False, indent=1) + "\n"
