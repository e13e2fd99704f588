"""A run against a real Kafka and an endpoint that misbehaves: every scenario and every token is accounted for."""

from __future__ import annotations

import dataclasses

import polars as pl

from broker.clients import Connection
from producers.scenario.llm import journal
from producers.scenario.llm.client import RetryPolicy
from producers.scenario.llm.rows import broken_rules
from producers.scenario.llm.run import LlmRun, produce
from schema.scenario import FAMILY
from schema.settings import Settings
from tests.producers.llm import server as endpoint
from tests.producers.llm.raw import raw_rows
from tests.producers.llm.server import Call, serving

KEY = "sk-test-0123456789abcdefghij"
QUICK = RetryPolicy(tries=5, first_wait_s=0.01, longest_wait_s=1.0)
MISBEHAVIOUR = [
    endpoint.busy("0.2"),
    endpoint.busy_until_a_date,
    endpoint.failing(500),
    endpoint.failing(503),
    endpoint.hangs,
    endpoint.resets,
    endpoint.says_no_json,
    endpoint.breaks_json,
    endpoint.talks_around_json,
    endpoint.leaves_one_out,
    endpoint.says_one_twice,
    endpoint.says_what_nobody_asked,
    endpoint.turns_the_order,
    endpoint.mixes_up_cells,
    endpoint.misses_the_cell,
    endpoint.contradicts_itself,
    endpoint.gives_a_text_for_a_number,
    endpoint.is_cut_off,
    endpoint.sees_half_the_prompt,
    endpoint.does_not_count,
    endpoint.refuses,
    endpoint.sends_no_completion,
]


def against(connection: Connection, url: str, **settings: object) -> Connection:
    """`connection`, whose settings name the endpoint."""
    own = {"llm_base_url": url, "llm_api_key": KEY, "llm_timeout_s": 5.0, **settings}
    held = connection.settings.model_dump(exclude={"llm_api_key"})
    return dataclasses.replace(connection, settings=Settings(**{**held, **own}))


def every_other(call: Call) -> endpoint.Behaviour:
    """Half of all requests are treated badly, in every way in turn."""
    return endpoint.well if call.number % 2 else MISBEHAVIOUR[call.number // 2 % len(MISBEHAVIOUR)]


def test_two_hundred_scenarios_of_a_server_that_misbehaves_are_all_accounted_for(connection: Connection) -> None:
    run = LlmRun(count=200, seed=5, run="bad-server")
    with serving(every_other) as server:
        mine = against(connection, server.url, llm_timeout_s=1.5)
        report = produce(mine, run, policy=QUICK)

    assert set(server.treated) == {way.__name__ for way in [*MISBEHAVIOUR, endpoint.well]}
    assert report.accepted + sum(report.rejected.values()) == 200
    assert report.open == 0
    assert report.stopped is None
    totals = {
        model: (found["calls"], found["prompt_tokens"], found["completion_tokens"])
        for model, found in report.models.items()
    }
    assert totals == server.totals()

    rows = raw_rows(mine, run.run)
    assert sorted(rows["scenario_id"]) == sorted(f"bad-server-{number}" for number in range(200))
    kept = [not why for why in broken_rules(rows)]
    assert sum(kept) == report.accepted
    grid = list(FAMILY.cells())
    planned = {f"bad-server-{number}": grid[index] for number, index in enumerate(run.plan()["cells"])}
    for row in rows.filter(pl.Series(kept)).iter_rows(named=True):
        assert {axis: row[axis] for axis in FAMILY.cell_axes} == planned[row["scenario_id"]]
        assert (row["generator"], row["seed"]) == ("llm", 5)
    assert KEY not in str(report) + str(rows.to_dicts()) + str(journal.read(mine, run.run))
