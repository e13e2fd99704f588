"""Windows of code: every token is in one, their characters and lines are exact, and masking is exact and repeatable."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.form_options import FormOptions
from consumers.source_code import completions
from consumers.source_code import windows as windows_module
from consumers.source_code.byte_pairs import FIM, LEAST_VOCABULARY, MASK, train_byte_pairs
from consumers.source_code.document_tokens import line_numbers
from consumers.source_code.form import code_form
from consumers.source_code.masking import NO_LABEL
from consumers.source_code.tokenizer import LoadedTokenizer, load_tokenizer
from consumers.source_code.windows import Windows, window_bounds
from schema.errors import UsageError

SOURCES = [f"def add_{name}(x):\n    return x + {name}\n" for name in ("one", "two", "three")] * 3
TRAINED = train_byte_pairs(SOURCES, 320)

texts = st.text(
    st.characters(exclude_categories=("Cs",)) | st.sampled_from("\n\r\t é€😀<|mask>") | st.sampled_from("def")
)
documents = st.lists(texts, min_size=1, max_size=5)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    path.write_text(TRAINED)
    return path


def windows_of(file: Path, **options: Any) -> Windows:
    expand = code_form(FormOptions(tokenizer=file, **options)).expand
    assert isinstance(expand, Windows)
    return expand


def expanded(windows: Windows, texts: list[str], seed: int = 1, epoch: int = 0, first: int = 0) -> pl.DataFrame:
    """The windows, with the index of their document."""
    ids = pl.Series(range(first, first + len(texts)), dtype=pl.UInt64)
    rows = pl.DataFrame({"text": texts, "example_id": ids}, schema_overrides={"text": pl.String})
    frames = [frame.with_columns(document=parents) for parents, frame in windows.sequences(rows, seed, epoch)]
    empty = pl.DataFrame(schema={"part": pl.Int32(), **windows.schema, "document": pl.Int64()})
    return pl.concat([empty, *frames])


@given(st.integers(0, 3000), st.integers(1, 1100), st.data())
def test_windows_cover_every_token_and_only_the_last_is_shorter(tokens: int, window: int, data: st.DataObject) -> None:
    stride = data.draw(st.integers(1, window))
    begins, ends = window_bounds(tokens, window, stride)
    covered: set[int] = set()
    for begin, end in zip(begins.tolist(), ends.tolist(), strict=True):
        covered |= set(range(begin, end))
    assert covered == set(range(tokens))
    assert begins.tolist() == [number * stride for number in range(len(begins))]
    assert (ends - begins)[:-1].tolist() == [window] * max(len(begins) - 1, 0)
    assert len(begins) == 0 or (ends - begins)[-1] > min(window - stride, tokens - 1)
    # One window fewer would not reach the end.
    assert len(begins) < 2 or ends[-2] < tokens


@given(texts, st.data())
def test_lines_are_those_of_plain_python(text: str, data: st.DataObject) -> None:
    characters = np.array(data.draw(st.lists(st.integers(0, max(len(text) - 1, 0)))), dtype=np.int64)
    lines = line_numbers(np.frombuffer(text.encode(), dtype=np.uint8), characters)
    assert lines.tolist() == [1 + text[:each].count("\n") for each in characters.tolist()]


@given(documents, st.integers(1, 12), st.data())
def test_windows_are_the_tokens_characters_and_lines_of_their_documents(
    file: Path, texts: list[str], window: int, data: st.DataObject
) -> None:
    stride = data.draw(st.integers(1, window))
    windows = windows_of(file, window=window, stride=stride)
    tokenizer = windows.loaded.tokenizer
    made = expanded(windows, texts)
    for number, text in enumerate(texts):
        encoding = tokenizer.encode(text, add_special_tokens=False)
        begins, ends = window_bounds(len(encoding.ids), window, stride)
        rows = made.filter(pl.col("document") == number)
        assert rows["part"].to_list() == list(range(len(begins)))
        for row, begin, end in zip(rows.iter_rows(named=True), begins.tolist(), ends.tolist(), strict=True):
            offsets = encoding.offsets[begin:end]
            start, stop = row["char_start"], row["char_end"]
            assert row["input_ids"] == encoding.ids[begin:end]
            assert (start, stop) == (offsets[0][0], offsets[-1][1])
            assert row["line_start"] == 1 + text[:start].count("\n")
            assert row["line_end"] == 1 + text[: stop - 1].count("\n")
            # Every character of the tokens is inside, and no other one.
            assert tokenizer.decode(row["input_ids"]).strip("\N{REPLACEMENT CHARACTER}") in text[start:stop]
        if len(begins):
            assert (rows["char_start"][0], rows["char_end"][-1]) == (0, len(text))


@given(documents, st.integers(0, 2**64 - 1), st.integers(0, 9))
def test_a_document_gives_the_same_windows_whichever_documents_are_beside_it(
    file: Path, texts: list[str], seed: int, epoch: int
) -> None:
    windows = windows_of(file, window=6, stride=2, masking=0.3)
    together = expanded(windows, texts, seed, epoch)
    alone = [expanded(windows, [text], seed, epoch, first=number) for number, text in enumerate(texts)]
    assert [row["input_ids"] for each in alone for row in each.iter_rows(named=True)] == together["input_ids"].to_list()


@pytest.fixture
def small_frames(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(windows_module, "_TEXT_BYTES", 100)
    monkeypatch.setattr(windows_module, "_FRAME_TOKENS", 30)
    yield


def test_frames_of_windows_are_small_and_in_order(file: Path, small_frames: None) -> None:
    windows = windows_of(file, window=8, stride=2)
    texts = [SOURCES[0] * 9, "", *SOURCES, "x"]
    rows = pl.DataFrame({"text": texts, "example_id": pl.Series(range(len(texts)), dtype=pl.UInt64)})
    frames = list(windows.sequences(rows, 0, 0))
    assert len(frames) > 5
    assert max(frame["input_ids"].list.len().sum() for _, frame in frames) <= 30
    parents = np.concatenate([each for each, _ in frames])
    assert sorted(set(parents.tolist())) == [number for number, text in enumerate(texts) if text]
    assert (np.diff(parents) >= 0).all()
    whole = expanded(windows_of(file, window=8, stride=2), texts)
    assert pl.concat([frame for _, frame in frames]).equals(whole.drop("document"))


LONG = "".join(f"value_{number} = {number} + other\n" for number in range(400))


@pytest.mark.parametrize("form", ["mask", "fim"])
def test_masking_hides_the_share_and_labels_give_the_tokens_back(file: Path, form: Any) -> None:
    windows = windows_of(file, window=103, stride=25, masking=0.1, masking_form=form)
    plain = windows_of(file, window=103 if form == "mask" else 100, stride=25)
    mask, fim = windows.loaded.mask, windows.loaded.fim
    assert fim is not None
    made, tokens = expanded(windows, [LONG]), expanded(plain, [LONG])["input_ids"].to_list()
    assert made["input_ids"].list.len().max() == 103
    for row, original in zip(made.iter_rows(named=True), tokens, strict=True):
        hidden = [place for place, label in enumerate(row["labels"]) if label != NO_LABEL]
        assert len(hidden) == int(0.1 * len(original) + 0.5)
        if form == "mask":
            assert {row["input_ids"][place] for place in hidden} == {mask}
            assert [
                given if label == NO_LABEL else label
                for given, label in zip(row["input_ids"], row["labels"], strict=True)
            ] == original
        else:
            first, second, third = (row["input_ids"].index(mark) for mark in fim)
            prefix, suffix = row["input_ids"][first + 1 : second], row["input_ids"][second + 1 : third]
            middle = row["input_ids"][third + 1 :]
            assert (first, hidden) == (0, list(range(third + 1, len(row["input_ids"]))))
            assert prefix + middle + suffix == original
            assert row["labels"][third + 1 :] == middle


def test_other_tokens_are_masked_in_every_part_pass_document_and_seed(file: Path) -> None:
    windows = windows_of(file, window=100, stride=100, masking=0.1)

    def places(**chosen: int) -> list[tuple[int, ...]]:
        labels = expanded(windows, [LONG], **chosen)["labels"].to_list()
        return [tuple(place for place, label in enumerate(row) if label != NO_LABEL) for row in labels[:-1]]

    seen = [*places(), *places(epoch=1), *places(seed=2), *places(first=1)]
    assert len(set(seen)) == len(seen) > 40
    assert places(epoch=1) == places(epoch=1)
    counts = np.bincount(np.concatenate(seen), minlength=100)
    # Each place is masked about equally often: far from 0 and from all.
    assert counts.min() > 0
    assert counts.max() < len(seen) / 3


def without(file: Path, out: Path, *names: str) -> Path:
    """A copy of a tokenizer's file without these special tokens."""
    content = json.loads(file.read_text())
    content["added_tokens"] = [each for each in content["added_tokens"] if each["content"] not in names]
    out.write_text(json.dumps(content))
    return out


def test_a_tokenizer_without_special_tokens_is_never_given_their_text(file: Path, tmp_path: Path) -> None:
    only_fim = without(file, tmp_path / "fim.json", MASK)
    assert windows_of(only_fim, masking=0.1).identity.masking_form == "fim"
    with pytest.raises(UsageError, match='has no mask token, so it cannot mask: set masking_form="fim"'):
        windows_of(only_fim, masking=0.1, masking_form="mask")
    neither = without(file, tmp_path / "neither.json", MASK, FIM[1])
    with pytest.raises(UsageError, match="no mask token and no fill-in-the-middle tokens"):
        windows_of(neither, masking=0.1)
    assert windows_of(neither).identity.masking_form is None
    with pytest.raises(UsageError, match="stride is 100, but a window of 102 tokens"):
        windows_of(file, window=102, stride=100, masking=0.1, masking_form="fim")


def test_the_text_of_a_special_token_in_a_document_is_text(file: Path) -> None:
    loaded = load_tokenizer(file)
    special = {loaded.mask, *(loaded.fim or ()), loaded.padding}
    made = expanded(windows_of(file), [f"x = '{MASK}' # {' '.join(FIM)} <pad><|endoftext|>"])
    assert not special & set(made["input_ids"][0].to_list())


def test_a_file_that_cuts_or_pads_texts_does_not_lose_a_tail(file: Path, tmp_path: Path) -> None:
    loaded = load_tokenizer(file)
    tokenizer = LoadedTokenizer(loaded.text, "", "").tokenizer
    tokenizer.enable_truncation(7)
    tokenizer.enable_padding(length=5000)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    assert load_tokenizer(tmp_path).sha256 != loaded.sha256
    # A folder is as good as its file.
    assert expanded(windows_of(tmp_path), [LONG]).equals(expanded(windows_of(file), [LONG]))


def test_windows_are_the_same_in_another_process(file: Path) -> None:
    windows = windows_of(file, masking=0.1)
    copy = pickle.loads(pickle.dumps(windows))  # noqa: S301  # made here
    assert expanded(copy, [LONG]).equals(expanded(windows, [LONG]))


def test_training_gives_the_same_file_with_every_byte_and_special_token(file: Path) -> None:
    assert train_byte_pairs(SOURCES, 320) == TRAINED
    loaded = load_tokenizer(file)
    assert loaded.tokenizer.get_vocab_size() <= 320
    assert (loaded.mask, loaded.fim) == (2, (3, 4, 5))
    text = "é€😀\x00\x7f\r\n" + LONG
    assert loaded.tokenizer.decode(loaded.tokenizer.encode(text).ids) == text
    with pytest.raises(UsageError, match=f"use {LEAST_VOCABULARY} to"):
        train_byte_pairs(SOURCES, LEAST_VOCABULARY - 1)
    with pytest.raises(UsageError, match="no texts"):
        train_byte_pairs([])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read"),
        (b"", "is not a tokenizer.json"),
        (b'{"model": {}}', "is not a"),
        (b"\xff\x00", "is not a"),
    ],
)
def test_a_file_that_is_no_tokenizer_is_refused(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "some.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=message):
        load_tokenizer(path)


def test_large_special_and_unknown_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("consumers.source_code.tokenizer._MOST_BYTES", 10)
    (tmp_path / "large.json").write_bytes(b"x" * 11)
    with pytest.raises(UsageError, match="has 11 bytes, over the limit of 10"):
        load_tokenizer(tmp_path / "large.json")
    with pytest.raises(UsageError, match="is not an ordinary file"):
        load_tokenizer("/dev/zero")
    with pytest.raises(UsageError, match="some/name cannot be read"):
        load_tokenizer("some/name")


def change(message: str, before: str, after: str) -> dict[str, Any]:
    return {"text": "", "kind": "evolution", "path": "a.py", "message": message, "before": before, "after": after}


def snapshot(text: str) -> dict[str, Any]:
    return {"text": text, "kind": "snapshot", "path": "a.py", "message": None, "before": None, "after": None}


def completed(windows: Windows, documents: list[dict[str, Any]]) -> pl.DataFrame:
    ids = pl.Series(range(len(documents)), dtype=pl.UInt64)
    rows = pl.DataFrame(documents, schema=dict.fromkeys(completions.COLUMNS, pl.String)).with_columns(example_id=ids)
    frames = [frame.with_columns(document=parents) for parents, frame in windows.sequences(rows, 1, 0)]
    return pl.concat([pl.DataFrame(schema={"part": pl.Int32(), **windows.schema, "document": pl.Int64()}), *frames])


@given(st.lists(st.tuples(st.booleans(), texts, texts, texts), min_size=1, max_size=4))
def test_a_language_model_learns_the_target_and_the_end_of_each_document(
    file: Path, drawn: list[tuple[bool, str, str, str]]
) -> None:
    documents = [change(*three) if changed else snapshot(three[0]) for changed, *three in drawn]
    windows = windows_of(file, window=4096, stride=4096, completions=True)
    loaded = load_tokenizer(file)
    found = completed(windows, documents)
    assert found["document"].to_list() == list(range(len(documents)))
    for row, document in zip(found.iter_rows(named=True), documents, strict=True):
        target = document["after"] if document["kind"] == "evolution" else document["text"]
        learned = [label for label in row["labels"] if label != NO_LABEL]
        assert learned[-1] == loaded.end
        assert loaded.tokenizer.decode(learned[:-1], skip_special_tokens=False) == target
        given_tokens = row["input_ids"][: len(row["labels"]) - len(learned)]
        assert row["labels"][: len(given_tokens)] == [NO_LABEL] * len(given_tokens)
        assert row["input_ids"][len(given_tokens) :] == learned
        prompt = loaded.tokenizer.decode(given_tokens, skip_special_tokens=False)
        assert (prompt == "") is (document["kind"] == "snapshot")
        assert (row["char_start"], row["char_end"]) == (0, len(prompt + target))


def test_windows_of_a_prompt_alone_are_left_out(file: Path, tmp_path: Path) -> None:
    documents = [change("message", "x = 1\n" * 40, "y = 2\n" * 3), snapshot("z = 3\n")]
    plain = completed(windows_of(file, window=16, stride=16, completions=True), documents)
    cached = windows_of(file, window=16, stride=16, completions=True, cache=tmp_path)
    for _ in range(2):
        assert completed(cached, documents).equals(plain)
    assert all(any(label != NO_LABEL for label in labels) for labels in plain["labels"])
    first = plain.filter(pl.col("document") == 0)["part"].to_list()
    assert first[0] > 5
    assert first == list(range(first[0], first[0] + len(first)))
    learned = [label for labels in plain.filter(pl.col("document") == 0)["labels"] for label in labels]
    assert load_tokenizer(file).tokenizer.decode([each for each in learned if each >= 0]) == "y = 2\n" * 3


def test_completions_need_an_end_token_and_exclude_masking(tmp_path: Path) -> None:
    text = json.loads(TRAINED)
    text["added_tokens"] = [each for each in text["added_tokens"] if each["content"] != "<|endoftext|>"]
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(text))
    with pytest.raises(UsageError, match="has no token that ends a text"):
        windows_of(path, completions=True)
    with pytest.raises(UsageError, match="both decide the labels"):
        FormOptions(tokenizer=path, completions=True, masking=0.1)
