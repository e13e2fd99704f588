"""Proxies of the environment are not used for this machine, and an unusable proxy is reported in one line."""

from __future__ import annotations

import asyncio

import pytest

from producers.scenario.llm.client import ModelClient, Reply, RetryPolicy
from schema.errors import ConfigError
from schema.settings import load_settings
from tests.producers.llm.server import serving, well


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


def test_a_model_on_the_ipv6_loopback_needs_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:bad")
    client = ModelClient(load_settings(llm_base_url="http://[::1]:1/v1"), RetryPolicy(), 1)
    assert client.url == "http://[::1]:1/v1"


@pytest.mark.parametrize(
    ("proxy", "message"),
    [
        ("socks5://127.0.0.1:9", "pip install socksio"),
        ("gopher://x", "ALL_PROXY"),
        ("http://127.0.0.1:bad", "ALL_PROXY"),
    ],
)
def test_an_unusable_proxy_is_reported_in_one_line(proxy: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy)
    with pytest.raises(ConfigError, match=message) as caught:
        ModelClient(load_settings(llm_base_url="https://api.example.com/v1"), RetryPolicy(), 1)
    assert "\n" not in str(caught.value)
