"""Settings: one frozen object, validated once, passed explicitly.

Read from the environment (prefix `FEEDMILL_`), then from `feedmill.toml` in the working directory; no other module
reads either. Secrets are `SecretStr`, so that neither a repr nor a log line shows them.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from schema.errors import ConfigError

MIB = 1024 * 1024


class Settings(BaseSettings):
    """Everything that can be set, with units in the names."""

    model_config = SettingsConfigDict(env_prefix="FEEDMILL_", toml_file="feedmill.toml", frozen=True, extra="forbid")

    # Where things are
    namespace: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,99}$")] = "feedmill"
    data_dir: Path = Path(".feedmill")

    # The broker: none configured means the embedded one
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
    broker_heap_mb: Annotated[int, Field(ge=256)] = 512
    # A command must say that the broker is down within 10 s, its own start-up included.
    broker_timeout_s: Annotated[float, Field(gt=0)] = 6.0

    # Topics
    partitions: Annotated[int, Field(ge=1, le=1024)] = 4
    replication_factor: Annotated[int, Field(ge=1)] = 1

    # Records: a micro-batch, and the limits on what travels
    rows_per_record: Annotated[int, Field(ge=1)] = 2048
    record_max_bytes: Annotated[int, Field(ge=1024)] = 1_000_000
    # Raw takes what a foreign producer oversizes, so that it is seen and answered for.
    raw_record_max_bytes: Annotated[int, Field(ge=1024)] = 8 * MIB
    raw_record_max_rows: Annotated[int, Field(ge=1)] = 100_000
    # A raw record whose rows would take more memory is refused before it is decoded: a few kB can declare gigabytes.
    record_max_decoded_bytes: Annotated[int, Field(ge=MIB)] = 64 * MIB

    # Refine: many records to a transaction, for each commit costs a round trip to disk
    refine_group_records: Annotated[int, Field(ge=1)] = 60
    refine_group_wait_s: Annotated[float, Field(gt=0)] = 0.2
    # A worker that makes no progress while there is lag ends with an error after this long.
    refine_stall_s: Annotated[float, Field(gt=0)] = 60.0
    # Rows of clean whose ids are remembered per partition; None remembers all.
    dedup_window_rows: Annotated[int, Field(ge=1)] | None = None
    # A killed worker's partitions wait this long for another.
    session_timeout_s: Annotated[float, Field(ge=1)] = 6.0
    # Texts whose shingles have this Jaccard similarity (estimated by MinHash) are near duplicates; 1 keeps them all.
    near_duplicate_threshold: Annotated[float, Field(gt=0, le=1)] = 0.8
    # A share gate holds at any time from the moment a partition has this many clean rows.
    gate_from_rows: Annotated[int, Field(ge=1)] = 50
    # Augmented rows made of a clean row, by family, on average: {"reduction": 0.1} makes one of every tenth row.
    augment: dict[str, Annotated[float, Field(ge=0, le=16)]] = Field(default_factory=dict)

    # Coverage service
    coverage_host: str = "127.0.0.1"
    coverage_port: Annotated[int, Field(ge=0, le=65535)] = 8265
    coverage_url: str | None = None
    # Rows each possible cell should have, by family, where that is not the family's own minimum.
    cell_minimum: dict[str, Annotated[int, Field(ge=0)]] = Field(default_factory=dict)
    # A producer that follows gives up where nothing it sent is accounted for during this time.
    follow_patience_s: Annotated[float, Field(gt=0)] = 120.0

    # Language models: any OpenAI-compatible endpoint; the default is a local Ollama, which wants no key
    llm_base_url: str = "http://127.0.0.1:11434/v1"
    llm_api_key: SecretStr | None = None
    llm_model_simple: str = "llama3.2"
    llm_model_complex: str = "llama3.1"
    llm_model_validation: str | None = None
    # USD for a million tokens, (prompt, completion), by model; a model without a price costs null, never 0.
    llm_prices: dict[str, tuple[Annotated[float, Field(ge=0)], Annotated[float, Field(ge=0)]]] = Field(
        default_factory=dict
    )
    llm_budget_usd: Annotated[float, Field(gt=0)] | None = None
    llm_budget_tokens: Annotated[int, Field(ge=1)] | None = None
    llm_concurrency: Annotated[int, Field(ge=1, le=256)] = 4
    llm_timeout_s: Annotated[float, Field(gt=0)] = 120.0

    @model_validator(mode="after")
    def _sasl_is_whole(self) -> Settings:
        if self.security_protocol.startswith("SASL"):
            missing = [
                name for name in ("sasl_mechanism", "sasl_username", "sasl_password") if getattr(self, name) is None
            ]
            if missing:
                raise ValueError(f"security_protocol {self.security_protocol} needs {', '.join(missing)}")
        return self

    def environment(self, servers: str) -> dict[str, str]:
        """Return the environment for a child process that is to run under these settings against `servers`."""
        own = {
            f"FEEDMILL_{name.upper()}": _as_text(value)
            for name in type(self).model_fields
            if (value := getattr(self, name)) is not None
        }
        kept = {name: value for name, value in os.environ.items() if not name.startswith("FEEDMILL_")}
        return {**kept, **own, "FEEDMILL_BOOTSTRAP_SERVERS": servers}

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments win over the environment, and the environment over `feedmill.toml`."""
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)


def _as_text(value: object) -> str:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, Path):
        # The child may run in another folder.
        return str(value.absolute())
    return json.dumps(value) if isinstance(value, dict) else str(value)


def load_settings(**overrides: object) -> Settings:
    """Return the settings in force, `overrides` first.

    Raises:
        ConfigError: a value is malformed; the line names the setting and its environment variable.
    """
    try:
        return Settings(**overrides)  # type: ignore[arg-type]
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"]) or "settings"
        raise ConfigError(
            f"setting {name}: {first['msg']}; set FEEDMILL_{name.upper()} or {name} in feedmill.toml"
        ) from None
    except ValueError as error:  # a feedmill.toml that is not TOML
        raise ConfigError(f"feedmill.toml cannot be read ({error}): correct or remove it") from None
