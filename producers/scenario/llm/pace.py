"""How fast a run asks: calls at a time, the time limit of a call, and scenarios per call, as the endpoint allows.

A model on this machine answers one call at a time, and slowly. Its time limit follows from the tokens per second that
were measured, and a call asks for fewer scenarios if five do not fit the time or the context.
"""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from schema.settings import Settings

# Scenarios per call, for the target of 20 calls per 100 examples.
SCENARIOS_PER_CALL = 5
_CALLS_AT_ONCE = 4
_TIMEOUT_S = 120.0
# For a model on this machine; it can be longer.
_LOCAL_TIMEOUT_S = 600.0
# More tokens than an answer with five scenarios needs.
_LONG_ANSWER_TOKENS = 2000
# The time limit should be this many times the time that a call is expected to take.
_MARGIN = 2.0


def is_local(url: str) -> bool:
    """Return whether `url` is an address of this machine."""
    try:
        host = urlsplit(url).hostname or ""
        if host == "localhost" or host.endswith(".localhost"):
            return True
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    # Some servers name the unspecified address (0.0.0.0) as their own; it reaches this machine.
    return address.is_loopback or address.is_unspecified


def calls_at_once(settings: Settings) -> int:
    """Return the most calls that run at a time: `llm_concurrency`, or by default 1 on this machine and 4 elsewhere."""
    return settings.llm_concurrency or (1 if is_local(settings.llm_base_url) else _CALLS_AT_ONCE)


class Pace:
    """The pace of a run.

    Attributes:
        scenarios_per_call: the most scenarios to ask for in a call; it only shrinks.
        retries_timeouts: whether to ask again after a time-out. A slow model on this machine would only be slow again.

    Example::

        pace = Pace(load_settings(llm_timeout_s=120))
        pace.answered(scenarios=5, tokens=1250, elapsed_s=125)  # 10 tokens per second
        pace.scenarios_per_call  # 2, because five take longer than half the time limit
    """

    def __init__(self, settings: Settings) -> None:
        self.scenarios_per_call = settings.llm_scenarios_per_call or SCENARIOS_PER_CALL
        self._set_timeout_s = settings.llm_timeout_s
        self._is_local = is_local(settings.llm_base_url)
        self.retries_timeouts = self._set_timeout_s is not None or not self._is_local
        self._tokens_per_s: float | None = None

    @property
    def timeout_s(self) -> float:
        """The seconds that one try of a call may take."""
        if self._set_timeout_s is not None:
            return self._set_timeout_s
        if not self._is_local:
            return _TIMEOUT_S
        if self._tokens_per_s is None:
            return _LOCAL_TIMEOUT_S
        return max(_LOCAL_TIMEOUT_S, _MARGIN * _LONG_ANSWER_TOKENS / self._tokens_per_s)

    def answered(self, scenarios: int, tokens: int | None, elapsed_s: float) -> None:
        """Learn from an answered writing call: the scenarios asked for, the completion tokens, and its seconds."""
        if not tokens or elapsed_s <= 0:
            return
        speed = tokens / elapsed_s
        # The slowest call counts, so that a longer one still has time.
        self._tokens_per_s = min(speed, self._tokens_per_s or speed)
        tokens_in_time = self._tokens_per_s * self.timeout_s / _MARGIN
        self.shrink(int(tokens_in_time * scenarios / tokens))

    def shrink(self, scenarios: int) -> None:
        """Ask for at most `scenarios` in a call from now on, and for one at least."""
        self.scenarios_per_call = max(1, min(scenarios, self.scenarios_per_call))
