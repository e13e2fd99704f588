"""Whether a server saw all of a prompt: some cut off silently what is longer than their context.

A server reports the tokens of the prompt that it read. Where they are too few for the characters sent, it read less.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

# Prose takes 3 to 5 characters a token in any vocabulary in use: at this many something is missing.
_MOST_CHARACTERS_PER_TOKEN = 8.0
# Prompts that are alike differ by less than this from the one that took the most tokens for its length.
_MOST_TIMES_DENSEST = 1.5


class ContextWatch:
    """Compares what servers say that they read with what they were sent, by model."""

    def __init__(self) -> None:
        self._densest: dict[str, float] = {}

    def is_truncated(
        self, model: str, messages: Sequence[Mapping[str, str]], prompt_tokens: int | None, *, alike: bool
    ) -> bool:
        """Whether the prompt tokens reported are too few; an unknown number says nothing.

        Prompts that are `alike`, all our own English, are also held against each other; others hold any language.
        """
        if not prompt_tokens:
            return False
        ratio = sum(len(message["content"]) for message in messages) / prompt_tokens
        if not alike:
            return ratio > _MOST_CHARACTERS_PER_TOKEN
        densest = min(ratio, self._densest.get(model, ratio))
        if ratio > min(_MOST_CHARACTERS_PER_TOKEN, _MOST_TIMES_DENSEST * densest):
            return True
        self._densest[model] = densest
        return False
