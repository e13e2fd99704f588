"""Servers that behave like known products: their forms of answers, errors, thinking and token counts."""

from __future__ import annotations

import json

from aiohttp import web

from tests.producers.llm.server import Call, ModelServer


def _content(server: ModelServer, call: Call) -> str:
    return json.dumps({"scenarios": server.scenarios(call)})


async def ollama(server: ModelServer, call: Call) -> web.StreamResponse:
    """Takes JSON schemas; a field for reasoning is absent."""
    return server.answer(call, _content(server, call))


async def ollama_thinking(server: ModelServer, call: Call) -> web.StreamResponse:
    """Separates the thinking, which sometimes uses up the context before the answer begins."""
    thinking = {"reasoning": "Five scenes. " * 20}
    if call.number % 6 == 1:
        return server.answer(call, "", message=thinking, finish_reason="length")
    return server.answer(call, _content(server, call), message=thinking)


async def vllm(server: ModelServer, call: Call) -> web.StreamResponse:
    """Has no reasoning parser: the template opened the block of thinking, and a draft is inside it."""
    draft = json.dumps({"scenarios": [{"id": name} for name in call.asked]})
    usage = {"prompt_tokens": call.prompt_tokens, "completion_tokens": 900, "prompt_tokens_details": None}
    return server.answer(call, f"First {draft}\n</think>\n\n{_content(server, call)}", usage=usage)


async def llama_cpp(server: ModelServer, call: Call) -> web.StreamResponse:
    """Loads its model at first, and reports only the prompt tokens that were not in its cache."""
    if call.number < 2:
        error = {"code": 503, "message": "Loading model", "type": "unavailable_error"}
        return web.json_response({"error": error}, status=503)
    tokens = call.prompt_tokens if call.number < 6 else 30
    usage = {"prompt_tokens": tokens, "completion_tokens": 900}
    return server.answer(call, _content(server, call), usage=usage)


async def lm_studio(server: ModelServer, call: Call) -> web.StreamResponse:
    """Takes JSON schemas or text only, and leaves the thinking in the text."""
    if call.response_format == "json_object":
        return web.json_response({"error": "'response_format.type' must be 'json_schema' or 'text'"}, status=400)
    return server.answer(call, f"<think>\nShort scenes.\n</think>\n\n{_content(server, call)}")


async def unstructured(server: ModelServer, call: Call) -> web.StreamResponse:
    """Knows no response format; its model wraps JSON in prose, leaves the outer object out, or writes prose only."""
    if call.response_format != "none":
        error = {"message": "Unrecognized request argument supplied: response_format", "type": "invalid_request_error"}
        return web.json_response({"error": error}, status=400)
    scenes = server.scenarios(call)
    if call.number % 7 == 3:
        return server.answer(call, "Here is a story about a kind neighbour and a long night.")
    if call.number % 2:
        return server.answer(call, f"Sure!\n```json\n{json.dumps(scenes, indent=2)}\n```\nShall I go on?")
    return server.answer(call, f"```json\n{json.dumps({'scenarios': scenes})}\n```")
