"""Runs into a file: the journal beside it makes them resume, and every scenario and token is accounted for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from aiohttp import web

from feedmill.cli import run as command
from producers.scenario.llm.answers import broken_rules
from producers.scenario.llm.client import RetryPolicy
from producers.scenario.llm.journal import JournalFile
from producers.scenario.llm.run import LlmReport, LlmRun, produce_to_file
from schema.errors import ProducerError, UsageError
from schema.family import identify
from schema.json_rows import read_lines
from schema.scenario import FAMILY
from schema.settings import load_settings
from tests.producers.llm import server as endpoint
from tests.producers.llm.server import Behaviour, Call, ModelServer, serving

QUICK = RetryPolicy(tries=3, first_wait_s=0.01, longest_wait_s=0.1)


def into(path: Path, url: str, run: LlmRun, **settings: Any) -> LlmReport:
    """Run against the endpoint at `url`, into the file `path`."""
    return produce_to_file(
        load_settings(**{"llm_base_url": url, "llm_concurrency": 4, **settings}), run, path, policy=QUICK
    )


def rows_of(path: Path) -> pl.DataFrame:
    """Return the rows of a file of scenarios; every line is a row."""
    frame, unreadable = read_lines(path.read_bytes().splitlines(), FAMILY)
    assert not unreadable
    return frame


def test_a_run_into_a_file_needs_no_broker_and_resumes_from_its_journal(tmp_path: Path) -> None:
    path = tmp_path / "scenes.jsonl"
    run = LlmRun(count=60, seed=1, run="filed")
    with serving(lambda call: endpoint.says_no_json if call.number == 1 else endpoint.well) as server:
        first = into(path, server.url, run, llm_budget_tokens=6000, llm_model_validation="judge")
        assert 0 < first.accepted < 60
        assert first.stopped_by_budget
        assert rows_of(path).height == first.accepted
        # A killed process leaves the beginning of a line.
        journal = path.with_name("scenes.jsonl.journal")
        with journal.open("ab") as stream:
            stream.write(b'{"run": "filed", "entr')
        before = len(server.bills)
        whole = into(path, server.url, run, llm_model_validation="judge")
    assert (whole.accepted, whole.open, whole.rejected) == (60, 0, {})
    assert whole.calls_resumed == before
    assert {model: totals["calls"] for model, totals in whole.models.items()} == {
        model: calls for model, (calls, _, _) in server.totals().items()
    }
    rows = rows_of(path)
    assert sorted(rows["scenario_id"]) == sorted(f"filed-{number}" for number in range(60))
    assert broken_rules(identify(rows, FAMILY).select(*FAMILY.wire)) == [[]] * 60
    entries = [json.loads(line)["entry"] for line in journal.read_text().splitlines()]
    assert sum(entry["model"] is not None for entry in entries) == len(server.bills)


def test_a_file_holds_the_scenarios_of_a_run_that_failed(tmp_path: Path) -> None:
    path = tmp_path / "scenes.jsonl"
    with serving(lambda call: endpoint.well if call.number < 4 else endpoint.has_no_quota) as server:
        with pytest.raises(ProducerError, match=r"no quota left .*HTTP 429: .*billing"):
            into(path, server.url, LlmRun(count=60, run="unpaid"))
        # The error ends the run at once: only the calls that were in flight beside it are sent.
        assert len(server.calls) <= 4 + 4
    assert rows_of(path).height == 20


def scoring(low: float, places: set[str]) -> Behaviour:
    """Return correct answers whose validation scores are `low` for the ids in `places`, and 0.5 for others."""

    async def scores(server: ModelServer, call: Call) -> web.StreamResponse:
        if not call.scenes:
            return await endpoint.well(server, call)
        return server.answer(
            call, {"scores": [{"id": name, "score": low if name in places else 0.5} for name in call.asked]}
        )

    return scores


def test_scenarios_scored_below_the_minimum_are_asked_for_again_and_then_rejected(tmp_path: Path) -> None:
    path = tmp_path / "scenes.jsonl"
    way = scoring(0.49, {"s2"})
    with serving(lambda call: way) as server:
        report = into(path, server.url, LlmRun(count=50, run="strict"), llm_model_validation="judge")
        lenient = into(
            tmp_path / "all.jsonl",
            server.url,
            LlmRun(count=50, run="lenient"),
            llm_model_validation="judge",
            llm_validation_minimum=0.0,
        )
    assert report.faults["validation_below_minimum"] >= 10
    assert set(report.rejected) <= {"validation_below_minimum"}
    assert report.accepted + sum(report.rejected.values()) == 50
    rows = rows_of(path)
    assert rows.height == report.accepted
    assert rows["validation_score"].min() == 0.5
    assert (lenient.accepted, lenient.faults) == (50, {})


def test_rows_that_are_rejected_by_their_score_are_kept_with_it_in_the_journal(tmp_path: Path) -> None:
    path = tmp_path / "scenes.jsonl"
    way = scoring(0.1, {f"s{number}" for number in range(1, 6)})
    with serving(lambda call: way) as server:
        report = into(path, server.url, LlmRun(count=3, run="poor"), llm_model_validation="judge")
    assert report.rejected == {"validation_below_minimum": 3}
    assert rows_of(path).height == 0
    lines = [json.loads(line) for line in path.with_name("scenes.jsonl.journal").read_text().splitlines()]
    rows = [row for line in lines for row in line["rows"]]
    assert {(row["answer_fault"], row["validation_score"]) for row in rows} == {("validation_below_minimum", 0.1)}
    assert sorted(row["scenario_id"] for row in rows) == ["poor-0", "poor-1", "poor-2"]


def test_a_run_whose_first_scenarios_are_all_scored_too_low_ends(tmp_path: Path) -> None:
    way = scoring(0.1, {f"s{number}" for number in range(1, 6)})
    settings = {"llm_model_validation": "judge", "llm_concurrency": 1}
    with serving(lambda call: way) as server:
        with pytest.raises(ProducerError, match=r"no acceptable .*validation_below_minimum.*VALIDATION_MINIMUM"):
            into(tmp_path / "scenes.jsonl", server.url, LlmRun(count=100, run="low"), **settings)
        assert len(server.calls) <= 30


def test_the_end_of_a_fruitless_run_tells_which_response_formats_were_refused(tmp_path: Path) -> None:
    async def writes_prose(server: ModelServer, call: Call) -> web.StreamResponse:
        if call.response_format == "none":
            return await endpoint.says_no_json(server, call)
        return await endpoint.taking("none")(server, call)

    shown = r"refuses the response format json_schema .*json_object .*did not write the JSON asked"
    with serving(lambda call: writes_prose) as server, pytest.raises(ProducerError, match=shown):
        into(tmp_path / "scenes.jsonl", server.url, LlmRun(count=100, run="prose"))


def test_slow_validation_does_not_shrink_the_calls_for_writing(tmp_path: Path) -> None:
    async def validates_slowly(server: ModelServer, call: Call) -> web.StreamResponse:
        return await (endpoint.hangs if call.scenes else endpoint.well)(server, call)

    with serving(lambda call: validates_slowly) as server:
        report = produce_to_file(
            load_settings(llm_base_url=server.url, llm_model_validation="judge", llm_timeout_s=1.0),
            LlmRun(count=15, run="late"),
            tmp_path / "scenes.jsonl",
            policy=RetryPolicy(tries=1),
        )
    assert (report.accepted, report.unvalidated) == (15, 15)
    writing = [call for call in server.calls if not call.scenes]
    assert len(writing) == report.calls <= 4


def test_a_slow_model_is_asked_for_fewer_scenarios_a_call(tmp_path: Path) -> None:
    # Five scenarios take longer than the time limit, and one or two do not.
    with serving(lambda call: endpoint.slow(400)) as server:
        report = produce_to_file(
            load_settings(llm_base_url=server.url, llm_timeout_s=2.5),
            LlmRun(count=15, run="slow"),
            tmp_path / "scenes.jsonl",
            policy=RetryPolicy(tries=1),
        )
    assert (report.accepted, report.rejected, report.open) == (15, {}, 0)
    assert server.max_at_once == 1
    sizes = [len(call.asked) for call in server.calls]
    assert sizes[0] == 5
    assert max(sizes[1:]) <= 2
    assert report.faults == {"answer_timed_out": 5}
    assert [line for line in report.advice if "raise FEEDMILL_LLM_TIMEOUT_S" in line]


def test_a_context_for_three_scenarios_shrinks_the_calls(tmp_path: Path) -> None:
    async def has_room_for_three(server: ModelServer, call: Call) -> web.StreamResponse:
        scenes = server.scenarios(call)
        if len(scenes) <= 3:
            return server.answer(call, {"scenarios": scenes})
        return server.answer(call, json.dumps({"scenarios": scenes[:3]})[:-2], finish_reason="length")

    with serving(lambda call: has_room_for_three) as server:
        report = into(tmp_path / "scenes.jsonl", server.url, LlmRun(count=60, run="small"), llm_concurrency=1)
    assert report.accepted == 60
    sizes = [len(call.asked) for call in server.calls]
    assert max(sizes[1:]) == 3


def test_a_journal_of_another_run_or_process_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "scenes.jsonl"
    with serving(lambda call: endpoint.well) as server:
        into(path, server.url, LlmRun(count=5, run="one"))
        with pytest.raises(
            UsageError, match="is the journal of run one: resume it with --run one --seed 0 --count 5, or"
        ):
            into(path, server.url, LlmRun(count=5, run="two"))
        with pytest.raises(UsageError, match="started for 5 scenarios with seed 0"):
            into(path, server.url, LlmRun(count=6, run="one"))
        with JournalFile(path, "one"), pytest.raises(UsageError, match="used by another process"):
            into(path, server.url, LlmRun(count=5, run="one"))
        (tmp_path / "scenes.jsonl.journal").write_text("no journal\n")
        with pytest.raises(UsageError, match="line 1 is no entry of a journal"):
            into(path, server.url, LlmRun(count=5, run="one"))
        with pytest.raises(UsageError, match="cannot be written"):
            into(tmp_path / "none" / "scenes.jsonl", server.url, LlmRun(count=5, run="one"))


@pytest.mark.parametrize("way", [endpoint.leaves_cached_tokens_out, endpoint.reports_cached_tokens_apart])
def test_a_server_that_reports_only_uncached_tokens_does_not_end_a_run(way: Behaviour, tmp_path: Path) -> None:
    with serving(lambda call: way) as server:
        report = into(tmp_path / "scenes.jsonl", server.url, LlmRun(count=100, run="cached"))
    assert (report.accepted, report.rejected) == (100, {})
    # The first calls to each of the two models may be asked again for single scenarios.
    assert report.calls <= 20 + 2 * 4 * 5


def test_the_command_writes_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "scenes.jsonl"
    with serving(lambda call: endpoint.well) as server:
        monkeypatch.setenv("FEEDMILL_LLM_BASE_URL", server.url)
        monkeypatch.setenv("FEEDMILL_BOOTSTRAP_SERVERS", "127.0.0.1:1")
        options = ["--count", "7", "--seed", "3", "--backend", "llm", "--out", str(path), "--json"]
        assert command(["produce", "scenario", *options]) == 0
    assert json.loads(capfd.readouterr().out)["accepted"] == 7
    assert rows_of(path).height == 7
