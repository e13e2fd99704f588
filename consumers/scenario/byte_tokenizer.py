"""The scenario family's tokens as a `tokenizer.json`, so that a model of scenarios has a tokenizer that others load."""

from __future__ import annotations

from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from consumers.scenario.byte_tokens import BOS, EOS, FIRST_BYTE, PAD, SEP

SPECIAL = {"<pad>": PAD, "<s>": BOS, "<sep>": SEP, "</s>": EOS}


def byte_tokenizer() -> str:
    """Return the content of a `tokenizer.json` that gives each byte of a text its token of `byte_tokens`.

    >>> Tokenizer.from_str(byte_tokenizer()).encode("<s>a<sep>").ids
    [1, 101, 2]
    """
    vocabulary = {**SPECIAL, **{_character(byte): FIRST_BYTE + byte for byte in range(256)}}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIAL))
    text: str = tokenizer.to_str(pretty=True)
    return text + "\n"


def prompt_of(context: str, request: str) -> str:
    """Return the text whose tokens come before the response of a scenario."""
    return f"<s>{context}<sep>{request}<sep>"


def _character(byte: int) -> str:
    """Return the character by which byte-level tokenizers write a byte (GPT-2, Radford et al., 2019)."""
    shown = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    if byte in shown:
        return chr(byte)
    hidden = [each for each in range(256) if each not in shown]
    return chr(256 + hidden.index(byte))
