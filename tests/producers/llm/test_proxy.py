"""Proxies of the environment are not used for this machine, and an unusable proxy is reported in one line."""

from __future__ import annotations

import pytest

from producers.scenario.llm.client import ModelClient, RetryPolicy
from schema.errors import ConfigError
from schema.settings import load_settings


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/v1", "http://localhost:1/v1", "http://[::1]:1/v1"])
def test_a_model_on_the_loopback_is_asked_without_a_proxy(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:9")
    ModelClient(load_settings(llm_base_url=url), RetryPolicy(), 1)


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
