"""The code family's tensor form: windows of a document's tokens, for the tokenizer of the options."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from consumers.form_options import FormIdentity, FormOptions, MaskingForm
from consumers.source_code.token_cache import TokenCache
from consumers.source_code.tokenizer import LoadedTokenizer, load_tokenizer
from consumers.source_code.windows import Windows
from consumers.tensor_form import TensorForm
from schema.errors import UsageError

if TYPE_CHECKING:
    from consumers.source_code.tensors import EncodedWindows

# Grows when the same options would give other windows.
VERSION = 1


def code_form(options: FormOptions) -> TensorForm:
    """Return the form that cuts documents into windows.

    Raises:
        UsageError: the tokenizer cannot be loaded, or has no tokens to mask or to end a text with.
    """
    loaded = load_tokenizer(options.tokenizer)
    if options.completions:
        _ = loaded.end
    windows = Windows(
        loaded,
        FormIdentity(
            version=VERSION,
            tokenizer=loaded.sha256,
            window=options.window,
            stride=options.stride,
            masking=options.masking,
            masking_form=_masking_form(options, loaded),
            completions=options.completions,
            found_at=loaded.found_at,
        ),
        None if options.cache is None else TokenCache(Path(options.cache), options.cache_bytes),
    )
    if options.stride > windows.content_tokens:
        raise UsageError(
            f"stride is {options.stride}, but a window of {options.window} tokens in the fill-in-the-middle form holds "
            f"{max(windows.content_tokens, 0)} of the document: use a larger window or a smaller stride"
        )
    return TensorForm(
        columns=(),
        tokens=pl.col("input_ids").list.len().cast(pl.Int64),
        encode=partial(_encode, loaded.padding),
        max_tokens=options.window,
        expand=windows,
        packs=True,
    )


def _masking_form(options: FormOptions, loaded: LoadedTokenizer) -> MaskingForm | None:
    if not options.masking:
        return None
    possible: list[MaskingForm] = []
    if loaded.mask is not None:
        possible.append("mask")
    if loaded.fim is not None:
        possible.append("fim")
    wanted = options.masking_form or (possible[0] if possible else None)
    if wanted not in possible:
        lacks = {"mask": "mask token", "fim": "fill-in-the-middle tokens"}.get(
            wanted or "", "mask token and no fill-in-the-middle tokens"
        )
        advice = f'set masking_form="{possible[0]}"' if possible else "leave masking out, or take another tokenizer"
        raise UsageError(f"the tokenizer {options.tokenizer} has no {lacks}, so it cannot mask: {advice}")
    return wanted


def _encode(padding: int, rows: pl.DataFrame, topics: tuple[str, ...]) -> EncodedWindows:
    from consumers.source_code.tensors import EncodedWindows

    return EncodedWindows(rows, topics, padding)
