"""The pace of a run follows from the endpoint's place and from the speed that was measured."""

from __future__ import annotations

import pytest

from producers.scenario.llm.pace import Pace, calls_at_once, is_local
from schema.settings import load_settings

REMOTE = "https://api.example.com/v1"


@pytest.mark.parametrize(
    ("url", "local"),
    [
        ("http://127.0.0.1:11434/v1", True),
        ("http://localhost/v1", True),
        ("http://[::1]:8080/v1", True),
        ("http://0.0.0.0:8000/v1", True),
        ("http://10.0.0.7:8000/v1", False),
        (REMOTE, False),
        ("http://[::1", False),
    ],
)
def test_addresses_of_this_machine_are_local(url: str, local: bool) -> None:
    assert is_local(url) == local


def test_defaults_depend_on_the_endpoints_place_and_settings_come_first() -> None:
    local, remote = load_settings(), load_settings(llm_base_url=REMOTE)
    assert (calls_at_once(local), Pace(local).timeout_s, Pace(local).retries_timeouts) == (1, 600.0, False)
    assert (calls_at_once(remote), Pace(remote).timeout_s, Pace(remote).retries_timeouts) == (4, 120.0, True)
    chosen = load_settings(llm_concurrency=7, llm_timeout_s=9, llm_scenarios_per_call=2)
    pace = Pace(chosen)
    assert (calls_at_once(chosen), pace.timeout_s, pace.scenarios_per_call, pace.retries_timeouts) == (7, 9.0, 2, True)


def test_the_time_limit_of_a_local_model_follows_from_its_speed_and_is_600_seconds_at_least() -> None:
    pace = Pace(load_settings())
    pace.answered(scenarios=5, tokens=1250, elapsed_s=125.0)
    assert (pace.timeout_s, pace.scenarios_per_call) == (600.0, 5)
    pace.answered(scenarios=1, tokens=250, elapsed_s=125.0)
    assert (pace.timeout_s, pace.scenarios_per_call) == (2000.0, 5)


def test_calls_shrink_if_five_scenarios_take_most_of_the_time_limit() -> None:
    pace = Pace(load_settings(llm_base_url=REMOTE))
    pace.answered(scenarios=5, tokens=1250, elapsed_s=12.5)
    assert pace.scenarios_per_call == 5
    pace.answered(scenarios=5, tokens=1250, elapsed_s=110.0)
    assert pace.scenarios_per_call == 2
    pace.answered(scenarios=2, tokens=None, elapsed_s=100.0)
    pace.shrink(0)
    assert pace.scenarios_per_call == 1
