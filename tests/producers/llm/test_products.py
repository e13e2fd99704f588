"""A hundred scenarios of servers like known products are accepted or accounted for, with the advice that fits."""

from __future__ import annotations

from pathlib import Path

import pytest

from feedmill.llm_runs import produce_llm
from producers.scenario.llm.answers import broken_rules
from producers.scenario.llm.run import LlmRun
from schema.family import identify
from schema.json_rows import read_lines
from schema.scenario import FAMILY
from tests.producers.llm import products
from tests.producers.llm.server import Behaviour, serving

THINKING_ADVICE = "answer_thinking_cut_off: the length limit was reached inside the reasoning: turn its reasoning off"
PROSE_ADVICE = "answer_malformed: the model did not write the JSON asked for"


@pytest.mark.parametrize(
    ("product", "formats", "printed"),
    [
        (products.ollama, ["json_schema"], []),
        (products.ollama_thinking, ["json_schema"], [THINKING_ADVICE]),
        (products.vllm, ["json_schema"], []),
        (products.llama_cpp, ["json_schema"], []),
        (products.lm_studio, ["json_schema"], []),
        (
            products.unstructured,
            ["json_schema", "json_object", "none"],
            ["refuses the response format json_schema", "refuses the response format json_object", PROSE_ADVICE],
        ),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_a_hundred_scenarios_are_accepted_or_accounted_for(
    product: Behaviour,
    formats: list[str],
    printed: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "scenes.jsonl"
    with serving(lambda call: product) as server:
        monkeypatch.setenv("FEEDMILL_LLM_BASE_URL", server.url)
        report = produce_llm(path, LlmRun(count=100, seed=1, run="product"), quiet=True)
    assert report.accepted + sum(report.rejected.values()) == 100
    assert report.open == 0
    assert report.accepted >= 95
    assert list(dict.fromkeys(call.response_format for call in server.calls)) == formats
    assert {model: totals["calls"] for model, totals in report.models.items()} == {
        model: calls for model, (calls, _, _) in server.totals().items()
    }
    frame, unreadable = read_lines(path.read_bytes().splitlines(), FAMILY)
    assert not unreadable
    assert broken_rules(identify(frame, FAMILY).select(*FAMILY.wire)) == [[]] * report.accepted
    # A server on this machine is asked one question at a time.
    assert server.max_at_once == 1
    lines = [line for line in capfd.readouterr().err.splitlines() if "answer_" in line or "refuses" in line]
    assert len(lines) == len(printed)
    assert all(part in line for part, line in zip(printed, lines, strict=True))
