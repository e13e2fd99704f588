"""Runs against a real Kafka and a misbehaving endpoint: every scenario and every token is accounted for."""

from __future__ import annotations

import dataclasses
import json
import logging
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import polars as pl
import pytest

from broker.clients import Connection
from consumers.compare.sources import source_named
from feedmill.llm_runs import produce_llm
from producers.scenario.llm import journal
from producers.scenario.llm.answers import broken_rules, positions
from producers.scenario.llm.client import RetryPolicy
from producers.scenario.llm.faults import EMPTY, THINKING_CUT_OFF, THINKING_ONLY
from producers.scenario.llm.journal import ACCEPTED, PLAN, WRITTEN, Entry
from producers.scenario.llm.pace import calls_at_once
from producers.scenario.llm.prompts import WRITING_ROLES
from producers.scenario.llm.run import LlmReport, LlmRun, batch_sender, produce
from producers.scenario.llm.scheduler import MOST_ASKS
from producers.scenario.llm.state import RunState
from schema.errors import ConfigError, ProducerError, UsageError
from schema.scenario import FAMILY
from schema.settings import Settings
from tests.integration.workers import clean, rejected, wait_until_refined, worker
from tests.producers.llm import server as endpoint
from tests.producers.llm.raw import raw_records, raw_rows
from tests.producers.llm.server import Behaviour, Call, serving

KEY = "sk-test-0123456789abcdefghij"
QUICK = RetryPolicy(tries=5, first_wait_s=0.01, longest_wait_s=1.0)
MISBEHAVIOUR = [
    endpoint.busy("0.2"),
    endpoint.busy_until_a_date,
    endpoint.failing(500),
    endpoint.failing(503),
    endpoint.hangs,
    endpoint.trickles,
    endpoint.resets,
    endpoint.says_no_json,
    endpoint.breaks_json,
    endpoint.talks_around_json,
    endpoint.leaves_one_out,
    endpoint.answers_one_twice,
    endpoint.answers_an_unknown_id,
    endpoint.reverses_the_order,
    endpoint.mixes_up_cells,
    endpoint.misses_the_cell,
    endpoint.contradicts_itself,
    endpoint.gives_a_text_for_a_number,
    endpoint.is_cut_off,
    endpoint.sees_half_the_prompt,
    endpoint.does_not_count,
    endpoint.refuses,
    endpoint.sends_no_completion,
    endpoint.thinks_aloud,
    endpoint.drafts_first,
    endpoint.thinks_only,
    endpoint.is_cut_off_thinking,
    endpoint.answers_in_parts,
    endpoint.says_nothing,
    endpoint.sends_an_error_with_status_200,
]


# Each misbehaviour occurs once, so that the test is short; every other request gets a correct answer.
_BAD_REQUESTS = 2 * len(MISBEHAVIOUR)


def against(connection: Connection, url: str, **settings: object) -> Connection:
    """Return `connection` with settings for the endpoint at `url`."""
    own = {"llm_base_url": url, "llm_api_key": KEY, "llm_timeout_s": 20.0, "llm_concurrency": 4, **settings}
    existing = {name: getattr(connection.settings, name) for name in Settings.model_fields}
    return dataclasses.replace(connection, settings=Settings(**{**existing, **own}))


def badly(call: Call) -> Behaviour:
    """A script with every misbehaviour in turn."""
    if call.number % 2 or call.number >= _BAD_REQUESTS:
        return endpoint.well
    return MISBEHAVIOUR[call.number // 2]


def totals(report: LlmReport) -> dict[str, tuple[int, int, int]]:
    """Return the report's totals in the form of `ModelServer.totals`."""
    return {
        model: (counts["calls"], counts["prompt_tokens"], counts["completion_tokens"])
        for model, counts in report.models.items()
    }


def check_resumable_everywhere(entries: list[Entry], cells: dict[str, dict[str, str]]) -> None:
    """Check that a run resumed after any of its records asks for exactly the open ids, each once."""
    for length in range(len(entries) + 1):
        state = RunState(cells, {"simple": "s", "complex": "c"}, entries[:length])
        asked: list[str] = []
        while question := state.next_question(idle=True):
            asked += question.asked
        assert sorted(asked) == sorted(set(cells) - state.accepted - set(state.rejected))
        assert not state.has_questions
        assert max(state.asks.values(), default=0) <= MOST_ASKS


def test_all_scenarios_of_a_misbehaving_server_are_accounted_for(connection: Connection, tmp_path: Path) -> None:
    run = LlmRun(count=200, seed=5, run="bad-server")
    with serving(badly) as server:
        mine = against(connection, server.url, llm_timeout_s=2.0)
        report = produce(mine, run, policy=QUICK)

    assert set(server.treated) == {way.__name__ for way in [*MISBEHAVIOUR, endpoint.well]}
    assert server.max_at_once <= calls_at_once(mine.settings)
    assert report.accepted + sum(report.rejected.values()) == 200
    assert (report.open, report.stopped, report.calls_unanswered) == (0, None, 0)
    assert totals(report) == server.totals()
    assert report.retries == sum(server.treated[way] for way in ("too_many_requests", "busy_until_a_date", "fails")) + (
        server.treated["hangs"]
        + server.treated["trickles"]
        + server.treated["resets"]
        + server.treated["sends_an_error_with_status_200"]
    )
    for fault in (THINKING_ONLY, THINKING_CUT_OFF, EMPTY):
        assert report.faults[fault] >= 1
        assert [line for line in report.advice if line.startswith(f"{fault}: ")]

    rows = raw_rows(mine, run.run)
    assert sorted(rows["scenario_id"]) == sorted(f"bad-server-{number}" for number in range(200))
    kept = [not why for why in broken_rules(rows)]
    assert sum(kept) == report.accepted
    grid = list(FAMILY.cells())
    planned = {f"bad-server-{number}": grid[index] for number, index in enumerate(run.plan()["cells"])}
    for row in rows.filter(pl.Series(kept)).iter_rows(named=True):
        assert {axis: row[axis] for axis in FAMILY.cell_axes} == planned[row["scenario_id"]]
        assert (row["generator"], row["seed"]) == ("llm", 5)

    records = raw_records(mine)
    compared = list(source_named(f"topic:{records[0].topic}", lambda: mine).rows(FAMILY))
    assert sum(len(rows) for rows in compared) == sum(rows.frame.height for rows in compared) == 200
    entries = journal.read(mine, run.run)
    assert len(entries) == len(records) == 1 + sum(calls for calls, _, _ in server.totals().values())
    check_resumable_everywhere(entries, planned)
    assert KEY not in str(records) + str(report) + str(rows.to_dicts()) + repr(mine.settings)

    # All scenarios end in clean or in rejected, and those given up are rejected for the reported reason.
    log = tmp_path / "worker.log"
    with worker(connection.settings, log) as process:
        wait_until_refined(connection, process, log, FAMILY)
    refused, letters = rejected(connection, FAMILY)
    assert letters == []
    ids = [*clean(connection, FAMILY)["scenario_id"], *refused["scenario_id"]]
    assert sorted(ids) == sorted(planned)
    reasons = dict(refused.select("scenario_id", "reasons").iter_rows())
    given_up = [entry.verdicts[name] for entry in entries for name in entry.rejected]
    assert Counter(given_up) == report.rejected
    for entry in entries:
        for name in entry.rejected:
            assert set(entry.verdicts[name].split(",")) <= set(reasons.pop(name))
    assert {reason for each in reasons.values() for reason in each} <= {gate.name for gate in FAMILY.gates} | {
        "near_duplicate"
    }


def test_calls_are_routed_validated_and_billed_by_model(connection: Connection) -> None:
    prices = {"small": (0.1, 0.4), "large": (1.0, 4.0), "judge": (0.5, 0.5)}

    with serving(endpoint.once(endpoint.leaves_a_score_out, lambda call: bool(call.scenes))) as server:
        mine = against(
            connection,
            server.url,
            llm_model_simple="small",
            llm_model_complex="large",
            llm_model_validation="judge",
            llm_prices=prices,
            llm_request={"temperature": 0.7, "validation": {"temperature": 0}},
        )
        seen: list[tuple[int, str]] = []
        report = produce(mine, LlmRun(count=100, seed=1), lambda done, note: seen.append((done, note)))

    assert (report.accepted, report.rejected, report.open) == (100, {}, 0)
    assert totals(report) == server.totals()
    assert set(report.roles) == {"simple", "complex", "validation"}
    for model, (_, prompt, completion) in server.totals().items():
        price = prices[model]
        assert report.models[model]["cost_usd"] == pytest.approx((prompt * price[0] + completion * price[1]) / 1e6)
    for call in server.calls:
        assert call.parameters == {"temperature": 0 if call.model == "judge" else 0.7}
    assert report.calls_per_100 is not None
    assert report.calls_per_100 <= 21
    assert report.roles["validation"]["calls"] <= 21

    rows = raw_rows(mine, "llm-1")
    simple = {"baseline", "misjudgment_over", "misjudgment_under", "emergency_override"}
    assert rows.filter((pl.col("model") == "small") != pl.col("complexity_type").is_in(simple)).is_empty()
    assert rows["validation_score"].null_count() == report.unvalidated == 1
    assert rows.drop_nulls("validation_score")["validation_score"].unique().to_list() == [0.9]
    # If all rows of a call are accepted, their tokens add up to those of the call.
    written = rows.group_by("model").agg(pl.sum("prompt_tokens"), pl.sum("completion_tokens"))
    for model, prompt, completion in written.iter_rows():
        assert server.totals()[model][1:] == (prompt, completion)
    assert seen[-1][0] == 100
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_a_run_stopped_by_its_budget_resumes_with_a_larger_one(
    connection: Connection, capsys: pytest.CaptureFixture[str]
) -> None:
    run = LlmRun(count=40, seed=2, run="thrifty")
    with serving(lambda call: endpoint.well) as server:
        mine = against(connection, server.url, llm_budget_tokens=3000, llm_concurrency=1)
        first = produce_llm(mine, run)
        printed = capsys.readouterr()
        assert "of 40 scenarios accepted" in printed.out
        assert "run again with --run thrifty --seed 2 --count 40" in printed.err
        assert first.stopped_by_budget
        assert set(first.roles) == set(WRITING_ROLES)
        assert "3,000 tokens" in (first.stopped or "")
        assert first.accepted + first.open == 40
        last = server.bills[-1]
        assert 3000 <= first.tokens < 3000 + last.prompt_tokens + last.completion_tokens
        assert produce(mine, run).as_dict() | {"elapsed_s": 0, "calls_resumed": 0} == first.as_dict() | {
            "elapsed_s": 0,
            "calls_resumed": 0,
        }

        whole = produce(against(connection, server.url), run)
        assert (whole.accepted, whole.open, whole.stopped_by_budget) == (40, 0, False)
        assert whole.calls_resumed == first.calls
        assert totals(whole) == server.totals()
        asked = Counter(name for entry in journal.read(mine, "thrifty") for name in entry.asked)
        assert set(asked.values()) == {1}
        assert len(server.calls) == len(server.bills) == whole.calls

        with pytest.raises(UsageError, match="started for 40 scenarios with seed 2"):
            produce(mine, dataclasses.replace(run, count=41))
        with pytest.raises(ConfigError, match="needs the price"):
            produce(against(connection, server.url, llm_budget_usd=1.0), run)


def test_a_killed_run_resumes_without_asking_again(connection: Connection) -> None:
    """After kill -9 during the run, only the calls in flight are asked again."""
    program = (
        "from broker.clients import connect; from schema.settings import load_settings\n"
        "from producers.scenario.llm.run import LlmRun, produce\n"
        "produce(connect(load_settings()), LlmRun(count=60, seed=3, run='killed'))"
    )
    with serving(lambda call: endpoint.breaks_json if call.number == 2 else endpoint.well) as server:
        mine = against(connection, server.url, llm_model_validation="judge")
        assert mine.settings.bootstrap_servers is not None
        child = subprocess.Popen(
            [sys.executable, "-c", program], env=mine.settings.environment(mine.settings.bootstrap_servers)
        )
        try:
            deadline = time.monotonic() + 120
            while len(server.bills) < 8:
                assert child.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.005)
        finally:
            child.kill()
            child.wait()
        before = journal.read(mine, "killed")
        had = {name for entry in before for name, verdict in entry.verdicts.items() if verdict in (ACCEPTED, WRITTEN)}
        assert 0 < len(had) < 60
        report = produce(mine, LlmRun(count=60, seed=3, run="killed"))

    assert (report.accepted, report.rejected, report.open) == (60, {}, 0)
    assert report.calls_resumed == len(before) - 1
    after = journal.read(mine, "killed")[len(before) :]
    assert {name for entry in after if entry.role in WRITING_ROLES for name in entry.asked} & had == set()
    # The counted calls are those that the server billed, except for the calls in flight at the kill.
    counted = Counter(
        (entry.model, tuple(positions(len(entry.asked))), entry.prompt_tokens, entry.completion_tokens)
        for entry in journal.read(mine, "killed")
        if entry.role != PLAN
    )
    billed = Counter(dataclasses.astuple(bill) for bill in server.bills)
    assert counted - billed == Counter()
    assert (billed - counted).total() <= calls_at_once(mine.settings)
    assert sum(calls for calls, _, _ in totals(report).values()) == counted.total()
    rows = raw_rows(mine, "killed")
    assert sorted(rows["scenario_id"]) == sorted(f"killed-{number}" for number in range(60))
    assert rows["validation_score"].null_count() == 0
    assert {entry.role for entry in before} - {PLAN, "validation"} <= set(WRITING_ROLES)


def test_a_failing_endpoint_is_reported_in_a_line_without_the_key(
    connection: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    ways: list[tuple[Behaviour, str]] = [
        (endpoint.failing(401), r"refuses the key \(HTTP 401\): correct FEEDMILL_LLM_API_KEY"),
        (endpoint.failing(404), r"refuses a question to model 'llama3\.[12]' \(HTTP 404\)"),
        (endpoint.failing(400), r"refuses the questions \(HTTP 400\): correct FEEDMILL_LLM_REQUEST and FEEDMILL"),
        (endpoint.failing(500), r"gives no answer \(HTTP 500\): start the server or correct FEEDMILL_LLM_BASE_URL"),
        (
            endpoint.resets,
            r"gives no answer \(no connection.*, then run again with --run way-4 --seed 0 --count 20 to resume",
        ),
        (
            endpoint.hangs,
            r"gives no answer \(no answer within 0\.3 s\): raise FEEDMILL_LLM_TIMEOUT_S, or ask for fewer",
        ),
        (
            endpoint.sends_an_error_with_status_200,
            r"gives no answer \(HTTP 200 with an error: upstream failed for llama3\.[12]\): read the server's log",
        ),
        (endpoint.sees_the_end_only, r"raise the context length of its server \(Ollama: num_ctx\)"),
    ]
    policy = dataclasses.replace(QUICK, tries=2)
    with serving(lambda call: way) as server, caplog.at_level(logging.DEBUG):
        for number, (way, line) in enumerate(ways):
            # Short only where it is met, because a busy machine answers late.
            mine = against(connection, server.url, llm_timeout_s=0.3 if way is endpoint.hangs else 20.0)
            with pytest.raises(ProducerError, match=line) as caught:
                produce(mine, LlmRun(count=20, run=f"way-{number}"), policy=policy)
            assert "\n" not in str(caught.value)
            shown: BaseException | None = caught.value
            while shown is not None:
                assert KEY not in f"{shown!r}"
                shown = None if shown.__suppress_context__ else shown.__context__
            # An unreachable server does not use up the asks of a scenario: the journal holds only the plan.
            if way is not endpoint.sees_the_end_only:
                assert [entry.role for entry in journal.read(mine, f"way-{number}")] == [PLAN]
    assert {call.key for call in server.calls} == {KEY}
    assert KEY not in caplog.text


@pytest.mark.parametrize(
    ("status", "fault"), [(503, "answer_missing"), (400, "answer_refused"), (200, "answer_server_error")]
)
def test_a_single_unanswered_question_counts_as_an_ask_of_its_ids(
    status: int, fault: str, connection: Connection
) -> None:
    run = LlmRun(count=20, seed=4, run="deaf")
    cell = run.plan()["cells"][1]

    def script(call: Call) -> Behaviour:
        fails = endpoint.sends_an_error_with_status_200 if status == 200 else endpoint.failing(status)
        return fails if cell in call.asked.values() else endpoint.well

    with serving(script) as server:
        mine = against(connection, server.url)
        report = produce(mine, run, policy=dataclasses.replace(QUICK, tries=2))
    assert report.rejected == {fault: 1}
    assert (report.accepted, report.open, report.calls_unanswered) == (19, 0, 3)
    assert totals(report) == server.totals()
    row = raw_rows(mine, "deaf").filter(pl.col("scenario_id") == "deaf-1")
    assert row.select("answer_fault", "context", "prompt_tokens").row(0) == (fault, None, None)
    assert fault in broken_rules(row)[0]


def test_the_cells_of_a_run_can_be_given(connection: Connection, capsys: pytest.CaptureFixture[str]) -> None:
    cells = list(FAMILY.cells())[5:12] * 2
    with serving(lambda call: endpoint.well) as server:
        report = produce_llm(against(connection, server.url), LlmRun(cells=cells, run="given"), as_json=True)
    assert json.loads(capsys.readouterr().out) == report.as_dict()
    assert (report.requested, report.accepted) == (14, 14)
    rows = raw_rows(connection, "given")
    assert Counter(rows.select(FAMILY.cell_axes).rows()) == Counter(tuple(cell.values()) for cell in cells)


def test_batches_of_cells_share_one_budget(connection: Connection) -> None:
    cells = list(FAMILY.cells())[5:12]
    with serving(lambda call: endpoint.well) as server:
        first = produce(against(connection, server.url), LlmRun(cells=cells, run="alone"), is_new=True)
        send = batch_sender(against(connection, server.url, llm_budget_tokens=first.tokens * 3 // 2), "filling", 1)
        send(cells, 0)
        with pytest.raises(ProducerError, match="FEEDMILL_LLM_BUDGET_TOKENS"):
            for number in (7, 14):
                send(cells, number)
    assert Counter(raw_rows(connection, "filling-0").select(FAMILY.cell_axes).rows()) == Counter(
        tuple(cell.values()) for cell in cells
    )


def test_a_run_without_a_key_does_not_send_the_key_of_openai_from_the_environment(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with serving(lambda call: endpoint.well) as server:
        produce(against(connection, server.url, llm_api_key=None), LlmRun(count=1, run="no-key"))
    assert [call.key for call in server.calls] == ["none"]


@pytest.mark.parametrize("values", [{"count": -1}, {"seed": -1}, {"seed": 2**63}, {"run": "a\nb"}, {"run": "x" * 65}])
def test_a_run_with_invalid_parameters_is_refused(values: dict[str, int]) -> None:
    with pytest.raises(UsageError):
        LlmRun(**{"count": 1, **values})
