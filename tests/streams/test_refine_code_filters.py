"""The filters of the code family: a worker rejects documents that its settings do not want, with every reason."""

from __future__ import annotations

from typing import Any

import pytest

from schema import ledger
from schema.record import LEDGER, RAW, Envelope, decode, encode
from schema.registry import FAMILIES
from schema.settings import load_settings
from schema.source_code import FAMILY
from streams.refine.decode import RawRecord
from streams.refine.group_judge import Judge
from streams.refine.state import State
from tests import source_code

SHORT = "x = 1\n"
SLOPPY = '"""Say it."""\n\n\ndef say(words: str) -> None:\n    print(eval(words))  # TODO: say it well\n'
BARE = "def say(words):\n    words.say_it_aloud()\n    words.say_it_aloud_again()\n    return words\n"


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FAMILIES, FAMILY.name, FAMILY)


def reasons_under(texts: list[str], **changes: Any) -> tuple[int, dict[str, int]]:
    """Return the clean rows and {reason: rows} in the ledger entry of one raw record with these Python texts."""
    settings = load_settings(near_duplicate_threshold=1.0, **changes)
    rows = source_code.frame([source_code.document(0, text=text) for text in texts])
    headers = Envelope(FAMILY.name, RAW, 1, "r", 0, 0, rows.height).headers()
    record = RawRecord("raw", 0, 0, 0, encode(rows), headers, None)
    judged = Judge(FAMILY, settings, 0, 1, "id").judge_group([record], State.empty(FAMILY, settings))
    sent = next(out for out in judged.outgoing if out.stage == LEDGER)
    entry = decode(sent.value, ledger.COLUMNS, 10**7)
    return judged.progress.rows_clean, {each["reason"]: each["rows"] for each in entry["reasons"].to_list()[0]}


def test_documents_outside_the_lengths_are_rejected() -> None:
    long = source_code.document(0)["text"]
    assert reasons_under([SHORT, SLOPPY, long], code_max_length=len(long) - 1) == (
        1,
        {"text_too_short": 1, "text_too_long": 1},
    )
    assert reasons_under([SHORT], code_min_length=len(SHORT)) == (1, {})


@pytest.mark.parametrize(
    ("setting", "reason", "text"),
    [
        ("code_prefer_idiomatic", "not_idiomatic", SLOPPY),
        ("code_prefer_idiomatic", "not_idiomatic", BARE),
        ("code_prefer_documented", "not_documented", BARE),
    ],
)
def test_a_preference_rejects_documents_of_low_quality(setting: str, reason: str, text: str) -> None:
    good = source_code.document(0)["text"]
    assert reasons_under([good, text]) == (2, {})
    assert reasons_under([good, text], **{setting: True}) == (1, {reason: 1})


def test_a_document_carries_the_reasons_of_all_filters() -> None:
    chosen = {"code_min_length": 1000, "code_prefer_idiomatic": True, "code_prefer_documented": True}
    expected = {"text_too_short": 1, "not_idiomatic": 1, "not_documented": 1}
    assert reasons_under([BARE], **chosen) == (0, expected)
