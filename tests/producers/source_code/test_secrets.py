"""Secrets and e-mail addresses are replaced, and nothing else is: texts still parse, and lines stay."""

from __future__ import annotations

import ast
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from producers.source_code.line_diff import patched, unified_diff
from producers.source_code.run import CodeRun
from producers.source_code.secrets import EMAIL, SECRET, scrubbed, scrubbed_together
from tests.source_code import parses

# Made up, and joined here so that no scanner takes them for real ones.
TOKENS = {
    "aws": "AKIA" + "Q3EXAMPLEKEY7Z9B",
    "github": "ghp" + "_" + "a1B2c3D4e5F6g7H8i9" * 2,
    "gitlab": "glpat" + "-" + "a1B2c3D4e5F6g7H8i9J0",
    "slack": "xoxb" + "-123456789012-abcdefABCDEF1234",
    "stripe": "sk_live" + "_" + "a1B2c3D4e5F6" * 2,
    "jwt": "eyJhbGciOiJIUzI1NiJ9." + "eyJzdWIiOiIxIn0" + ".c2lnbmF0dXJl_-1",
    "google": "AIza" + "Sy1234567890abcdefghijklmnopqrstu_w",
    "telegram": "123456789:" + "AAabcdefghij0123456789ABCDEFGHIJ_-k",
    "sendgrid": "SG." + "a" * 21 + "1." + "b" * 43,
    "npm": "npm" + "_" + "a1B2c3D4e5F6" * 3,
    "pypi": "pypi-AgEIcHlwaS5vcmc" + "a1B2c3D4e5" * 8,
    "twilio": "AC" + "0123456789abcdef" * 2,
}
KEY = "\n".join(
    [
        "-----BEGIN RSA PRIVATE KEY-----",
        *("MIIEowIBAAKCAQEA1x2y3z4w5v6u" * 2, "Ab3dEf6hIj9lMn2pQr5t" * 3, "Zm9vYmFy"),
        "-----END RSA PRIVATE KEY-----",
    ]
)


@pytest.mark.parametrize(("kind", "token"), TOKENS.items())
def test_a_key_of_a_known_form_is_replaced_whole(kind: str, token: str) -> None:
    for text in (f"x = '{token}'\n", f"# see {token}.\n", f'print("a\\n{token}\\n")', f"({token})"):
        result, counts = scrubbed(text)
        assert result == text.replace(token, SECRET)
        assert counts == {kind: 1}


def test_a_private_key_loses_its_contents_and_keeps_its_lines() -> None:
    for text in (KEY, f'KEY = """{KEY}"""', "KEY = '" + KEY.replace("\n", "\\n") + "'"):
        result, counts = scrubbed(text)
        assert counts == {"private_key": 3}
        assert "BEGIN RSA PRIVATE KEY" in result
        assert not any(line in result for line in KEY.splitlines()[1:-1])
        assert result.count("\n") == text.count("\n")


def test_the_password_in_an_address_is_replaced() -> None:
    result, counts = scrubbed("url = 'postgres://joe:hunter2@db.corp.com:5432/x'\n")
    assert result == f"url = 'postgres://joe:{SECRET}@db.corp.com:5432/x'\n"
    assert counts == {"basic_auth": 1}


@pytest.mark.parametrize(
    "line",
    ["password = 'Tr0ub4dor&3xyz'", 'client_secret: "9fK2mQ7xLp4Z"', "if 'k3v9x2m7q1z8' == api_key:"],
)
def test_a_value_that_looks_random_is_replaced_beside_a_keyword(line: str) -> None:
    result, counts = scrubbed(line)
    assert SECRET in result
    assert counts == {"keyword": 1}


@pytest.mark.parametrize(
    ("before", "value", "after"),
    [
        ("AWS_SECRET_ACCESS_KEY=", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYzz3XAMPLEK", "\n"),
        ("+export GITHUB_TOKEN=", "a1B2c3D4e5F6g7H8i9J0", "  # of the robot\n"),
        ("  DB_PASSWORD: ", "s3cr3tPassw0rdXyz9", "\n"),
        ("RUN API_KEY=", "a1B2c3D4e5F6g7H8i9J0", " OTHER=1 make\n"),
        ("curl -s -u admin:", "hunter2Pw9", " https://example.com\n"),
        ("-H 'Authorization: Bearer ", "abcDEF123456ghiJKL789012mno", "'\n"),
    ],
)
def test_a_value_without_quotes_is_replaced_in_shells_and_settings(before: str, value: str, after: str) -> None:
    assert scrubbed(before + value + after) == (before + SECRET + after, Counter(keyword=1))


ORDINARY = [
    "API_KEY=os.environ",
    "SECRET_KEY: str = settings.secret_key_1",
    "SECRET_KEY=$SECRET_KEY_OF_STAGE_2",
    "MAX_TOKEN=1234567890123456789",
    "TOKEN: tokenize.TokenInfo",
    "NEXT_TOKEN=parse_next_token",
    "Bearer of the token that was made in 2024",
    "curl -u user https://example.com",
    "password = getpass('Password 1: ')",
    "secret_name = 'client_secret'",
    "password = 'password1'",
    "api_key = '00000000-0000-0000-0000-000000000000'",
    "sha = 'da39a3ee5e6b4b0d3255bfef95601890afd80709'",
    "y = x@w.T + q@k.mean(0) + a@b.at[0]",
    "git@github.com:org/project.git",
    "mail user@example.com or root@localhost",
    "@app.route('/x')",
    "@decorator.io\ndef f(): ...",
    "'%s@host.com' % user",
    "'{name}@host.com'.format(name=1)",
    "https://user:$PASSWORD@host.com/",
    "ACTIVITY_SKIPPED, SKELETON_ACCOUNT = 1, 2",
]


@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_code_is_left(text: str) -> None:
    assert scrubbed(text) == (text, Counter())


@pytest.mark.parametrize("address", ["bob@corp.com", "a.b+c_1@mail.uni-x.ac.uk", "BOB@CORP.COM", "1234+b@users.x.dev"])
def test_an_address_is_replaced(address: str) -> None:
    text = f"# <{address}>, mailto:{address}.\nx = '\\n{address}'\n"
    result, counts = scrubbed(text)
    assert result == text.replace(address, EMAIL)
    assert counts == {"email": 3}


def test_what_is_found_in_one_text_is_replaced_in_all() -> None:
    secret = "9fK2mQ7xLp4Z"  # noqa: S105  # made up
    texts, counts = scrubbed_together([f"Use {secret}", f"api_key = '{secret}'\n", f"f('{secret}')\n"])
    assert texts == [f"Use {SECRET}", f"api_key = '{SECRET}'\n", f"f('{SECRET}')\n"]
    assert counts == {"keyword": 3}


PIECES = st.sampled_from(
    [
        *(*TOKENS.values(), KEY, "alice@corp.io", "api_key = 'x9fK2mQ7xLp4Z'", "://a:b1@", "\\", "\\n", "'", '"', "\n"),
        *(" ", SECRET, EMAIL, "password = '", "a1", "@", ".com", "é", "İ", "\udc80", "=", "-"),
    ]
)
TEXTS = st.lists(PIECES, max_size=12).map("".join)


@settings(max_examples=200)
@given(TEXTS, TEXTS)
def test_a_second_call_changes_nothing_and_diffs_of_scrubbed_texts_apply(before: str, after: str) -> None:
    (first, second), _ = scrubbed_together([before, after])
    assert scrubbed_together([first, second]) == ([first, second], Counter())
    assert first.count("\n") == before.count("\n")
    assert patched(first, unified_diff(first, second, "a", "a")) == second


@given(st.lists(st.tuples(st.sampled_from([*TOKENS.values(), "bob@corp.io"]), st.integers(0, 3)), max_size=6))
def test_python_and_rust_with_secrets_still_parse(values: list[tuple[str, int]]) -> None:
    forms = ("s = '{}'", "s = b'x\\n{}'", "# {}", 's = "\\\\n{}"')
    code = "\n".join(forms[form].format(value) for value, form in values)
    ast.parse(scrubbed(code)[0])
    rust = "fn f() {\n" + "\n".join(f'let s = "\\n{value}"; // {value}' for value, _ in values) + "\n}\n"
    assert parses(scrubbed(rust)[0].encode(), "rust")


@pytest.mark.slow
def test_the_standard_library_still_parses() -> None:
    changed = 0
    for path in sorted(Path(ast.__file__).parent.glob("*.py")):
        text = path.read_text(encoding="utf-8", errors="surrogateescape")
        result, counts = scrubbed(text)
        changed += bool(counts)
        assert (result == text) == (not counts)
        if counts:
            assert parses(result.encode("utf-8", "surrogateescape"), "python")
    assert changed > 10


@pytest.mark.parametrize(
    "unit", ["key", "://a:", "password = '1a", "a@b.co ", "eyJ", "-----BEGIN PRIVATE KEY-----", "\\"]
)
def test_a_long_line_of_cues_takes_bounded_time(unit: str) -> None:
    text = unit * (200_000 // len(unit))
    started = time.process_time()
    scrubbed(text)
    assert time.process_time() - started < 20


def test_a_run_replaces_secrets_in_files_and_signatures_if_asked_to(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(f'def f():\n    """By alice@corp.io."""\n    return "{TOKENS["github"]}"\n')
    (tmp_path / "b.py").write_text("from a import f\n\nprint(f())\n")
    run = CodeRun(paths=[str(tmp_path)], scrub=True, signatures=True)
    (unit,) = run.plan()
    made = run.make(unit)
    assert made.frame["text"][0] == f'def f():\n    """By {EMAIL}."""\n    return "{SECRET}"\n'
    assert made.frame["signatures"][1] == f'# a.py\ndef f():\n    """By {EMAIL}."""\n'
    assert {name: made.counts[name] for name in ("scrubbed_email", "scrubbed_github")} == {
        "scrubbed_email": 1,
        "scrubbed_github": 1,
    }
    plain = replace(run, scrub=False)
    (unit,) = plain.plan()
    assert "alice@corp.io" in plain.rows(unit)["text"][0]


def test_no_module_for_the_network_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **named: object) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(sys.modules["socket"].socket, "connect", refuse)
    for token in TOKENS.values():
        assert scrubbed(f"key = '{token}'")[1]
