"""Settings: one frozen object, validated once, passed explicitly.

A setting is read from the environment (prefix `FEEDMILL_`), then from `feedmill.toml` in the working directory. No
other module reads either. An unknown name is refused in both. Secrets are `SecretStr`, so a repr, a log line or an
error never shows them.
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, field_serializer, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from schema.errors import ConfigError

MIB = 1024 * 1024
PREFIX = "FEEDMILL_"
# Guessing a token of this length takes too long.
TOKEN_MIN_CHARACTERS = 16
# Servers refuse a header with a longer token.
TOKEN_MAX_CHARACTERS = 4096
# Characters of a wrong value that an error shows.
_VALUE_SHOWN_CHARACTERS = 80
# What a setting written as JSON looks like, for the error about another form.
_EXAMPLES = {
    "augment": """, e.g. '{"reduction": 0.5}'""",
    "cell_minimum": """, e.g. '{"reduction": 2}'""",
    "llm_request": """, e.g. '{"temperature": 0.7}'""",
    "llm_prices": """, e.g. '{"llama3.1": [0.1, 0.2]}'""",
}
# The only setting with a pattern is the namespace.
_NAMESPACE_RULE = "must be 1 to 100 lower-case letters, digits, _ and -, and begin with a letter or digit"
_FILE = "feedmill.toml"
# Longer waits than a day are mistakes, and the clients' timers overflow far above it.
_DAY_S = 86_400
# Parts of a request to a language model that Feedmill sets itself.
_OWN_REQUEST_PARTS = ("model", "messages", "response_format", "stream", "n")
# The roles of language models, which can have request parameters of their own.
LLM_ROLES = ("simple", "complex", "validation")
# Kafka counts bytes and rows as 32-bit integers.
_INT32_MAX = 2**31 - 1
# Names with a lower ratio of `difflib` (0 to 1) have little in common.
_LIKENESS_AT_LEAST = 0.5


class Settings(BaseSettings):
    """All settings, with units in their names."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        toml_file=_FILE,
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
        allow_inf_nan=False,
    )

    # Namespace and folders
    namespace: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,99}$")] = "feedmill"
    data_dir: Path = Path(".feedmill")
    # Kafka's jars and built crates; default: .cache/feedmill in the home folder, or cache in data_dir if that is not
    # writable.
    cache_dir: Path | None = None

    # The broker: without bootstrap_servers Feedmill starts the embedded one
    bootstrap_servers: str | None = None
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = None
    sasl_username: str | None = None
    sasl_password: SecretStr | None = None
    ssl_cafile: Path | None = None
    ssl_certfile: Path | None = None
    ssl_keyfile: Path | None = None
    ssl_key_password: SecretStr | None = None
    client_id: str = "feedmill"
    broker_port: Annotated[int, Field(ge=1, le=65535)] = 9092
    broker_heap_mb: Annotated[int, Field(ge=256, le=_INT32_MAX)] = 512
    # A command must report within 10 s that the broker is down, its own start-up included.
    broker_timeout_s: Annotated[float, Field(gt=0, le=_DAY_S)] = 6.0

    # Topics
    partitions: Annotated[int, Field(ge=1, le=1024)] = 4
    replication_factor: Annotated[int, Field(ge=1, le=32_767)] = 1

    # Records: the size of a micro-batch, and limits on records
    rows_per_record: Annotated[int, Field(ge=1, le=_INT32_MAX)] = 2048
    record_max_bytes: Annotated[int, Field(ge=1024, le=_INT32_MAX)] = 1_000_000
    # Raw takes larger records, so that those of another producer are rejected with a reason instead of lost.
    raw_record_max_bytes: Annotated[int, Field(ge=1024, le=_INT32_MAX)] = 8 * MIB
    raw_record_max_rows: Annotated[int, Field(ge=1, le=_INT32_MAX)] = 100_000
    # A raw record whose rows take more memory is refused before it is decoded: a few kB can declare gigabytes.
    record_max_decoded_bytes: Annotated[int, Field(ge=MIB, le=_INT32_MAX)] = 64 * MIB

    # Refine: a transaction holds many records because each commit costs a round trip to disk
    refine_group_records: Annotated[int, Field(ge=1, le=_INT32_MAX)] = 60
    refine_group_wait_s: Annotated[float, Field(gt=0, le=_DAY_S)] = 0.2
    # A worker that makes no progress while there is lag ends with an error after this long.
    refine_stall_s: Annotated[float, Field(gt=0, le=_DAY_S)] = 60.0
    # Rows of clean whose ids are remembered per partition; None remembers all.
    dedup_window_rows: Annotated[int, Field(ge=1)] | None = None
    # A killed worker's partitions wait this long for another.
    session_timeout_s: Annotated[float, Field(ge=1, le=_DAY_S)] = 6.0
    # Texts whose shingles have this Jaccard similarity (estimated by MinHash) are near duplicates; 1 keeps them all.
    # A number applies to every family; None leaves each family its own.
    near_duplicate_threshold: Annotated[float, Field(gt=0, le=1)] | None = None
    # Share gates apply once a partition has this many clean rows.
    gate_from_rows: Annotated[int, Field(ge=1)] = 50
    # Augmented rows per clean row on average, by family: {"reduction": 0.1} makes one from every tenth row.
    augment: dict[str, Annotated[float, Field(ge=0, le=16)]] = Field(default_factory=dict)

    # Filters of the code family: characters of a document, and code of quality only
    code_min_length: Annotated[int, Field(ge=0, le=_INT32_MAX)] = 64
    code_max_length: Annotated[int, Field(ge=1, le=_INT32_MAX)] = 200_000
    code_prefer_idiomatic: bool = False
    code_prefer_documented: bool = False

    # Coverage service
    coverage_host: str = "127.0.0.1"
    coverage_port: Annotated[int, Field(ge=0, le=65535)] = 8265
    coverage_url: str | None = None
    # If coverage_host is not a loopback address, every request needs the header `Authorization: Bearer TOKEN`.
    token: SecretStr | None = None
    # Rows that each possible cell should have, by family; default: the family's own minimum.
    cell_minimum: dict[str, Annotated[int, Field(ge=0)]] = Field(default_factory=dict)
    # A producer under --follow gives up if coverage counts none of its rows during this time.
    follow_patience_s: Annotated[float, Field(gt=0, le=_DAY_S)] = 120.0

    # Language models: any OpenAI-compatible endpoint; the default is a local Ollama, which needs no key
    llm_base_url: str = "http://127.0.0.1:11434/v1"
    llm_api_key: SecretStr | None = None
    llm_model_simple: str = "llama3.2"
    llm_model_complex: str = "llama3.1"
    llm_model_validation: str | None = None
    # Scenarios that the validation model scores below this are rejected; 0 accepts them all.
    llm_validation_minimum: Annotated[float, Field(ge=0, le=1)] = 0.5
    # The form of answers to ask for; None asks for json_schema and steps down if the endpoint refuses it.
    llm_response_format: Literal["json_schema", "json_object", "none"] | None = None
    # Parameters of every request, e.g. {"temperature": 0.7, "max_tokens": 4000}. A table under the name of a role
    # (simple, complex, validation) is for that role's requests only.
    llm_request: dict[str, Any] = Field(default_factory=dict)
    # USD per million tokens as (prompt, completion), by model; the cost of a model without a price is null, never 0.
    llm_prices: dict[str, tuple[Annotated[float, Field(ge=0)], Annotated[float, Field(ge=0)]]] = Field(
        default_factory=dict
    )
    llm_budget_usd: Annotated[float, Field(gt=0)] | None = None
    llm_budget_tokens: Annotated[int, Field(ge=1)] | None = None
    # None: 1 on this machine, 4 elsewhere.
    llm_concurrency: Annotated[int, Field(ge=1, le=256)] | None = None
    # None: 120 s, or on this machine 600 s and more as the model's speed asks for.
    llm_timeout_s: Annotated[float, Field(gt=0, le=_DAY_S)] | None = None
    # None: five, or fewer if the model's context or speed asks for it.
    llm_scenarios_per_call: Annotated[int, Field(ge=1, le=5)] | None = None

    @field_validator("token")
    @classmethod
    def _token_fits_a_header(cls, token: SecretStr | None) -> SecretStr | None:
        if token is not None:
            text = token.get_secret_value()
            fits = TOKEN_MIN_CHARACTERS <= len(text) <= TOKEN_MAX_CHARACTERS
            if not fits or not all("!" <= letter <= "~" for letter in text):
                raise ValueError(
                    f"must have at least {TOKEN_MIN_CHARACTERS} characters and {TOKEN_MAX_CHARACTERS} at most, all "
                    "visible ASCII (`openssl rand -hex 16` makes one)"
                )
        return token

    @field_validator("llm_request")
    @classmethod
    def _leaves_own_parts(cls, request: dict[str, Any]) -> dict[str, Any]:
        tables = [request, *(request[role] for role in LLM_ROLES if role in request)]
        if not all(isinstance(table, dict) for table in tables):
            raise ValueError(f"must have a table under the name of a role ({', '.join(LLM_ROLES)})")
        own = [name for name in _OWN_REQUEST_PARTS if any(name in table for table in tables)]
        if own:
            raise ValueError(f"must not have {', '.join(own)}: Feedmill sets these itself, by other llm_... settings")
        try:
            json.dumps(request, allow_nan=False)
        except (ValueError, TypeError) as error:
            raise ValueError(f"must be JSON ({error})") from None
        return request

    @field_validator("bootstrap_servers", "coverage_url")
    @classmethod
    def _holds_no_credentials(cls, address: str | None) -> str | None:
        if address is not None and "@" in address:
            raise ValueError("must hold no user name and no password: use FEEDMILL_SASL_... or FEEDMILL_TOKEN for them")
        return address

    @model_validator(mode="after")
    def _login_and_certificate_are_whole(self) -> Settings:
        needed: tuple[str, ...] = ()
        if self.security_protocol.startswith("SASL"):
            needed = ("sasl_mechanism", "sasl_username", "sasl_password")
        if self.ssl_keyfile is not None:
            needed = (*needed, "ssl_certfile")
        missing = [name for name in needed if getattr(self, name) is None]
        if missing:
            setting = "ssl_keyfile" if missing == ["ssl_certfile"] else f"security_protocol {self.security_protocol}"
            variables = ", ".join(f"{PREFIX}{name.upper()}" for name in missing)
            raise ValueError(f"{setting} needs {', '.join(missing)}: set {variables}")
        return self

    @field_serializer("llm_base_url")
    def _without_credentials(self, url: str) -> str:
        return without_credentials(url)

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        """Yield the values that a repr may show."""
        yield from self.shown()

    def shown(self) -> Iterator[tuple[str, object]]:
        """Yield each setting's name and its value in a form that may be shown; a secret prints as asterisks."""
        for name in type(self).model_fields:
            value = getattr(self, name)
            yield name, without_credentials(value) if name == "llm_base_url" else value

    def environment(self, servers: str) -> dict[str, str]:
        """Return the environment that gives a child process these settings, with `servers` as its Kafka."""
        own = {
            f"{PREFIX}{name.upper()}": _as_text(value)
            for name in type(self).model_fields
            if (value := getattr(self, name)) is not None
        }
        kept = {name: value for name, value in os.environ.items() if not name.upper().startswith(PREFIX)}
        return {**kept, **own, f"{PREFIX}BOOTSTRAP_SERVERS": servers}

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Return the sources by precedence: arguments, then the environment, then `feedmill.toml`."""
        return init_settings, env_settings, _TomlFile(settings_cls)


class _TomlFile(TomlConfigSettingsSource):
    """`feedmill.toml`, with or without the byte-order mark that some editors write."""

    def _read_file(self, file_path: Path | Traversable) -> dict[str, Any]:
        return tomllib.loads(file_path.read_bytes().decode("utf-8-sig"))


def _as_text(value: object) -> str:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, Path):
        # The child may run in another folder.
        return str(value.absolute())
    return json.dumps(value) if isinstance(value, dict) else str(value)


def without_credentials(url: str) -> str:
    """Return `url` without user name, password and query, so that it may be shown."""
    try:
        parts = urlsplit(url)
        shown = parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()
    except ValueError:
        return "(not a URL)"
    return "(not a URL)" if "@" in shown else shown


def load_settings(**overrides: object) -> Settings:
    """Return the settings; `overrides` take precedence over the environment and `feedmill.toml`.

    Raises:
        ConfigError: a name is unknown or a value malformed; the message names the setting and its environment variable.

    Example::

        settings = load_settings(partitions=2)
        settings.partitions  # 2
    """
    _check_environment_names()
    if os.path.lexists(_FILE) and not Path(_FILE).is_file():
        raise ConfigError(f"{_FILE} is not a file that can be read (a folder or a broken link): correct or remove it")
    try:
        return Settings(**overrides)  # type: ignore[arg-type]
    except ValidationError as error:
        raise ConfigError(_line(dict(error.errors(include_url=False)[0]), overrides)) from None
    except SettingsError as error:
        name = next((field for field in Settings.model_fields if f'"{field}"' in str(error)), "")
        example = _EXAMPLES.get(name, "")
        raise ConfigError(f"setting {name}: the value is not JSON; correct {PREFIX}{name.upper()}{example}") from None
    except (ValueError, OSError) as error:  # a feedmill.toml that is not TOML, or cannot be read at all
        raise ConfigError(f"feedmill.toml cannot be read ({error}): correct or remove it") from None


def _check_environment_names() -> None:
    """Refuse a variable with the prefix `FEEDMILL_` that names no setting, because a typo would keep the default.

    Upper and lower case are the same in a variable's name, so two variables can name one setting.

    Raises:
        ConfigError: a variable names no setting, or two variables name the same setting.
    """
    variables: dict[str, str] = {}
    for variable in sorted(os.environ):
        if not variable.upper().startswith(PREFIX):
            continue
        name = variable[len(PREFIX) :].lower()
        if name not in Settings.model_fields:
            raise ConfigError(
                f"{_short(variable)} in the environment is not a setting: {_nearest(name, in_environment=True)}"
            )
        if name in variables:
            raise ConfigError(f"{variables[name]} and {variable} name the same setting: unset one of them")
        variables[name] = variable


def _nearest(name: str, *, in_environment: bool) -> str:
    """Return advice about an unknown name, with the most similar setting if there is one."""
    near = get_close_matches(name.lower(), Settings.model_fields, 1, _LIKENESS_AT_LEAST)
    shown = [f"{PREFIX}{each.upper()}" if in_environment else each for each in near]
    return f"did you mean {shown[0]}? Correct or remove it" if shown else "remove it; docs/operations.md lists settings"


def _line(error: dict[str, Any], overrides: dict[str, object]) -> str:
    """Return the line for the user about one validation error; it shows no secret."""
    message = str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "string_pattern_mismatch":
        message = _NAMESPACE_RULE
    if not error["loc"]:
        return message
    name = str(error["loc"][0])
    if error["type"] == "extra_forbidden":
        where = "an argument" if name in overrides else "feedmill.toml"
        return f"{_short(name)} in {where} is not a setting: {_nearest(name, in_environment=False)}"
    field = Settings.model_fields[name]
    path = ".".join(str(part) for part in error["loc"])
    value = error["input"]
    is_open = "SecretStr" not in str(field.annotation) and not name.endswith(("_url", "servers"))
    shown = f" = {_short(str(value))!r}" if is_open and isinstance(value, str | int | float) else ""
    return f"setting {path}{shown}: {message}; correct {_as_written(name, overrides)}"


def _as_written(name: str, overrides: dict[str, object]) -> str:
    """Return the place of a setting's value, with the name that the user wrote there."""
    if name in overrides:
        return f"the argument {name}"
    variable = next((each for each in os.environ if each.upper() == f"{PREFIX}{name.upper()}"), None)
    return variable or f"{name} in {_FILE}"


def _short(text: str) -> str:
    return text if len(text) <= _VALUE_SHOWN_CHARACTERS else f"{text[:_VALUE_SHOWN_CHARACTERS]}..."
