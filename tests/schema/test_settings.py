"""The sources of settings and their order, unknown names, and secrets that stay secret."""

from __future__ import annotations

import os
import re
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr, ValidationError

from schema.errors import ConfigError
from schema.settings import Settings, load_settings, without_credentials

ROOT = Path(__file__).parents[2]
HIDDEN = "tell-nobody-" * 2  # not a real secret
SECRETS = [name for name, field in Settings.model_fields.items() if "SecretStr" in str(field.annotation)]
# Texts that an environment variable can hold.
words = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_arguments_come_before_the_environment_and_the_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
    settings = load_settings(sasl_password="tell-nobody")  # noqa: S106 - not a real password
    assert "tell-nobody" not in repr(settings) + str(settings) + settings.model_dump_json()


def refused() -> str:
    with pytest.raises(ConfigError) as caught:
        load_settings()
    line = str(caught.value)
    assert "\n" not in line
    assert HIDDEN not in line
    assert caught.value.__context__ is None or caught.value.__suppress_context__
    return line


@pytest.mark.parametrize(
    ("variable", "meant"),
    [
        ("FEEDMILL_BOOTSTRAP_SERVER", "FEEDMILL_BOOTSTRAP_SERVERS"),
        ("feedmill_bootstrap_server", "FEEDMILL_BOOTSTRAP_SERVERS"),
        ("Feedmill_Namespaces", "FEEDMILL_NAMESPACE"),
        ("FEEDMILL_SASL_PASSWROD", "FEEDMILL_SASL_PASSWORD"),
        ("FEEDMILL_AUGMENT__REDUCTION", "FEEDMILL_AUGMENT"),
    ],
)
def test_misspelt_variable_is_refused_with_the_nearest_name(
    monkeypatch: pytest.MonkeyPatch, variable: str, meant: str
) -> None:
    monkeypatch.setenv(variable, HIDDEN)
    line = refused()
    assert variable in line
    assert re.search(rf"did you mean {meant}\?", line)


@pytest.mark.parametrize("variable", ["FEEDMILL_", "FEEDMILL_ZZZZ", "FEEDMILL_" + "x" * 10_000])
def test_variable_unlike_any_setting_is_refused_too(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, HIDDEN)
    line = refused()
    assert "is not a setting: remove it" in line
    assert len(line) < 300


def test_case_of_a_variable_does_not_matter_but_two_for_a_setting_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("feedmill_namespace", "small")
    assert load_settings().namespace == "small"
    # A child gets the setting once, with the value used here.
    child = load_settings(namespace="other").environment("host:1")
    assert [name for name in child if name.upper() == "FEEDMILL_NAMESPACE"] == ["FEEDMILL_NAMESPACE"]
    monkeypatch.setenv("FEEDMILL_NAMESPACE", "large")
    assert "FEEDMILL_NAMESPACE and feedmill_namespace name the same setting" in refused()


def test_unknown_name_in_the_file_or_an_argument_is_refused_with_the_nearest(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"partition in an argument .* did you mean partitions"):
        load_settings(partition=3)
    (folder / "feedmill.toml").write_text(f'sasl_pasword = "{HIDDEN}"\n')
    assert "sasl_pasword in feedmill.toml is not a setting: did you mean sasl_password?" in refused()


def test_every_variable_in_docs_and_tests_is_a_setting() -> None:
    files = [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        *ROOT.glob("docs/*.md"),
        *ROOT.glob("*.yml"),
        ROOT / "Makefile",
        ROOT / ".ci" / "run",
    ]
    files += [path for name in ("tests", "feedmill", "streams", "broker") for path in (ROOT / name).rglob("*.py")]
    named = {
        (path.name, name)
        for path in files
        if path.name != Path(__file__).name
        for name in re.findall(r"FEEDMILL_[A-Z0-9_]*[A-Z0-9]\b(?!\.\.\.)(?!_)", path.read_text(encoding="utf-8"))
    }
    unknown = {
        (path, name) for path, name in named if name.removeprefix("FEEDMILL_").lower() not in Settings.model_fields
    }
    assert unknown == set()


@pytest.mark.parametrize("name", SECRETS)
@pytest.mark.parametrize("way", ["repr", "argument", "file", "beside another error"])
def test_no_error_shows_a_secret(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, way: str) -> None:
    if way == "repr":
        settings = load_settings(**{name: HIDDEN})
        assert getattr(settings, name).get_secret_value() == HIDDEN
        assert HIDDEN not in repr(settings) + str(settings) + settings.model_dump_json() + str(dict(settings.shown()))
        return
    if way == "argument":
        with pytest.raises(ConfigError) as caught:
            load_settings(**{name: [HIDDEN]})
        assert HIDDEN not in str(caught.value)
        with pytest.raises(ValidationError) as raw:
            Settings(**{name: {"x": HIDDEN}})
        assert HIDDEN not in str(raw.value) + repr(raw.value)
        return
    if way == "file":
        (folder / "feedmill.toml").write_text(f'{name} = ["{HIDDEN}"]\n')
    else:
        monkeypatch.setenv(f"FEEDMILL_{name.upper()}", HIDDEN)
        monkeypatch.setenv("FEEDMILL_SECURITY_PROTOCOL", "SASL_SSL")
        monkeypatch.setenv("FEEDMILL_PARTITIONS", "none")
    line = refused()
    assert name in line or "partitions = 'none'" in line


@pytest.mark.parametrize("name", ["bootstrap_servers", "coverage_url", "llm_base_url"])
def test_no_password_in_an_address_is_shown(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(f"FEEDMILL_{name.upper()}", f"https://me:{HIDDEN}@host:8443/v1?key={HIDDEN}")
    if name != "llm_base_url":
        assert f"FEEDMILL_{name.upper()}" in refused()
        return
    settings = load_settings()
    assert HIDDEN in settings.llm_base_url
    for text in (repr(settings), str(settings), settings.model_dump_json(), str(dict(settings.shown()))):
        assert HIDDEN not in text
        assert "https://host:8443/v1" in text


@given(words, words, words)
def test_no_part_of_a_login_in_an_address_is_shown(user: str, password: str, rest: str) -> None:
    mark = f"<{password}>"
    assert mark not in without_credentials(f"http://{user}:{mark}@host/{rest}")
    assert mark not in without_credentials(f"{user}:{mark}@host")


@pytest.mark.parametrize(
    "token", ["", "short", "x" * 15, "with a space in it", "ümlaut-ümlaut-ümlaut", "x" * 20 + "\n"]
)
def test_token_that_is_too_short_or_fits_no_header_is_refused(token: str) -> None:
    with pytest.raises(ConfigError, match=r"setting token: .* at least 16 characters") as caught:
        load_settings(token=token)
    assert not token or token not in str(caught.value)


def test_key_without_its_certificate_is_refused() -> None:
    with pytest.raises(ConfigError, match="ssl_keyfile needs ssl_certfile: set FEEDMILL_SSL_CERTFILE"):
        load_settings(ssl_keyfile="key.pem")


@pytest.mark.parametrize("value", ["{not json", "reduction=0.1"])
def test_variable_that_is_not_json_is_named(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("FEEDMILL_AUGMENT", value)
    line = "setting augment: the value is not JSON; correct FEEDMILL_AUGMENT, e.g. "
    assert refused() == line + """'{"reduction": 0.5}'"""


def test_invalid_namespace_is_refused_with_the_rule_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEEDMILL_NAMESPACE", "My.Space")
    line = refused()
    assert "setting namespace = 'My.Space': must be 1 to 100 lower-case letters, digits, _ and -" in line
    assert "^" not in line


def test_wrong_entry_of_a_table_is_named_with_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEEDMILL_AUGMENT", '{"reduction": 99}')
    line = refused()
    assert "setting augment.reduction = '99'" in line
    assert line.endswith("; correct FEEDMILL_AUGMENT")


def test_error_names_a_setting_where_and_as_the_user_wrote_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"setting partitions = '0': .*; correct the argument partitions$"):
        load_settings(partitions=0)
    (folder / "feedmill.toml").write_text("partitions = 0\n")
    assert refused().endswith("; correct partitions in feedmill.toml")
    monkeypatch.setenv("Feedmill_Partitions", "0")
    assert refused().endswith("; correct Feedmill_Partitions")


@given(
    password=words,
    key_password=words,
    folder=st.sampled_from(["data", "../up", "/absolute/ü", "with space"]),
    augment=st.dictionaries(words, st.floats(0, 16), max_size=3),
    prices=st.dictionaries(words, st.tuples(st.floats(0, 1e9), st.floats(0, 1e9)), max_size=3),
    patience=st.floats(1e-300, 86_400),
)
def test_all_settings_reach_a_child_process(
    password: str,
    key_password: str,
    folder: str,
    augment: dict[str, float],
    prices: dict[str, tuple[float, float]],
    patience: float,
) -> None:
    settings = load_settings(
        bootstrap_servers="host:1",
        security_protocol="SASL_SSL",
        sasl_mechanism="SCRAM-SHA-512",
        sasl_username=password,
        sasl_password=SecretStr(password),
        ssl_key_password=key_password,
        ssl_cafile="ca.pem",
        ssl_certfile="client.pem",
        data_dir=folder,
        augment=augment,
        llm_prices=prices,
        llm_request={"seed": 1, "simple": {"temperature": 0.5}},
        follow_patience_s=patience,
    )
    with mock.patch.dict(os.environ, settings.environment("host:1"), clear=True):
        child = load_settings()
    paths = {name: value.absolute() for name, value in settings if isinstance(value, Path)}
    assert child == settings.model_copy(update=paths)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ('{"model": "x"}', "must not have model: Feedmill sets these itself"),
        ('{"simple": {"stream": true, "n": 2}}', "must not have stream, n"),
        ('{"simple": 3}', "must have a table under the name of a role (simple, complex, validation)"),
        ('{"seed": NaN}', "must be JSON"),
        ("temperature=1", """e.g. '{"temperature": 0.7}'"""),
    ],
)
def test_request_parameters_that_cannot_be_sent_are_refused(
    monkeypatch: pytest.MonkeyPatch, value: str, message: str
) -> None:
    monkeypatch.setenv("FEEDMILL_LLM_REQUEST", value)
    with pytest.raises(ConfigError, match=re.escape(message)) as caught:
        load_settings()
    assert "FEEDMILL_LLM_REQUEST" in str(caught.value)


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        load_settings().partitions = 9


def test_a_settings_file_may_begin_with_a_byte_order_mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "feedmill.toml").write_bytes(b"\xef\xbb\xbfpartitions = 3\r\n")
    assert load_settings().partitions == 3


FLOATS = [name for name, field in Settings.model_fields.items() if field.annotation is float]


@pytest.mark.parametrize("value", ["inf", "-inf", "nan", "1e300"])
@pytest.mark.parametrize("name", FLOATS)
def test_a_number_that_no_timer_takes_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"FEEDMILL_{name.upper()}", value)
    with pytest.raises(ConfigError, match=f"setting {name}"):
        load_settings()


@pytest.mark.parametrize("name", ["rows_per_record", "record_max_bytes", "partitions", "replication_factor"])
def test_a_number_that_kafka_cannot_hold_is_refused(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(f"FEEDMILL_{name.upper()}", "2147483648")
    with pytest.raises(ConfigError, match=f"setting {name}"):
        load_settings()


@pytest.mark.parametrize("kind", ["folder", "loop", "dangling"])
def test_a_settings_file_that_is_no_file_is_refused(folder: Path, kind: str) -> None:
    file = folder / "feedmill.toml"
    if kind == "folder":
        file.mkdir()
    else:
        file.symlink_to("feedmill.toml" if kind == "loop" else "nothing")
    with pytest.raises(ConfigError, match="is not a file that can be read"):
        load_settings()
