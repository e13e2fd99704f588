"""Load a tokenizer from a file, a folder or the local cache of Hugging Face; nothing is downloaded or executed.

A tokenizer is its `tokenizer.json`, and the sha256 of that file is its identity. Tokenizers that need Python code of
their own (`trust_remote_code`) have no such file, so they are refused.
"""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from huggingface_hub import try_to_load_from_cache
from tokenizers import Tokenizer

from schema.errors import UsageError

FILE = "tokenizer.json"
# The largest tokenizers in use, of 262,144 tokens, take some 35 MB.
_MOST_BYTES = 96 * 1024 * 1024

# Special tokens of known tokenizers, the project's own first.
_MASKS = ("<mask>", "[MASK]", "<|mask|>")
_PADDINGS = ("<pad>", "[PAD]", "<|pad|>", "<|endoftext|>")
_ENDS = ("<|endoftext|>", "</s>", "<|end_of_text|>", "<eos>", "<|eos|>", "<｜end▁of▁sentence｜>")
# Before the text, between its two parts, and before the part that is missing between them.
_FIMS = (
    ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"),
    ("<fim_prefix>", "<fim_suffix>", "<fim_middle>"),
    ("<fim-prefix>", "<fim-suffix>", "<fim-middle>"),
    ("▁<PRE>", "▁<SUF>", "▁<MID>"),
    ("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"),
)


@dataclass(frozen=True)
class LoadedTokenizer:
    """A tokenizer's file, and its special tokens that the code family uses. It can be copied to other processes.

    Attributes:
        text: the content of `tokenizer.json`.
        found_at: its path, or its name in the cache.
        sha256: of the file, in hex.
    """

    text: str = field(repr=False)
    found_at: str
    sha256: str

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer, which encodes whole texts: it cuts none, pads none, and takes "<mask>" in a text as text."""
        tokenizer = Tokenizer.from_str(self.text)
        tokenizer.no_truncation()
        tokenizer.no_padding()
        # A source file that contains the text of a special token must not be able to insert that token.
        tokenizer.encode_special_tokens = True
        return tokenizer

    @property
    def mask(self) -> int | None:
        """Number of the mask token; None if the tokenizer has none."""
        return next(self._known(_MASKS), None)

    @property
    def fim(self) -> tuple[int, int, int] | None:
        """Numbers of the fill-in-the-middle tokens (prefix, suffix, middle); None if the tokenizer has none."""
        for names in _FIMS:
            found = tuple(self._known(names))
            if len(found) == len(names):
                return found[0], found[1], found[2]
        return None

    @property
    def end(self) -> int:
        """Number of the token that ends a document.

        Raises:
            UsageError: the tokenizer has none.
        """
        found = next(self._known(_ENDS), None)
        if found is None:
            raise UsageError(
                f"the tokenizer {self.found_at} has no token that ends a text ({', '.join(_ENDS)}), which a language "
                "model learns: take another tokenizer, or make one with `feedmill tokenizer train`"
            )
        return found

    @property
    def padding(self) -> int:
        """Number of the padding token; 0 if the tokenizer has none, because a batch's mask says what is padding."""
        return next(self._known(_PADDINGS), 0)

    @cached_property
    def _special(self) -> dict[str, int]:
        added = self.tokenizer.get_added_tokens_decoder()
        return {token.content: number for number, token in added.items() if token.special}

    def _known(self, names: Iterable[str]) -> Iterator[int]:
        return (self._special[name] for name in names if name in self._special)

    def __getstate__(self) -> dict[str, str]:
        return {"text": self.text, "found_at": self.found_at, "sha256": self.sha256}


def load_tokenizer(place: str | Path) -> LoadedTokenizer:
    """Return the tokenizer at a path or of a name.

    Args:
        place: a `tokenizer.json`, a folder that holds one, or the name of a repository in the local cache of Hugging
            Face, e.g. "bigcode/starcoder2-3b".

    Raises:
        UsageError: there is no such file, folder or cached name, or the file is too large or is no tokenizer.
    """
    path = _found(place)
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise UsageError(f"the tokenizer {place} is not an ordinary file: name a {FILE}")
        if status.st_size > _MOST_BYTES:
            raise UsageError(f"the tokenizer {place} has {status.st_size} bytes, over the limit of {_MOST_BYTES}")
        with path.open("rb") as stream:
            data = stream.read(_MOST_BYTES)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"the tokenizer {place} cannot be read ({getattr(error, 'strerror', None) or error}): give the path of a "
            f"{FILE}, or make one with `feedmill tokenizer train`"
        ) from None
    loaded = LoadedTokenizer(data.decode("utf-8", "replace"), str(place), hashlib.sha256(data).hexdigest())
    try:
        # The library's errors have no class of their own.
        loaded.tokenizer.get_vocab_size()
    except Exception as error:
        raise UsageError(
            f"the tokenizer {place} is not a {FILE} that the library tokenizers reads ({str(error)[:200]}): save a "
            "fast tokenizer with `save_pretrained`, or make one with `feedmill tokenizer train`"
        ) from None
    return loaded


def _found(place: str | Path) -> Path:
    """Return the path of a tokenizer's file; the file may be missing."""
    path = Path(place)
    if path.is_dir():
        return path / FILE
    if not path.exists() and isinstance(place, str) and not path.is_absolute() and path.suffix != ".json":
        try:
            cached = try_to_load_from_cache(place, FILE)
        except ValueError:
            return path
        if isinstance(cached, str):
            return Path(cached)
    return path
