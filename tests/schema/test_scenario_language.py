"""Prose of many scripts counts as language; random keys, broken characters and leftovers do not."""

from __future__ import annotations

import unicodedata
from collections import Counter

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schema.scenario.language import LEFTOVERS, MEASURES, measure, repeats, sane
from tests.scenarios import valid_rows

PROSE = {
    "English": "I can sit with you until the doctor comes, but I have to be home before the children wake up.",
    "shouted": "NO. I SAID THAT I CANNOT DO IT TODAY, AND I MEANT WHAT I SAID!",
    "German": "Die Krankenversicherungsbescheinigung habe ich schon abgegeben, also bleibt nur noch der Antrag.",
    "Finnish": "Lentokonesuihkuturbiinimoottoriapumekaanikko ei ehdi tänään auttamaan sinua muutossa, anteeksi.",
    "Vietnamese": "Hôm nay em mệt lắm, nhưng em vẫn có thể đưa chị đi bệnh viện một lúc.",
    "Polish": "Dzisiaj nie dam rady, ale jutro rano przyjdę i pomogę ci wnieść te pudła na trzecie piętro.",
    "Greek": "Σήμερα είμαι κουρασμένη, αλλά μπορώ να σε πάω στο νοσοκομείο για λίγο.",
    "Russian": "Сегодня я очень устала, но завтра утром смогу забрать детей из школы.",
    "Hebrew": "אני עייפה מאוד היום אבל אני יכולה לבוא איתך לבית החולים לשעה אחת.",
    "Arabic": "أنا متعبة جدا اليوم ولكنني أستطيع أن أذهب معك إلى المستشفى لساعة واحدة.",
    "Hindi": "मैं आज बहुत थकी हुई हूँ, पर मैं तुम्हारे साथ अस्पताल चल सकती हूँ।",
    "Thai": "วันนี้ฉันเหนื่อยมาก แต่ฉันไปโรงพยาบาลกับคุณได้หนึ่งชั่วโมง",
    "Chinese": "我今天很累，但我可以陪你去医院，只是不能待太久。孩子们还在家里等着我。",
    "Japanese": "今日はとても疲れているけれど、病院まで一緒に行くことはできますよ。",
    "Korean": "오늘은 너무 피곤하지만 한 시간 정도는 같이 병원에 가 줄 수 있어요.",
    "with numbers": "At 6:30 I have the 14 bus to catch, so I can give you 20 minutes, and 45 more on Friday.",
    "short": "No, no, no.",
    "insistent": "No, no, no, please, I really cannot.",
    "with a new emoji": "I am shaking \U0001fae8 but I will be there at six, I promise \U0001fa77.",
}
NO_PROSE = {
    "one word": "help " * 12,
    "one letter": "aaaaaaaaaaaaaaaaaaaaaaaaa",
    "symbols": "*** ### !!! ??? ... --- ok",
    "numbers": "12 34 56 78 90 12 34 56 a",
    "keys": "sdfg hjkl qwrt zxcv bnmp dfgh jklm wrtp",
    "more keys": "lkjasdflkjhasdflkjhqwer asdflkjhasdflkjhzxcvb",
    "spelled": "h e l p m e p l e a s e",
    "replaced": "I can\ufffdt come today, but tomorrow I can.",
    "controlled": "I can come today,\x00 but not tomorrow.",
    "private": "I can come today, \ue000 but not tomorrow.",
}


def judged(text: str | None) -> bool:
    return bool(measure(pl.Series([text], dtype=pl.String)).select(sane()).item())


@pytest.mark.parametrize("text", PROSE.values(), ids=PROSE)
def test_prose_of_any_script_is_language(text: str) -> None:
    assert judged(text)


@pytest.mark.parametrize("text", NO_PROSE.values(), ids=NO_PROSE)
def test_nonsense_is_not_language(text: str) -> None:
    assert not judged(text)


def is_letter(character: str) -> bool:
    return unicodedata.category(character)[0] in "LM"


@given(st.lists(st.one_of(st.none(), st.text(max_size=60), st.sampled_from(list(PROSE.values()))), max_size=5))
def test_measures_equal_plain_counts(texts: list[str | None]) -> None:
    measures = measure(pl.Series(texts, dtype=pl.String))
    assert measures.schema == MEASURES
    for text, row in zip(texts, measures.iter_rows(named=True), strict=True):
        # Code points above the last letter are not classified.
        letters = [c for c in text or "" if is_letter(c) and ord(c) < 0x32400]
        spaced = "".join(c if is_letter(c) and ord(c) < 0x32400 else " " for c in text or "")
        words = [word.lower() if word.isascii() else word for word in spaced.split(" ") if word]
        assert row["letters"] == len(letters)
        assert row["letter_bytes"] == len("".join(letters).encode())
        assert row["words"] == len(words)
        assert row["commonest_word"] >= max(Counter(words).values(), default=0)
        assert row["visible"] >= row["letters"] >= row["cased"]
        plain = [word for word in words if word.isascii() and len(word) >= 3]
        assert row["plain_words"] == len(plain)
        assert row["voweled_words"] == sum(any(letter in "aeiouy" for letter in word) for word in plain)


PIECES = ["{", "}}", "<name>", "[NAME]", "[insert", "%s", "%(", "TODO", "FIXME", "TBD", "Lorem ipsum", "LOREM IPSUM"]
PIECES += ["as an AI language model", "As an AI model", "lorem", "AI", "to do", "é", " ", "_", "1", "Todo", "\n"]


@given(st.lists(st.sampled_from(PIECES), max_size=6).map("".join))
def test_every_text_with_a_leftover_has_a_suspect(text: str) -> None:
    texts = pl.Series([text])
    assert measure(texts)["suspects"].item() > 0 or not texts.str.contains(LEFTOVERS).item()


def test_measures_of_a_slice_equal_those_of_its_texts() -> None:
    texts = pl.Series([*PROSE.values(), None, *NO_PROSE.values()])
    assert measure(texts[5:20]).equals(measure(texts)[5:20])
    assert measure(texts[:0]).height == 0


def repeated(first: str | None, second: str | None) -> bool:
    return bool(repeats(pl.Series([first], dtype=pl.String), pl.Series([second], dtype=pl.String)).item())


@given(st.sampled_from(list(PROSE.values())), st.sampled_from(["", " ", "!", " - ", "\n"]))
def test_a_text_repeats_itself_in_any_case_and_punctuation(text: str, mark: str) -> None:
    assert repeated(text, mark + text.upper().replace(",", " ,") + mark)


def test_one_word_in_ten_may_differ_and_no_more() -> None:
    ten = "one two three four five six seven eight nine ten"
    assert repeated(ten, ten.replace("ten", "eleven"))
    assert repeated(ten, "Ten, nine eight; seven six five four three two one!")
    assert not repeated(ten, ten.replace("nine ten", "eleven twelve"))
    assert not repeated(ten, f"{ten} and then some more")


@pytest.mark.parametrize("second", [None, "", "?!"])
def test_a_text_without_words_repeats_nothing(second: str | None) -> None:
    assert not repeated(second, second)


def test_valid_rows_are_language() -> None:
    rows = valid_rows(128)
    for text in ("context", "request", "response"):
        assert measure(rows[text]).select(sane().all()).item()
    assert not repeats(rows["request"], rows["response"]).any()
