"""Completions of any server become a reply: text without thinking, and errors that come with HTTP status 200."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producers.scenario.llm.replies import Reply, ServerError, read_completion, without_thinking

KEY = "sk-test-0123456789abcdefghij"


def completion(message: Any, **choice: Any) -> Reply:
    """Return the reply to a completion with this message."""
    reply = read_completion(json.dumps({"choices": [{"message": message, **choice}]}), KEY, 1)
    assert isinstance(reply, Reply)
    return reply


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("<think>Hm.</think>yes", "yes"),
        ("<THINK>Hm.</THINK>yes", "yes"),
        ("a<thinking>b</thinking>c<think>d</think>e", "ace"),
        ("the template opened the block</think>yes", "yes"),
        ("yes<think>and no end", "yes"),
        ("<think>a<think>b</think>yes", "yes"),
        ("<think></think>", ""),
    ],
)
def test_blocks_of_thinking_are_removed(text: str, kept: str) -> None:
    assert without_thinking(text) == (kept, True)
    assert completion({"content": text}).text == kept
    assert completion({"content": text}).thought


@given(st.text())
def test_text_without_tags_is_kept_as_it_is(text: str) -> None:
    if "<" not in text:
        assert without_thinking(text) == (text, False)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ([{"type": "text", "text": "one "}, {"type": "text", "text": "two"}], "one two"),
        ([{"type": "thinking", "text": "hm"}, {"type": "output_text", "text": "yes"}], "yes"),
        (["one ", "two", 3, None], "one two"),
        ([], ""),
        (7, ""),
    ],
)
def test_content_in_parts_is_joined(content: Any, text: str) -> None:
    assert completion({"content": content}).text == text


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning", "thinking"])
def test_thinking_beside_the_content_is_noticed_but_not_read(name: str) -> None:
    reply = completion({"content": None, name: "I would say yes."}, finish_reason="length")
    assert (reply.text, reply.thought, reply.finish_reason) == ("", True, "length")
    assert not completion({"content": "yes", name: ""}).thought


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        ({"message": "upstream failed", "code": 502}, 502, "upstream failed"),
        ({"message": "too many", "status": "429"}, 429, "too many"),
        ({"message": "odd", "code": "model_not_found"}, 0, "odd"),
        ("no slot", 0, "no slot"),
        ({"detail": "x"}, 0, '{"detail": "x"}'),
    ],
)
def test_an_error_with_status_200_is_an_error(error: Any, status: int, message: str) -> None:
    assert read_completion(json.dumps({"error": error}), KEY, 1) == ServerError(status, message)


@pytest.mark.parametrize(
    "body", ["", "<html>", "[]", "{}", '{"choices": []}', '{"choices": [7], "error": null}', "[" * 9999]
)
def test_a_body_that_is_no_completion_is_an_empty_reply(body: str) -> None:
    reply = read_completion(body, KEY, 1)
    assert isinstance(reply, Reply)
    assert (reply.text, reply.thought) == ("", False)


def test_a_text_with_the_key_is_hidden() -> None:
    assert completion({"content": f"the key is {KEY}"}).text == ""
