"""Detect truncated prompts: some servers silently cut off a prompt that exceeds their context.

A server reports the tokens of the prompt that it read. If they are too few for the characters sent, a part is missing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

# Prose has 3 to 5 characters per token in any common vocabulary, so above this ratio a part is missing.
_MOST_CHARACTERS_PER_TOKEN = 8.0
# Similar prompts have at most this many times the characters per token of the densest one.
_MOST_TIMES_DENSEST = 1.5


class ContextWatch:
    """Compares, by model, the prompt tokens that servers report with the characters sent."""

    def __init__(self) -> None:
        self._densest: dict[str, float] = {}

    def is_truncated(
        self, model: str, messages: Sequence[Mapping[str, str]], prompt_tokens: int | None, *, alike: bool
    ) -> bool:
        """Whether the reported prompt tokens are too few; False if they are unknown.

        Prompts that are `alike`, all our own English, are also compared with each other; others may be in any language.
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
