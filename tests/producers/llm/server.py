"""A local OpenAI-compatible endpoint for tests, which answers correctly or misbehaves as a script says.

The server records its requests, its answers and the tokens that it billed.
"""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from itertools import count
from typing import Any

from aiohttp import web

from schema.scenario import FAMILY
from schema.scenario.bands import AUTHENTICITY_TARGETS, CAPACITY_LEVELS
from tests import scenarios

CHARACTERS_PER_TOKEN = 4
GRID = [tuple(cell.values()) for cell in FAMILY.cells()]
_LINE = re.compile(r"(\S+): C ([0-9.]+)-.* score ([0-9.]+)-.*; type (\w+) \(")


@dataclass
class Call:
    """One HTTP request as the server saw it.

    `asked` has the cell index of each id (None for a validation), `response_format` the type that is asked for, and
    `parameters` the other parts of the request.
    """

    number: int
    model: str
    asked: dict[str, int | None]
    prompt_tokens: int
    key: str
    response_format: str = "none"
    parameters: dict[str, Any] = field(default_factory=dict)
    scenes: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Bill:
    """One answer that was sent completely, and its usage."""

    model: str
    asked: tuple[str, ...]
    prompt_tokens: int
    completion_tokens: int


Behaviour = Callable[["ModelServer", Call], Awaitable[web.StreamResponse]]
Script = Callable[[Call], Behaviour]


class ModelServer:
    """The endpoint; `script` chooses the behaviour for each request."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.url = ""
        self.calls: list[Call] = []
        self.bills: list[Bill] = []
        self.treated: Counter[str] = Counter()
        self.max_at_once = 0
        self._at_once = 0
        self._requests: dict[int, web.Request] = {}
        self._serial = count(1)

    def totals(self) -> dict[str, tuple[int, int, int]]:
        """Return {model: (calls, prompt tokens, completion tokens)} as billed."""
        models = {bill.model for bill in self.bills}
        return {
            model: (
                sum(bill.model == model for bill in self.bills),
                sum(bill.prompt_tokens for bill in self.bills if bill.model == model),
                sum(bill.completion_tokens for bill in self.bills if bill.model == model),
            )
            for model in models
        }

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        lines = body["messages"][-1]["content"].splitlines()
        call = Call(
            number=len(self.calls),
            model=body["model"],
            asked={},
            prompt_tokens=sum(len(message["content"]) for message in body["messages"]) // CHARACTERS_PER_TOKEN,
            key=request.headers["Authorization"].removeprefix("Bearer "),
            response_format=body.get("response_format", {}).get("type", "none"),
            parameters={name: body[name] for name in body.keys() - {"model", "messages", "response_format"}},
        )
        if lines[0].startswith("{"):
            call.scenes = [json.loads(line) for line in lines]
            call.asked = {scene["id"]: None for scene in call.scenes}
        else:
            call.asked = dict(map(_asked, lines))
        self.calls.append(call)
        self._requests[call.number] = request
        self._at_once += 1
        self.max_at_once = max(self.max_at_once, self._at_once)
        try:
            behaviour = self.script(call)
            self.treated[behaviour.__name__] += 1
            return await behaviour(self, call)
        finally:
            self._at_once -= 1

    def request(self, call: Call) -> web.Request:
        return self._requests[call.number]

    def scenario(self, name: str, cell: int) -> dict[str, Any]:
        """Return a correct scenario of a cell in the form of an answer; each has different words."""
        row = scenarios.row(cell + len(GRID) * next(self._serial))
        given = {"id": name, "name": row["character_name"], "age_band": row["character_age_band"]}
        given |= {"relation": row["character_relation"], "anchor": row["qualitative_anchor"]}
        same = ("setting", "context", "capacity_factors", "base_capacity", "calculation_steps", "support_needed")
        return given | {
            column: row[column] for column in (*same, "complexity_type", "request", "response", "authenticity_score")
        }

    def scenarios(self, call: Call) -> list[dict[str, Any]]:
        return [self.scenario(name, cell) for name, cell in call.asked.items() if cell is not None]

    def answer(self, call: Call, content: Any, **changes: Any) -> web.Response:
        """Return and bill a completion of `content`; `usage` replaces the usage, other `changes` alter the choice."""
        text = content if isinstance(content, str) else json.dumps(content)
        usage = {"prompt_tokens": call.prompt_tokens, "completion_tokens": len(text) // CHARACTERS_PER_TOKEN}
        usage = changes.pop("usage", usage)
        message = {"role": "assistant", "content": text, **changes.pop("message", {})}
        choice = {"index": 0, "message": message, "finish_reason": "stop", **changes}
        self.bills.append(
            Bill(
                call.model,
                tuple(call.asked),
                (usage or {}).get("prompt_tokens", 0),
                (usage or {}).get("completion_tokens", 0),
            )
        )
        document = {"id": f"c-{call.number}", "object": "chat.completion", "model": call.model, "choices": [choice]}
        return web.json_response(document | ({"usage": usage} if usage is not None else {}))


def _asked(line: str) -> tuple[str, int]:
    match = _LINE.match(line)
    assert match is not None, line
    level = next(band.name for band in CAPACITY_LEVELS if band.low == float(match[2]))
    target = next(band.name for band in AUTHENTICITY_TARGETS if band.low == float(match[3]))
    return match[1], GRID.index((level, target, match[4]))


# --- behaviours ---


async def well(server: ModelServer, call: Call) -> web.StreamResponse:
    if call.scenes:
        return server.answer(call, {"scores": [{"id": scene["id"], "score": 0.9} for scene in call.scenes]})
    return server.answer(call, {"scenarios": server.scenarios(call)})


def busy(retry_after: str | None) -> Behaviour:
    async def too_many_requests(server: ModelServer, call: Call) -> web.StreamResponse:
        return web.json_response({}, status=429, headers={"Retry-After": retry_after} if retry_after else {})

    return too_many_requests


async def busy_until_a_date(server: ModelServer, call: Call) -> web.StreamResponse:
    until = format_datetime(datetime.now(UTC) + timedelta(seconds=1), usegmt=True)
    return web.json_response({}, status=429, headers={"Retry-After": until})


def failing(status: int) -> Behaviour:
    async def fails(server: ModelServer, call: Call) -> web.StreamResponse:
        # The message deliberately contains the key.
        return web.json_response({"error": {"message": f"bad key {call.key} for {call.model}"}}, status=status)

    return fails


async def hangs(server: ModelServer, call: Call) -> web.StreamResponse:
    await asyncio.sleep(3600)
    raise AssertionError


def slow(tokens_per_s: float) -> Behaviour:
    """Return correct answers that take as long as a model of this speed."""

    async def takes_its_time(server: ModelServer, call: Call) -> web.StreamResponse:
        content = json.dumps({"scenarios": server.scenarios(call)})
        await asyncio.sleep(len(content) / CHARACTERS_PER_TOKEN / tokens_per_s)
        return server.answer(call, content)

    return takes_its_time


async def trickles(server: ModelServer, call: Call) -> web.StreamResponse:
    """Sends bytes all the time and never ends."""
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(server.request(call))
    while True:
        await response.write(b" ")
        await asyncio.sleep(0.05)


async def resets(server: ModelServer, call: Call) -> web.StreamResponse:
    raise ConnectionResetError


async def says_no_json(server: ModelServer, call: Call) -> web.StreamResponse:
    return server.answer(call, "I would rather talk about the weather.")


async def breaks_json(server: ModelServer, call: Call) -> web.StreamResponse:
    return server.answer(call, '{"scenarios": [{"id": "x", "name": }]}')


async def talks_around_json(server: ModelServer, call: Call) -> web.StreamResponse:
    content = json.dumps({"scenarios": server.scenarios(call)}, indent=1)
    return server.answer(call, f"Sure! {{as asked}}:\n```json\n{content}\n```\nAnything else?")


async def leaves_one_out(server: ModelServer, call: Call) -> web.StreamResponse:
    return server.answer(call, {"scenarios": server.scenarios(call)[1:]})


async def answers_one_twice(server: ModelServer, call: Call) -> web.StreamResponse:
    correct = server.scenarios(call)
    twin = server.scenario(correct[0]["id"], next(iter(call.asked.values())))
    return server.answer(call, {"scenarios": [*correct, twin]})


async def answers_an_unknown_id(server: ModelServer, call: Call) -> web.StreamResponse:
    correct = server.scenarios(call)
    return server.answer(call, {"scenarios": [{**correct[0], "id": "somebody-else"}, *correct[1:]]})


async def reverses_the_order(server: ModelServer, call: Call) -> web.StreamResponse:
    return server.answer(call, {"scenarios": server.scenarios(call)[::-1]})


async def mixes_up_cells(server: ModelServer, call: Call) -> web.StreamResponse:
    """Gives every answer the id of the next one."""
    correct = server.scenarios(call)
    names = [scenario["id"] for scenario in correct]
    return server.answer(
        call,
        {"scenarios": [{**correct[at], "id": names[(at + 1) % len(names)]} for at in range(len(correct))]},
    )


async def misses_the_cell(server: ModelServer, call: Call) -> web.StreamResponse:
    correct = server.scenarios(call)
    free = next(cell for cell in range(len(GRID)) if cell not in call.asked.values())
    return server.answer(call, {"scenarios": [server.scenario(correct[0]["id"], free), *correct[1:]]})


async def contradicts_itself(server: ModelServer, call: Call) -> web.StreamResponse:
    first, *others = server.scenarios(call)
    return server.answer(call, {"scenarios": [{**first, "calculation_steps": ["1.0 + 1.0 = 3.0"]}, *others]})


async def gives_a_text_for_a_number(server: ModelServer, call: Call) -> web.StreamResponse:
    first, *others = server.scenarios(call)
    return server.answer(call, {"scenarios": [{**first, "authenticity_score": "high"}, *others]})


async def is_cut_off(server: ModelServer, call: Call) -> web.StreamResponse:
    content = json.dumps({"scenarios": server.scenarios(call)})
    return server.answer(call, content[: len(content) * 2 // 3], finish_reason="length")


async def sees_half_the_prompt(server: ModelServer, call: Call) -> web.StreamResponse:
    tokens = call.prompt_tokens // 3 if len(call.asked) > 1 else call.prompt_tokens
    usage = {"prompt_tokens": tokens, "completion_tokens": 100}
    return server.answer(call, {"scenarios": server.scenarios(call)}, usage=usage)


async def sees_the_end_only(server: ModelServer, call: Call) -> web.StreamResponse:
    usage = {"prompt_tokens": 20, "completion_tokens": 100}
    return server.answer(call, "Which scenes?", usage=usage)


async def leaves_cached_tokens_out(server: ModelServer, call: Call) -> web.StreamResponse:
    """Reports only the prompt tokens that were not in its cache, from the first call on."""
    usage = {"prompt_tokens": 20, "completion_tokens": 100}
    return server.answer(call, {"scenarios": server.scenarios(call)}, usage=usage)


async def reports_cached_tokens_apart(server: ModelServer, call: Call) -> web.StreamResponse:
    usage = {"prompt_tokens": 20, "completion_tokens": 100}
    details = {"cached_tokens": call.prompt_tokens - 20}
    return server.answer(call, {"scenarios": server.scenarios(call)}, usage={**usage, "prompt_tokens_details": details})


async def has_no_quota(server: ModelServer, call: Call) -> web.StreamResponse:
    error = {"message": "You exceeded your current quota.", "code": "insufficient_quota"}
    return web.json_response({"error": error}, status=429)


async def does_not_count(server: ModelServer, call: Call) -> web.StreamResponse:
    return server.answer(call, {"scenarios": server.scenarios(call)}, usage=None)


async def refuses(server: ModelServer, call: Call) -> web.StreamResponse:
    return server.answer(call, "", message={"content": None, "refusal": "I cannot write that."})


async def thinks_aloud(server: ModelServer, call: Call) -> web.StreamResponse:
    """Writes a draft in its thinking, and then the answer."""
    draft = json.dumps({"scenarios": [{"id": name, "name": "?"} for name in call.asked] * 2})
    answer = json.dumps({"scenarios": server.scenarios(call)})
    return server.answer(call, f"<think>Perhaps {draft}</think>\n{answer}")


async def drafts_first(server: ModelServer, call: Call) -> web.StreamResponse:
    draft = json.dumps({"scenarios": [{"id": name, "name": "?"} for name in call.asked] * 2})
    return server.answer(call, f"Draft: {draft}\nFinal: {json.dumps({'scenarios': server.scenarios(call)})}")


async def thinks_only(server: ModelServer, call: Call) -> web.StreamResponse:
    answer = json.dumps({"scenarios": server.scenarios(call)})
    return server.answer(call, "", message={"content": None, "reasoning_content": answer})


async def is_cut_off_thinking(server: ModelServer, call: Call) -> web.StreamResponse:
    return server.answer(call, "<think>First, the numbers: " + "so " * 50, finish_reason="length")


async def answers_in_parts(server: ModelServer, call: Call) -> web.StreamResponse:
    answer = json.dumps({"scenarios": server.scenarios(call)})
    parts = [
        {"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]},
        {"type": "text", "text": answer[:40]},
        {"type": "text", "text": answer[40:]},
    ]
    return server.answer(call, "", message={"content": parts})


async def says_nothing(server: ModelServer, call: Call) -> web.StreamResponse:
    return server.answer(call, "")


async def sends_an_error_with_status_200(server: ModelServer, call: Call) -> web.StreamResponse:
    return web.json_response({"error": {"message": f"upstream failed for {call.model}", "code": 502}})


async def sends_no_completion(server: ModelServer, call: Call) -> web.StreamResponse:
    server.bills.append(Bill(call.model, tuple(call.asked), 0, 0))
    return web.Response(text="<html>it works</html>", content_type="text/html")


async def leaves_a_score_out(server: ModelServer, call: Call) -> web.StreamResponse:
    return server.answer(call, {"scores": [{"id": scene["id"], "score": 0.9} for scene in call.scenes[1:]]})


def taking(*formats: str) -> Behaviour:
    """Return a server's behaviour that refuses other response formats, with the error of LM Studio."""

    async def takes(server: ModelServer, call: Call) -> web.StreamResponse:
        if call.response_format in formats:
            return await well(server, call)
        return web.json_response({"error": "'response_format.type' must be one of " + str(formats)}, status=400)

    return takes


def once(behaviour: Behaviour, applies: Callable[[Call], bool]) -> Script:
    """Return a script with `behaviour` for the first call that `applies` selects, and correct answers for others."""
    left = [behaviour]
    return lambda call: left.pop() if left and applies(call) else well


@contextmanager
def serving(script: Script) -> Iterator[ModelServer]:
    """Run the endpoint on a port of its own while the context lasts."""
    server = ModelServer(script)
    ready = threading.Event()
    loop = asyncio.new_event_loop()
    ended = asyncio.Event()

    async def serve() -> None:
        application = web.Application()
        application.router.add_post("/v1/chat/completions", _resetting(server.handle))
        runner = web.AppRunner(application, handler_cancellation=True, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        server.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
        ready.set()
        await ended.wait()
        await runner.cleanup()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    try:
        assert ready.wait(30)
        yield server
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join()
        loop.close()


def _resetting(handle: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> Any:
    async def handler(request: web.Request) -> web.StreamResponse:
        try:
            return await handle(request)
        except ConnectionResetError:
            assert request.transport is not None
            request.transport.abort()
            raise

    return handler
