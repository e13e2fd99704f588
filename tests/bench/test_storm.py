"""The storm: its plan can be repeated, and after a short one the audit is exact."""

from __future__ import annotations

import json
import random
from itertools import islice

import pytest

from bench.storm.faults import COMMIT_FAILURE, KINDS, plan
from bench.storm.poison import poisons
from feedmill.cli import run

# Half a minute of faults: a commit failure, kills and pauses.
MINUTES = "0.4"


def test_a_plan_is_the_same_for_the_same_seed_and_fails_one_commit() -> None:
    for seed in range(5):
        faults = list(islice(plan(seed), 40))
        assert faults == list(islice(plan(seed), 40))
        kinds = [fault.kind for fault in faults]
        assert set(kinds[: len(KINDS)]) == set(KINDS)
        assert kinds.count(COMMIT_FAILURE) == 1
        assert COMMIT_FAILURE in kinds[:2]
    assert list(islice(plan(1), 9)) != list(islice(plan(2), 9))


def test_every_round_has_each_kind_of_poison_once() -> None:
    lines = [b"{}"] * 5
    rounds = [sorted(poison.kind for poison in poisons(random.Random(seed), lines)) for seed in (1, 2)]
    assert rounds[0] == rounds[1]
    assert {"garbage", "bomb_of_rows", "kafka_snappy", "kafka_lz4", "kafka_zstd", "headers_4"} <= set(rounds[0])


@pytest.mark.slow
def test_the_audit_is_exact_after_a_short_storm(capsys: pytest.CaptureFixture[str]) -> None:
    status = run(["bench", "storm", "--minutes", MINUTES, "--seed", "4", "--json"])
    captured = capsys.readouterr()
    figures = json.loads(captured.out)
    assert figures.keys() >= {"name", "rate", "unit", "elapsed_s", "rows", "peers", "faults", "recovery", "ok"}
    assert figures["faults"][COMMIT_FAILURE] == 1
    assert sum(figures["poison"].values()) > 10
    assert figures["records"] > 50
    assert figures["audit"]["first_fault"] is None, figures
    assert figures["unrecovered"] == [], figures
    assert (status, figures["ok"]) == (0, True), captured
