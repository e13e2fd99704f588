"""Cut documents into overlapping windows of tokens, and find the characters and lines of each window.

A document of n tokens gives the windows [k * stride, min(k * stride + window, n)) for k = 0, 1, ... up to the first
that ends at n. So every token is in a window, and only the last window can be shorter than the others. A document
without tokens gives no window.

For a language model (`FormOptions.completions`) a document is its prompt, its target and the tokenizer's end token, in
this order; its text is prompt and target together. `labels` has the target and the end token. A window without them is
left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from consumers.form_options import FormIdentity
from consumers.sequence.weights import draws
from consumers.source_code import completions
from consumers.source_code.document_tokens import PLACES, Tokenized, Tokens, from_cache, tokenized
from consumers.source_code.masking import NO_LABEL, filled_in_middle, masked
from consumers.source_code.token_cache import TokenCache
from consumers.source_code.tokenizer import LoadedTokenizer
from consumers.tensor_form import PART, Indices
from schema.buffers import lists_of

# The most bytes of text that are tokenized together; a token takes some 100 bytes until its windows are cut.
_TEXT_BYTES = 256 * 1024
# The most tokens of a frame of windows, unless one window has more.
_FRAME_TOKENS = 1 << 19


def window_bounds(tokens: int, window: int, stride: int) -> tuple[Indices, Indices]:
    """Return the first tokens and the ends (K,) of the windows of a document.

    >>> [bounds.tolist() for bounds in window_bounds(10, 4, 3)]
    [[0, 3, 6], [4, 7, 10]]

    Args:
        tokens: tokens of the document, at least 0.
        window: the most tokens of a window, at least 1.
        stride: from 1 to `window`.
    """
    count = 1 + -(-max(tokens - window, 0) // stride) if tokens else 0
    begins = np.arange(count, dtype=np.int64) * stride
    return begins, np.minimum(begins + window, tokens)


@dataclass(frozen=True)
class Windows:
    """The expansion of the code family: each document becomes its windows of tokens.

    Attributes:
        loaded: the tokenizer.
        identity: what decides the windows.
        cache: keeps tokenized documents; None tokenizes them in every pass.
    """

    loaded: LoadedTokenizer
    identity: FormIdentity
    cache: TokenCache | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of a document that are read."""
        return completions.COLUMNS if self.identity.completions else ("text",)

    @property
    def beside(self) -> tuple[str, ...]:
        """The document's columns in files of windows."""
        return ("path", "split", "example_id")

    @property
    def schema(self) -> dict[str, pl.DataType]:
        """The columns of a window: `labels` with masking and for a language model."""
        tokens = {"input_ids": pl.List(pl.Int32())}
        labels = {"labels": pl.List(pl.Int32())} if self._has_labels else {}
        return {**tokens, **labels, **dict.fromkeys(PLACES, pl.Int32())}

    @property
    def token_bytes(self) -> int:
        """Bytes of a window per token."""
        return 8 if self._has_labels else 4

    @property
    def _has_labels(self) -> bool:
        return self.identity.masking_form is not None or self.identity.completions

    @property
    def content_tokens(self) -> int:
        """The most tokens of a document in a window; the fill-in-the-middle form adds three."""
        return self.identity.window - (3 if self.identity.masking_form == "fim" else 0)

    def sequences(self, rows: pl.DataFrame, seed: int, epoch: int) -> Iterator[tuple[Indices, pl.DataFrame]]:
        """Yield the documents' windows; see `consumers.tensor_form.Expansion.sequences`."""
        documents = rows.select("example_id", **self._texts(rows))
        sizes = documents.select(pl.sum_horizontal(pl.col("prompt", "target").str.len_bytes().cast(pl.Int64)))
        for begin, end in _groups(sizes.to_series().to_numpy(), _TEXT_BYTES):
            yield from self._of(documents[begin:end], begin, seed, epoch)

    def _texts(self, rows: pl.DataFrame) -> dict[str, pl.Series]:
        if self.identity.completions:
            return completions.prompts_and_targets(rows).to_dict()
        return {"prompt": pl.repeat("", rows.height, dtype=pl.String, eager=True), "target": rows["text"]}

    def _of(self, documents: pl.DataFrame, first: int, seed: int, epoch: int) -> Iterator[tuple[Indices, pl.DataFrame]]:
        """Yield the windows of documents that are tokenized together; `first` is the index of the first document."""
        values = self._tokenized(documents)
        tokens = values.tokens
        bounds = [self._bounds(len(each)) for each in tokens]
        counts = [len(begins) for begins, _ in bounds]
        if not sum(counts):
            return
        before = np.concatenate([[0], np.cumsum([len(each) for each in tokens])])
        parents = np.repeat(np.arange(len(tokens)), counts)
        parts = np.concatenate([np.arange(count) for count in counts])
        begins, ends = (np.concatenate([each[side] for each in bounds]) for side in (0, 1))
        places = np.concatenate(values.places, axis=1)
        flat = np.concatenate(tokens)
        drawn = draws(documents["example_id"].to_numpy()[parents], parts, seed, epoch)
        # A window that ends within the prompt teaches nothing. Without a prompt every window stays.
        taught = np.flatnonzero(ends > values.prompts[parents])
        for low, high in _groups((ends - begins)[taught], _FRAME_TOKENS):
            some = taught[low:high]
            cut = _gathered(flat, (before[parents] + begins)[some], (before[parents] + ends)[some])
            given = np.maximum(values.prompts[parents] - begins, 0)[some]
            made = self._columns(cut, (ends - begins)[some], given, drawn[some])
            ranges = {name: pl.Series(name, places[number, some]) for number, name in enumerate(PLACES)}
            frame = pl.DataFrame({PART: pl.Series(parts[some], dtype=pl.Int32()), **made, **ranges})
            yield parents[some] + first, frame.cast(dict.fromkeys(PLACES, pl.Int32()))

    def _bounds(self, tokens: int) -> tuple[Indices, Indices]:
        return window_bounds(tokens, self.content_tokens, self.identity.stride)

    def _tokenized(self, documents: pl.DataFrame) -> Tokenized:
        if self.cache is None:
            return self._encoded(documents)
        texts = pl.concat([documents["prompt"], documents["target"]])
        decisive = self.identity.tokenizer, self.content_tokens, self.identity.stride, int(self.identity.completions)
        key = self.cache.key(texts, *decisive)
        kept = self.cache.read(key, documents.height)
        if kept is not None and (values := from_cache(kept, documents, self.loaded, self._bounds)) is not None:
            return values
        made = self._encoded(documents)
        self.cache.write(key, made.frame())
        return made

    def _encoded(self, documents: pl.DataFrame) -> Tokenized:
        return tokenized(documents, self.loaded, self._bounds, ended=self.identity.completions)

    def _columns(
        self, tokens: Tokens, lengths: Indices, given: Indices, drawn: npt.NDArray[np.uint64]
    ) -> dict[str, pl.Series]:
        """Return the tokens of windows, one after the other, as columns of lists; `given` are those of the prompts."""
        if not self.identity.completions:
            return self._masked(tokens, lengths, drawn)
        places = np.arange(len(tokens)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        labels = np.where(places < np.repeat(given, lengths), np.int32(NO_LABEL), tokens)
        return {"input_ids": _lists(tokens, lengths), "labels": _lists(labels, lengths)}

    def _masked(self, tokens: Tokens, lengths: Indices, drawn: npt.NDArray[np.uint64]) -> dict[str, pl.Series]:
        """Return the columns of `_columns` for windows that are no completions."""
        share = self.identity.masking
        match self.identity.masking_form:
            case "mask":
                mask = self.loaded.mask
                assert mask is not None  # noqa: S101  # the form refuses a tokenizer without one
                inputs, labels = masked(tokens, lengths, drawn, share, mask)
            case "fim":
                fim = self.loaded.fim
                assert fim is not None  # noqa: S101  # as above
                inputs, labels = filled_in_middle(tokens, lengths, drawn, share, fim)
                lengths = lengths + len(fim)
            case _:
                return {"input_ids": _lists(tokens, lengths)}
        return {"input_ids": _lists(inputs, lengths), "labels": _lists(labels, lengths)}


def _lists(items: Tokens, lengths: Indices) -> pl.Series:
    return lists_of(pl.Series(items, dtype=pl.Int32()), lengths)


def _groups(sizes: npt.NDArray[Any], most: int) -> Iterator[tuple[int, int]]:
    """Yield [begin, end) of consecutive items whose sizes add up to at most `most`; a larger item is alone."""
    begin = total = 0
    for index, size in enumerate(sizes.tolist()):
        if index > begin and total + size > most:
            yield begin, index
            begin, total = index, 0
        total += size
    if begin < len(sizes):
        yield begin, len(sizes)


def _gathered(tokens: Tokens, begins: Indices, ends: Indices) -> Tokens:
    """Return the tokens of windows, one after the other."""
    pieces = [tokens[begin:end] for begin, end in zip(begins.tolist(), ends.tolist(), strict=True)]
    return np.concatenate(pieces)
