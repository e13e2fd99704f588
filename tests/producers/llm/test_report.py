"""The tables of a run's report show unknown numbers as unknown, not as zero."""

from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console

from broker.clients import Connection
from feedmill.llm_runs import report_tables
from producers.scenario.llm import run as llm_run
from producers.scenario.llm.meter import Meter, Usage
from producers.scenario.llm.run import LlmReport, LlmRun
from schema.errors import ConfigError
from schema.settings import load_settings


def test_the_tables_fit_a_terminal_and_name_what_is_unknown() -> None:
    meter = Meter()
    meter.add("simple", "small-model:8b-instruct-q4_K_M", Usage(1_234_567, 7_654_321), 12.5)
    meter.add("complex", "large", Usage(), None)
    report = LlmReport(
        run="r",
        seed=1,
        requested=2000,
        accepted=1990,
        rejected={"answer_missing": 7, "calculation_wrong": 3},
        open=0,
        calls=440,
        calls_per_100=22.11,
        calls_resumed=0,
        calls_unanswered=2,
        asked_again=40,
        retries=5,
        unvalidated=3,
        tokens=meter.total.tokens,
        cost_usd=meter.total.cost_usd,
        models={model: totals.as_dict() for model, totals in meter.by_model.items()},
        roles={role: totals.as_dict() for role, totals in meter.by_role.items()},
    )
    console = Console(width=80, file=StringIO(), color_system=None)
    console.print(report_tables(report))
    assert isinstance(console.file, StringIO)
    shown = console.file.getvalue()
    assert max(map(len, shown.splitlines())) <= 80
    flat = " ".join(shown.split())
    for part in ("1,990 of 2,000", "7 answer_missing", "3 calculation_wrong", "22.11 per 100", "12.500000"):
        assert part in flat
    large = next(line for line in shown.splitlines() if line.startswith("large"))
    assert large.split()[-1] == "unknown"
    assert "(+1 unknown)" in large


def test_a_missing_client_package_is_reported_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llm_run, "find_spec", lambda name: None)
    unreachable = Connection(load_settings(), "127.0.0.1:1")
    with pytest.raises(ConfigError, match=r"pip install feedmill\[llm\]"):
        llm_run.produce(unreachable, LlmRun(count=1))
    with pytest.raises(ConfigError, match=r"pip install feedmill\[llm\]"):
        llm_run.batch_sender(unreachable, "r", 1)
