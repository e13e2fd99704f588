"""The client of an endpoint: proxies, Retry-After, and settings that cannot be used are reported in one line."""

from __future__ import annotations

import asyncio
import json
import sys
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from producers.scenario.llm.client import ModelClient, RetryPolicy, UnansweredError, retry_after_s
from producers.scenario.llm.replies import Reply
from schema.errors import ConfigError
from schema.settings import load_settings
from tests.producers.llm.server import serving, taking, well

NOW = datetime(2030, 1, 1, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize("proxy", ["http://127.0.0.1:1", "socks5://127.0.0.1:1"])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_model_on_the_loopback_is_asked_without_a_proxy(
    host: str, proxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy)

    async def ask(url: str) -> Reply:
        async with ModelClient(load_settings(llm_base_url=url), RetryPolicy(tries=1), 1) as client:
            return await client.ask("m", [{"role": "user", "content": '{"id": "a"}'}], {})

    with serving(lambda call: well) as server:
        assert asyncio.run(ask(server.url.replace("127.0.0.1", host))).text
        assert len(server.calls) == 1


@pytest.mark.parametrize(
    ("taken", "asked"),
    [
        (["json_schema"], ["json_schema"]),
        (["json_object", "none"], ["json_schema", "json_object"]),
        (["none"], ["json_schema", "json_object", "none"]),
    ],
)
def test_a_refused_response_format_steps_down_once_for_all_calls(taken: list[str], asked: list[str]) -> None:
    question = [{"role": "user", "content": '{"id": "a"}'}]

    async def ask(url: str) -> ModelClient:
        async with ModelClient(load_settings(llm_base_url=url), RetryPolicy(tries=1), 1) as client:
            answers = await asyncio.gather(*(client.ask("m", question, {}) for _ in range(3)))
            assert all(answer.text and answer.tries == 1 for answer in answers)
            await client.ask("m", question, {})
        return client

    with serving(lambda call: taking(*taken)) as server:
        client = asyncio.run(ask(server.url))
    formats = [call.response_format for call in server.calls]
    assert sorted(set(formats), key=formats.index) == asked
    assert formats[-1] == client.response_format == asked[-1]
    assert len(client.notes) == len(asked) - 1
    for note, refused, tried in zip(client.notes, asked, asked[1:], strict=False):
        assert f"refuses the response format {refused} (HTTP 400: " in note
        assert f"set FEEDMILL_LLM_RESPONSE_FORMAT={tried}" in note


def test_parameters_are_merged_into_the_request() -> None:
    parameters = {"temperature": 0.5, "chat_template_kwargs": {"enable_thinking": False}}

    async def ask(url: str) -> None:
        async with ModelClient(load_settings(llm_base_url=url), RetryPolicy(tries=1), 1) as client:
            await client.ask("m", [{"role": "user", "content": '{"id": "a"}'}], {}, parameters)

    with serving(lambda call: well) as server:
        asyncio.run(ask(server.url))
    assert [call.parameters for call in server.calls] == [parameters]


def test_a_response_format_that_is_set_is_not_changed() -> None:
    async def ask(url: str) -> None:
        settings = load_settings(llm_base_url=url, llm_response_format="json_object")
        async with ModelClient(settings, RetryPolicy(tries=3), 1) as client:
            await client.ask("m", [{"role": "user", "content": '{"id": "a"}'}], {})

    with serving(lambda call: taking("none")) as server, pytest.raises(UnansweredError, match="HTTP 400"):
        asyncio.run(ask(server.url))
    assert [call.response_format for call in server.calls] == ["json_object"]


@pytest.mark.parametrize("host", ["[::1]", "0.0.0.0", "models.localhost"])  # noqa: S104 - nothing is bound
def test_other_names_of_this_machine_need_no_proxy(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:bad")
    client = ModelClient(load_settings(llm_base_url=f"http://{host}:1/v1"), RetryPolicy(), 1)
    assert client.url == f"http://{host}:1/v1"


def test_organization_and_project_of_openai_are_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_ORG_ID", "org-secret")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "proj-secret")

    async def ask(url: str) -> None:
        async with ModelClient(load_settings(llm_base_url=url), RetryPolicy(tries=1), 1) as client:
            await client.ask("m", [{"role": "user", "content": '{"id": "a"}'}], {})

    with serving(lambda call: well) as server:
        asyncio.run(ask(server.url))
        assert "secret" not in str(server.request(server.calls[0]).headers)


@pytest.mark.parametrize(
    ("proxy", "message"),
    [
        ("gopher://x", "ALL_PROXY"),
        ("http://127.0.0.1:bad", "ALL_PROXY"),
    ],
)
def test_an_unusable_proxy_is_reported_in_one_line(proxy: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy)
    with pytest.raises(ConfigError, match=message) as caught:
        ModelClient(load_settings(llm_base_url="https://api.example.com/v1"), RetryPolicy(), 1)
    assert "\n" not in str(caught.value)


def test_a_socks_proxy_without_its_package_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "socksio", None)
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:9")
    with pytest.raises(ConfigError, match=r"pip install feedmill\[llm\]"):
        ModelClient(load_settings(llm_base_url="https://api.example.com/v1"), RetryPolicy(), 1)


def test_a_model_is_asked_through_a_socks_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The proxy itself answers for the host, which no name server knows."""
    asked: list[bytes] = []

    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _, methods = await reader.readexactly(2)
        await reader.readexactly(methods)
        writer.write(b"\x05\x00")
        *_, kind, length = await reader.readexactly(5)
        assert kind == 3
        asked.append(await reader.readexactly(length))
        await reader.readexactly(2)
        writer.write(b"\x05\x00\x00\x01" + bytes(6))
        await reader.readuntil(b"\r\n\r\n")
        body = json.dumps({"choices": [{"message": {"content": "by proxy"}, "finish_reason": "stop"}]}).encode()
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        await writer.drain()
        writer.close()

    async def answer() -> str:
        async with await asyncio.start_server(proxy, "127.0.0.1") as server:
            monkeypatch.setenv("ALL_PROXY", f"socks5://127.0.0.1:{server.sockets[0].getsockname()[1]}")
            settings = load_settings(llm_base_url="http://model.invalid/v1", llm_timeout_s=5)
            async with ModelClient(settings, RetryPolicy(tries=1), 1) as client:
                return (await client.ask("any", [{"role": "user", "content": "?"}], {"type": "object"})).text

    assert asyncio.run(answer()) == "by proxy"
    assert asked == [b"model.invalid"]


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("3", 3.0),
        ("0.5", 0.5),
        ("-4", 0.0),
        (format_datetime(NOW + timedelta(seconds=90), usegmt=True), 90.0),
        (format_datetime(NOW - timedelta(seconds=90), usegmt=True), 0.0),
        ("Tue, 01 Jan 2030 12:00:07 -0000", 7.0),
        ("soon", None),
        ("inf", None),
        ("nan", None),
        ("", None),
        (None, None),
    ],
)
def test_retry_after_is_read_in_both_its_forms(value: str | None, seconds: float | None) -> None:
    assert retry_after_s(value, NOW) == seconds


@pytest.mark.parametrize(
    "settings",
    [
        {"llm_base_url": "::::"},
        {"llm_base_url": "http://[::1"},
        {"llm_base_url": "ftp://host/v1"},
        {"llm_base_url": "localhost:11434/v1"},
        {"llm_base_url": "http://127.0.0.1:99999/v1"},
        {"llm_base_url": ""},
        {"llm_api_key": "not ascii: \xe9\xe8"},
        {"llm_api_key": "two\nlines"},
    ],
)
def test_an_invalid_url_or_key_is_refused_at_once(settings: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="FEEDMILL_LLM_") as caught:
        ModelClient(load_settings(**settings), RetryPolicy(), 1)
    assert settings.get("llm_api_key", "-" * 9) not in str(caught.value)


def test_credentials_in_the_url_are_not_shown() -> None:
    settings = load_settings(llm_base_url="https://me:hidden@host:8443/v1?key=hidden")
    assert ModelClient(settings, RetryPolicy(), 1).url == "https://host:8443/v1"
