"""Whether a server saw all of a prompt: some cut off silently what is longer than their context.

A server reports the tokens of the prompt that it read. Where they are too few for the characters sent, it read less.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

# Prose takes 3 to 5 characters a token in any vocabulary in use: at this many something is missing.
_MOST_CHARACTERS_PER_TOKEN = 8.0
# Prompts of one kind to one model differ by less than this from the one that took the most tokens for its length.
_MOST_TIMES_DENSEST = 1.5


class ContextWatch:
    """Compares what servers say that they read with what they were sent, by model and kind of prompt."""

    def __init__(self) -> None:
        self._densest: dict[tuple[str, bool], float] = {}

    def is_truncated(
        self, model: str, validating: bool, messages: Sequence[Mapping[str, str]], prompt_tokens: int | None
    ) -> bool:
        """Whether the prompt tokens reported are too few; an unknown number says nothing."""
        if not prompt_tokens:
            return False
        ratio = sum(len(message["content"]) for message in messages) / prompt_tokens
        kind = (model, validating)
        densest = min(ratio, self._densest.get(kind, ratio))
        if ratio > min(_MOST_CHARACTERS_PER_TOKEN, _MOST_TIMES_DENSEST * densest):
            return True
        self._densest[kind] = densest
        return False
