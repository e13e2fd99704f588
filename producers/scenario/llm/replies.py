"""Read a completion of an OpenAI-compatible server: its text without the model's thinking, its end and its tokens.

A part that is missing or has a wrong type counts as absent.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from producers.scenario.llm.meter import Usage

# The finish reason of an answer that reached the server's length limit.
CUT_OFF_REASON = "length"
# A model's text is hidden only if it holds the whole key. A shorter key is not a secret ("none", "ollama").
_SECRET_CHARACTERS = 16
# More than any call needs, and few enough that sums fit an Int64.
_MOST_TOKENS = 10**12

# Tags that models and servers put around thinking.
_TAG = re.compile(r"<(?P<closing>/)?(?:think|thinking|thought|reasoning)>", re.IGNORECASE)
# Names that servers give to the thinking when they separate it from the text.
_SEPARATED = ("reasoning_content", "reasoning", "thinking")


@dataclass(frozen=True)
class Reply:
    """The answer to a call: its text without thinking, its finish reason, its tokens and its number of tries.

    `thought` is whether the reply has thinking, in the text or beside it. `seen_tokens` are the prompt tokens that the
    model saw: those of `usage`, and those from a cache if the server reports them apart. `elapsed_s` are the seconds of
    the last try.
    """

    text: str
    finish_reason: str
    refused: bool
    usage: Usage
    tries: int
    thought: bool = False
    seen_tokens: int | None = None
    elapsed_s: float = 0.0


@dataclass(frozen=True)
class ServerError:
    """An error that a server sent in place of a completion, with HTTP status 200; `status` is 0 if it gave none."""

    status: int
    message: str


def read_completion(body: str, key: str, tries: int) -> Reply | ServerError:
    """Return the reply in the body of a response; a text that holds `key` counts as empty.

    Example::

        body = '{"choices": [{"message": {"content": "<think>Hm.</think>Yes."}}]}'
        read_completion(body, "", 1).text  # "Yes."
    """
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        document = None
    choices = _part(document, "choices", list)
    if not choices and (error := _server_error(document)) is not None:
        return error
    choice = choices[0] if choices else None
    message = _part(choice, "message", dict)
    text, thought = without_thinking(_text(message))
    if len(key) >= _SECRET_CHARACTERS and key in text:
        text = ""
    finish = _part(choice, "finish_reason", str) or ""
    usage = _part(document, "usage", dict)
    # Some servers report 0 prompt tokens for a cached prompt, so 0 counts as unknown.
    prompt_tokens = _tokens(usage, "prompt_tokens") or None
    return Reply(
        text=text,
        finish_reason=finish,
        refused=bool(_part(message, "refusal", str)) or finish == "content_filter",
        usage=Usage(prompt_tokens, _tokens(usage, "completion_tokens")),
        tries=tries,
        thought=thought or any(_part(message, name, str) for name in _SEPARATED),
        seen_tokens=_seen_tokens(usage, prompt_tokens),
    )


def _seen_tokens(usage: Any, prompt_tokens: int | None) -> int | None:
    """Return the prompt tokens that the model saw, or None if the server does not report them."""
    cached = _tokens(_part(usage, "prompt_tokens_details", dict), "cached_tokens") or 0
    # Most servers include cached tokens. One that reports fewer prompt tokens than cached ones leaves them out.
    return prompt_tokens + cached if prompt_tokens is not None and prompt_tokens < cached else prompt_tokens


def without_thinking(text: str) -> tuple[str, bool]:
    """Return `text` without its blocks of thinking, and whether it had any.

    A block without an end lasts to the end of the text. A block without a beginning began before the text, because
    some chat templates put the opening tag into the prompt.
    """
    kept: list[str] = []
    at, is_inside, had_any = 0, False, False
    for tag in _TAG.finditer(text):
        had_any = True
        if tag["closing"] is None:
            if not is_inside:
                kept.append(text[at : tag.start()])
            is_inside = True
        else:
            if not is_inside:
                kept.clear()
            is_inside, at = False, tag.end()
    if not is_inside:
        kept.append(text[at:])
    return "".join(kept), had_any


def _text(message: Any) -> str:
    """Return the text of a message, whose content is a text or a list of parts."""
    parts = _part(message, "content", list)
    if parts is None:
        return _part(message, "content", str) or ""
    texts = (part if isinstance(part, str) else _part(part, "text", str) for part in parts if not _is_thinking(part))
    return "".join(text or "" for text in texts)


def _is_thinking(part: Any) -> bool:
    return _part(part, "type", str) in ("thinking", "reasoning", "redacted_thinking")


def _server_error(document: Any) -> ServerError | None:
    error = document.get("error") if isinstance(document, dict) else None
    if not error:
        return None
    status = next((int(code) for name in ("code", "status") if (code := _status(error, name))), 0)
    message = _part(error, "message", str) or (error if isinstance(error, str) else json.dumps(error))
    return ServerError(status, message)


def _status(error: Any, name: str) -> str | None:
    value = error.get(name) if isinstance(error, dict) else None
    return str(value) if re.fullmatch(r"[45]\d\d", str(value)) else None


def _part(document: Any, name: str, kind: type) -> Any:
    value = document.get(name) if isinstance(document, dict) else None
    return value if isinstance(value, kind) else None


def _tokens(usage: Any, name: str) -> int | None:
    value = _part(usage, name, int)
    return value if value is not None and not isinstance(value, bool) and 0 <= value <= _MOST_TOKENS else None
