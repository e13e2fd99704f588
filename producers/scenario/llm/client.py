"""Send a question to an OpenAI-compatible endpoint, with retries and time limits.

Only the HTTP client knows the key. A server's error message is reported only if it contains no piece of the key.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np

from producers.scenario.llm.faults import MISSING, REFUSED, SERVER_ERROR, TIMED_OUT
from producers.scenario.llm.pace import Pace, is_local
from producers.scenario.llm.replies import Reply, ServerError, read_completion
from schema.errors import ConfigError, ProducerError
from schema.settings import Settings, without_credentials

if TYPE_CHECKING:
    import httpx2
    import openai

# Sent as the key to a local server that needs none.
_NO_KEY = "none"
# HTTP statuses of errors that may be temporary; all from 500 on are retried too.
_RETRIED = frozenset({408, 409, 425, 429})
# The code of an error (HTTP 429) that concerns the account's balance and not its rate.
_NO_QUOTA = "insufficient_quota"
# HTTP statuses that may concern a single question: the prompt is too long, or a content filter refuses it.
_REFUSED = frozenset({400, 413, 422})
# An error message with a piece of the key of this length is hidden; shorter pieces occur in ordinary words.
_REVEALING_CHARACTERS = 6
_MESSAGE_CHARACTERS = 200
# The forms of answers that a request can ask for, the strictest first.
_RESPONSE_FORMATS = ("json_schema", "json_object", "none")
# HTTP statuses and words of errors by which a server refuses the form of an answer.
_FORMAT_STATUSES = frozenset({400, 404, 422, 500, 501})
_FORMAT_WORDS = re.compile(
    r"response.?format|json.?schema|json.?object|json.?mode|structured.output|guided|grammar", re.I
)


@dataclass(frozen=True)
class RetryPolicy:
    """How often to try a call: waits double from the first to the longest; each is shortened by up to half at random.

    A server's Retry-After replaces the wait, up to the longest wait.
    """

    tries: int = 5
    first_wait_s: float = 0.5
    longest_wait_s: float = 60.0


def _http_client(url: str) -> httpx2.AsyncClient:
    """Return a client for `url` that uses the environment's proxies, unless `url` is on this machine.

    Raises:
        ConfigError: the proxy cannot be used.
    """
    import httpx2
    import openai

    try:
        # A proxy cannot reach this machine's loopback.
        return openai.DefaultAsyncHttpxClient(trust_env=not is_local(url))
    except ImportError:
        raise ConfigError(
            "the environment names a SOCKS proxy (ALL_PROXY, HTTPS_PROXY or HTTP_PROXY), which needs one more package: "
            "pip install feedmill[llm], or unset the variable"
        ) from None
    except (ValueError, httpx2.InvalidURL) as error:
        raise ConfigError(
            f"the proxy of the environment cannot be used ({error}): correct ALL_PROXY, HTTPS_PROXY and HTTP_PROXY"
        ) from None


class UnansweredError(Exception):
    """No try of a call was answered, or the server refuses the question.

    Attributes:
        reason: what the last try met.
        tries: the number of tries.
        fault: the fault of the ids asked for; REFUSED if the server refuses the question.
    """

    def __init__(self, reason: str, tries: int, *, fault: str = MISSING) -> None:
        super().__init__(reason)
        self.reason = reason
        self.tries = tries
        self.fault = fault


class EndpointError(ProducerError):
    """The endpoint refuses every question, e.g. because of the key or the model; retries would not help."""


class ModelClient:
    """Sends questions to the endpoint of `settings`; an asynchronous context whose end closes its connections.

    Attributes:
        url: the endpoint's URL without credentials.
        response_format: the form of answers that requests ask for: json_schema, json_object or none. If the endpoint
            refuses a form by name, all later requests ask for the next one, unless a setting fixes it.
        notes: a line for each form that the endpoint refused.

    Raises:
        ConfigError: the key cannot be sent, or the URL is invalid.
    """

    def __init__(self, settings: Settings, policy: RetryPolicy, seed: int, pace: Pace | None = None) -> None:
        import openai

        key = settings.llm_api_key
        self._key = key.get_secret_value().strip() if key is not None else ""
        if not (self._key.isascii() and self._key.isprintable()):
            raise ConfigError(
                "FEEDMILL_LLM_API_KEY holds characters that are not allowed in an HTTP header: correct the key"
            )
        self._settings = settings
        self.url = _shown(settings.llm_base_url)
        self.response_format = settings.llm_response_format or _RESPONSE_FORMATS[0]
        self.notes: list[str] = []
        self._policy = policy
        self._pace = pace or Pace(settings)
        self._random = np.random.default_rng(seed)
        # A Retry-After of one call delays all calls.
        self._not_before = 0.0
        self._openai: openai.AsyncOpenAI = openai.AsyncOpenAI(
            api_key=self._key or _NO_KEY,
            base_url=settings.llm_base_url,
            max_retries=0,
            http_client=_http_client(settings.llm_base_url),
        )
        # The client takes both from the environment, but they belong to another endpoint.
        self._openai.organization = self._openai.project = None

    async def __aenter__(self) -> ModelClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._openai.close()

    async def ask(
        self,
        model: str,
        messages: Sequence[Mapping[str, str]],
        schema: Mapping[str, Any],
        parameters: Mapping[str, Any] | None = None,
    ) -> Reply:
        """Return the model's answer; the request has the JSON schema if the endpoint takes one.

        `parameters` are merged into the request.

        Raises:
            UnansweredError: no try within the policy was answered, or the endpoint refuses this question.
            EndpointError: the endpoint refuses the key or the model.
        """
        import openai

        request = {"model": model, "messages": list(messages), "extra_body": dict(parameters or {})}
        reason, fault = "", MISSING
        number = 1
        while number <= self._policy.tries:
            await self._wait_for_leave()
            wait_s = self._backoff_s(number)
            asked_format = self.response_format
            try:
                answer = await self._try(request, schema, number)
                if isinstance(answer, Reply):
                    return answer
                if self._steps_down(asked_format, answer.status or 400, answer.message):
                    continue
                reason, fault = f"HTTP 200 with an error{self._line(answer.message)}", SERVER_ERROR
                self._raise_if_final(answer.status, answer.message, model, number)
            except (openai.APITimeoutError, TimeoutError):
                reason, fault = f"no answer within {self._pace.timeout_s:g} s", TIMED_OUT
                if not self._pace.retries_timeouts:
                    raise UnansweredError(reason, number, fault=fault) from None
            except openai.APIConnectionError as error:
                reason, fault = f"no connection ({type(error.__cause__ or error).__name__})", MISSING
            except openai.APIStatusError as error:
                if self._steps_down(asked_format, error.status_code, error.response.text):
                    continue
                reason, fault = f"HTTP {error.status_code}", MISSING
                self._raise_if_final(error.status_code, error.response.text, model, number)
                asked_s = retry_after_s(error.response.headers.get("retry-after"), datetime.now(UTC))
                if asked_s is not None:
                    wait_s = min(asked_s, self._policy.longest_wait_s)
                    self._not_before = max(self._not_before, time.monotonic() + wait_s)
            if number < self._policy.tries:
                await asyncio.sleep(wait_s)
            number += 1
        raise UnansweredError(reason, self._policy.tries, fault=fault)

    def _steps_down(self, asked: str, status: int, message: str) -> bool:
        """Whether to ask again in another form, because the server refuses the form `asked` by name."""
        if asked == "none" or status not in _FORMAT_STATUSES or not _FORMAT_WORDS.search(message):
            return False
        if self._settings.llm_response_format is not None:
            return False
        # Calls that ran at once step down together, by one form.
        if asked == self.response_format:
            self.response_format = _RESPONSE_FORMATS[_RESPONSE_FORMATS.index(asked) + 1]
            self.notes.append(
                f"{self.url} refuses the response format {asked} (HTTP {status}{self._line(message)}): asking with "
                f"{self.response_format}; set FEEDMILL_LLM_RESPONSE_FORMAT={self.response_format} to begin with it"
            )
        return True

    def _raise_if_final(self, status: int, message: str, model: str, tries: int) -> None:
        """Raise the error of a status that another try would not change; status 0 is unknown and is tried again."""
        if _NO_QUOTA in message:
            raise EndpointError(
                f"{self.url} has no quota left for this key (HTTP {status}{self._line(message)}): this is a matter of "
                "billing, and waiting does not help; add credit or raise the limit of the account, or use another key"
            ) from None
        if status in _REFUSED:
            raise UnansweredError(f"HTTP {status}{self._line(message)}", tries, fault=REFUSED) from None
        if 400 <= status < 500 and status not in _RETRIED:
            raise self._refusal(status, message, model) from None

    async def _try(self, request: Mapping[str, Any], schema: Mapping[str, Any], number: int) -> Reply | ServerError:
        arguments = dict(request)
        if self.response_format == "json_schema":
            json_schema = {"name": "answer", "strict": True, "schema": schema}
            arguments["response_format"] = {"type": "json_schema", "json_schema": json_schema}
        elif self.response_format == "json_object":
            arguments["response_format"] = {"type": "json_object"}
        # The client's own timeout limits only the pause between two bytes, so a slow trickle would never end.
        timeout_s, started = self._pace.timeout_s, time.monotonic()
        async with asyncio.timeout(timeout_s):
            response = await self._openai.chat.completions.with_raw_response.create(**arguments, timeout=timeout_s)
            answer = read_completion(response.http_response.text, self._key, number)
        return replace(answer, elapsed_s=time.monotonic() - started) if isinstance(answer, Reply) else answer

    async def _wait_for_leave(self) -> None:
        await asyncio.sleep(max(0.0, self._not_before - time.monotonic()))

    def _backoff_s(self, number: int) -> float:
        wait_s = min(self._policy.first_wait_s * 2.0 ** (number - 1), self._policy.longest_wait_s)
        return wait_s * float(self._random.uniform(0.5, 1.0))

    def _refusal(self, status: int, message: str, model: str) -> EndpointError:
        if status in (401, 403):
            return EndpointError(f"{self.url} refuses the key (HTTP {status}): correct FEEDMILL_LLM_API_KEY")
        return EndpointError(
            f"{self.url} refuses a question to model {model!r} (HTTP {status}{self._line(message)}): pull the "
            "model there, name another in FEEDMILL_LLM_MODEL_SIMPLE, FEEDMILL_LLM_MODEL_COMPLEX or "
            "FEEDMILL_LLM_MODEL_VALIDATION, or correct FEEDMILL_LLM_BASE_URL"
        )

    def _line(self, message: str) -> str:
        """Return a server's error message in a line after a colon, or "" if it contains a piece of the key."""
        line = " ".join(message.split())[:_MESSAGE_CHARACTERS]
        return f": {line}" if line and not self._reveals_key(message) else ""

    def _reveals_key(self, text: str) -> bool:
        """Whether `text` contains a piece of the key."""
        key = self._key
        size = min(_REVEALING_CHARACTERS, len(key))
        return bool(key) and any(key[at : at + size] in text for at in range(len(key) - size + 1))


def retry_after_s(value: str | None, now: datetime) -> float | None:
    """Return the seconds that a Retry-After header asks for (RFC 9110, 10.2.3: a number or a date), or None."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            moment = parsedate_to_datetime(value)
        except ValueError:
            return None
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        seconds = (moment - now).total_seconds()
    return max(0.0, seconds) if np.isfinite(seconds) else None


def _shown(url: str) -> str:
    """Return an endpoint's URL without credentials, for messages.

    Raises:
        ConfigError: the URL is invalid.
    """
    try:
        parts = urlsplit(url)
        is_endpoint = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_endpoint = False
    if not is_endpoint:
        raise ConfigError(
            "FEEDMILL_LLM_BASE_URL is not a valid http or https URL: give one such as http://127.0.0.1:11434/v1"
        )
    return without_credentials(url)
