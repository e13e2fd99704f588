"""Settings: where they come from, in which order, and that secrets stay secret."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from schema.errors import ConfigError
from schema.settings import load_settings


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_arguments_win_over_the_environment_and_that_over_the_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "feedmill.toml").write_text('namespace = "from-file"\npartitions = 3\nrows_per_record = 7\n')
    monkeypatch.setenv("FEEDMILL_PARTITIONS", "5")
    monkeypatch.setenv("FEEDMILL_ROWS_PER_RECORD", "9")
    settings = load_settings(rows_per_record=11)
    assert (settings.namespace, settings.partitions, settings.rows_per_record) == ("from-file", 5, 11)


@pytest.mark.parametrize(
    ("text", "named"),
    [("partitions = 0\n", "partitions"), ("nonsense = 1\n", "nonsense"), ("= broken", "feedmill.toml")],
)
def test_a_bad_file_is_one_line_that_names_the_setting(folder: Path, text: str, named: str) -> None:
    (folder / "feedmill.toml").write_text(text)
    with pytest.raises(ConfigError, match=named) as caught:
        load_settings()
    assert "\n" not in str(caught.value)


def test_half_a_login_is_refused() -> None:
    with pytest.raises(ConfigError, match="sasl_password"):
        load_settings(security_protocol="SASL_SSL", sasl_mechanism="PLAIN", sasl_username="somebody")


def test_a_secret_is_in_no_text_of_the_settings() -> None:
    settings = load_settings(sasl_password="tell-nobody")  # noqa: S106 - not one of anybody's
    assert "tell-nobody" not in repr(settings) + str(settings) + settings.model_dump_json()


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        load_settings().partitions = 9
