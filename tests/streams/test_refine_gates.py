"""Share gates: the share holds at any time, for any order of rows and any groups."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schema.family import CELL_AXIS
from schema.reduction import FAMILY as REDUCTION
from schema.registry import FAMILIES
from schema.scenario import FAMILY
from schema.settings import load_settings
from streams.refine.decode import Intake, RawRecord
from streams.refine.gates import ShareGates
from streams.refine.judge import judge
from streams.refine.ledger_entries import entries
from streams.refine.state import State
from tests import scenarios

EXCELLENT, BASELINE = FAMILY.gates
TARGETS = ["failed", "excellent", "excellent", "no such target"]
TYPES = ["baseline", "baseline", "mixed_emotions"]

arrivals = st.lists(st.tuples(st.sampled_from(TARGETS), st.sampled_from(TYPES)), max_size=200)
cuts = st.lists(st.integers(1, 60), max_size=8)


def state(from_rows: int) -> State:
    # Without near duplicates, so that rows differ by their ids alone.
    return State.empty(FAMILY, load_settings(near_duplicate_threshold=1.0, gate_from_rows=from_rows))


def rows(arrived: list[tuple[str, str]], first: int = 1) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "example_id": np.arange(first, first + len(arrived), dtype=np.uint64),
            "authenticity_target": [target for target, _ in arrived],
            "complexity_type": [kind for _, kind in arrived],
        },
        schema={"example_id": pl.UInt64, "authenticity_target": pl.String, "complexity_type": pl.String},
    )


def in_groups(remembered: State, frame: pl.DataFrame, sizes: list[int]) -> list[int]:
    verdicts: list[int] = []
    for size in sizes:
        verdicts += remembered.admit(frame.slice(len(verdicts), size)).tolist()
    return verdicts + remembered.admit(frame.slice(len(verdicts))).tolist()


def one_by_one(arrived: list[tuple[str, str]], from_rows: int) -> list[str]:
    """The rule as it is stated, a row at a time."""
    inside, total = {EXCELLENT: 0, BASELINE: 0}, {EXCELLENT: 0, BASELINE: 0}
    reasons = []
    for target, kind in arrived:
        counted = {EXCELLENT: target != "no such target", BASELINE: True}
        hit = {EXCELLENT: target == "excellent", BASELINE: kind == "baseline"}
        refusing = [
            gate.name
            for gate in (EXCELLENT, BASELINE)
            if hit[gate] and inside[gate] + 1 > Fraction(str(gate.target)) * max(total[gate] + 1, from_rows)
        ]
        reasons.append(refusing[0] if refusing else "")
        if not refusing:
            for gate in (EXCELLENT, BASELINE):
                total[gate] += counted[gate]
                inside[gate] += hit[gate]
    return reasons


@given(arrivals, st.integers(1, 60), cuts)
def test_each_row_is_let_in_or_refused_as_the_rule_says(
    arrived: list[tuple[str, str]], from_rows: int, sizes: list[int]
) -> None:
    remembered = state(from_rows)
    names = ("", *remembered.reasons)
    verdicts = in_groups(remembered, rows(arrived), sizes)
    assert [names[verdict] for verdict in verdicts] == one_by_one(arrived, from_rows)


@given(st.lists(st.tuples(st.sampled_from(TARGETS[:3]), st.sampled_from(TYPES)), max_size=200), st.integers(1, 60))
def test_the_share_holds_from_its_row_on_at_any_time(arrived: list[tuple[str, str]], from_rows: int) -> None:
    frame = rows(arrived)
    clean = frame.filter(pl.Series(state(from_rows).admit(frame)) == 0)
    for seen in range(from_rows, clean.height + 1):
        for gate in (EXCELLENT, BASELINE):
            counts = dict(clean.head(seen)[gate.axis].value_counts().rows())
            assert gate.verdict(counts)[1], (gate.name, counts)


@pytest.mark.parametrize("share", [0.4, 0.3, 0.1, 0.07, 0.29, 1 / 3])
def test_a_share_of_rows_is_reckoned_without_rounding(share: float) -> None:
    remembered = state(50)
    remembered.gates.shares.numerators[0] = Fraction(str(share)).limit_denominator(10**6).numerator
    remembered.gates.shares.denominators[0] = Fraction(str(share)).limit_denominator(10**6).denominator
    verdicts = remembered.admit(rows([("excellent", "mixed_emotions")] * 50))
    assert (verdicts == 0).sum() == int(Fraction(str(share)).limit_denominator(10**6) * 50)


def test_duplicates_use_up_no_quota() -> None:
    remembered = state(50)
    again = pl.concat([rows([("excellent", "mixed_emotions")])] * 30)
    verdicts = remembered.admit(again)
    assert verdicts.tolist() == [0] + [1] * 29
    assert remembered.gates.shares.inside[0] == 1


def test_a_row_that_a_gate_refused_is_no_duplicate_later() -> None:
    remembered = state(10)
    excellent = rows([("excellent", "mixed_emotions")] * 6)
    assert remembered.admit(excellent).tolist() == [0, 0, 0, 0, 4, 4]
    others = rows([("failed", "mixed_emotions")] * 20, first=100)
    assert not remembered.admit(others).any()
    assert remembered.admit(excellent).tolist() == [1, 1, 1, 1, 0, 0]


def test_the_counters_are_the_fold_of_the_ledger() -> None:
    from_the_chain = State.empty(FAMILY, load_settings())
    frame = scenarios.valid_rows(300).with_columns(record=pl.Series(np.arange(300) // 60, dtype=pl.UInt32))
    records = [RawRecord("raw", 0, offset, 0, b"") for offset in range(5)]
    verdicts = judge(frame, FAMILY, 0, 1, from_the_chain)
    intake = Intake(frame, runs=[None] * 5, chunks=[None] * 5)
    ledger_entries = entries(records, intake, verdicts, np.zeros(5, dtype=np.int64), FAMILY)
    rebuilt = ShareGates(FAMILY, 50)
    for piece in (ledger_entries.head(2), ledger_entries.tail(3)):
        rebuilt.remember(piece.explode("coverage").unnest("coverage"))
    assert [counter.tolist() for counter in rebuilt.shares] == [
        counter.tolist() for counter in from_the_chain.gates.shares
    ]
    assert rebuilt.shares.total.tolist() == [verdicts.clean.height] * 2


def test_a_refused_row_carries_the_name_of_its_quota() -> None:
    rows_of = [scenarios.row(number) for number in range(1000)]
    excellent = [row for row in rows_of if row["authenticity_target"] == "excellent"][:60]
    frame = scenarios.frame(excellent).with_columns(record=pl.lit(0, dtype=pl.UInt32))
    verdicts = judge(frame, FAMILY, 0, 1, State.empty(FAMILY, load_settings()))
    assert verdicts.clean.height == 20
    assert verdicts.rejected["reasons"].to_list() == [["quota_excellent_share"]] * 40


def test_a_family_without_gates_keeps_no_counters() -> None:
    gates = ShareGates(REDUCTION, 50)
    assert gates.quotas == ()
    assert gates.shares.total.size == 0


def test_gates_use_axes_that_the_ledger_counts() -> None:
    for family in FAMILIES.values():
        for gate in family.gates:
            assert set(gate.bins) <= set(family.axis(gate.axis).bins)
            assert gate.axis != CELL_AXIS
