"""Requests and accounts: encoded values decode to the same, and malformed values are refused."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schema.errors import ConfigError, RecordError
from schema.registry import FAMILIES, families_under
from schema.requests import Account, Request, decode_account, decode_request
from schema.scenario import FAMILY
from schema.settings import load_settings

CELLS = list(FAMILY.cells())


@given(st.sampled_from(CELLS), st.integers(0, 10**9), st.integers(1, 10**9))
def test_a_request_survives_its_record(cell: dict[str, str], count: int, deficit: int) -> None:
    request = Request(cell, count, deficit)
    assert decode_request(request.encode(), FAMILY) == request
    assert request.label == "|".join(cell.values())


@given(st.dictionaries(st.integers(0, 1023), st.integers(0, 2**62)), st.integers(0, 2**62))
def test_an_account_survives_its_record(offsets: dict[int, int], moved: int) -> None:
    assert decode_account(Account(offsets, moved).encode()) == Account(offsets, moved)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"\xff",
        b"[]",
        b"{}",
        b'{"cell": 3}',
        json.dumps({"cell": CELLS[0], "count": 1}).encode(),
        json.dumps({"cell": {**CELLS[0], "capacity_level": "vast"}, "count": 1, "deficit": 2}).encode(),
        json.dumps({"cell": CELLS[0], "count": 1, "deficit": 0}).encode(),
    ],
)
def test_a_malformed_request_is_refused(value: bytes) -> None:
    with pytest.raises(RecordError) as caught:
        decode_request(value, FAMILY)
    assert caught.value.reason == "malformed_request"


@pytest.mark.parametrize(
    "value",
    [
        b"[" * 100_000,
        b'{"cell": {}, "count": 1e400, "deficit": 1}',
        b" " * 100_000 + b"{}",
        json.dumps({"cell": next(FAMILY.cells()), "count": 0, "deficit": 10**30}).encode(),
        json.dumps({"cell": next(FAMILY.cells()), "count": 0, "deficit": float("inf")}).encode(),
    ],
    ids=["nested", "infinite", "long", "absurd", "endless"],
)
def test_values_that_would_crash_or_flood_a_producer_are_refused(value: bytes) -> None:
    with pytest.raises(RecordError):
        decode_request(value, FAMILY)


@pytest.mark.parametrize(
    "value",
    [b"", b"[]", b"{}", b'{"raw": 3}', b'{"raw": {"a": 1}}', b'{"raw": {"1": Infinity}}', b"[" * 60_000],
)
def test_a_malformed_account_is_refused(value: bytes) -> None:
    with pytest.raises(RecordError):
        decode_account(value)


def test_settings_change_the_minimum_of_one_family_only() -> None:
    families = families_under(load_settings(cell_minimum={"scenario": 12}))
    assert families["scenario"].cell_minimum == 12
    assert families["reduction"].cell_minimum == FAMILIES["reduction"].cell_minimum
    with pytest.raises(ConfigError, match="poetry"):
        families_under(load_settings(cell_minimum={"poetry": 1}))


def test_settings_with_tables_reach_a_child_process_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    parent = load_settings(cell_minimum={"scenario": 3}, augment={"reduction": 0.5}, llm_prices={"m": (0.1, 0.2)})
    for name, value in parent.environment("127.0.0.1:1").items():
        if name.startswith("FEEDMILL_"):
            monkeypatch.setenv(name, value)
    child = load_settings()
    assert (child.cell_minimum, child.augment, child.llm_prices) == (
        parent.cell_minimum,
        parent.augment,
        parent.llm_prices,
    )


def test_filling_every_cell_meets_every_minimum_of_a_bin() -> None:
    """Only cells are requested, so a bin may not need more rows than its filled cells have."""
    for family in FAMILIES.values():
        for quota in family.quotas:
            if quota.kind == "min_count":
                assert quota.axis in family.cell_axes
                for bin_ in quota.bins:
                    cells = [c for c in family.cells() if c[quota.axis] == bin_ and family.cell_possible(c)]
                    assert len(cells) * family.cell_minimum >= quota.target
