"""The token cache: the same windows with and without it, whatever happens to its files."""

from __future__ import annotations

import logging
import os
import pickle
import shutil
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from consumers.form_options import FormOptions
from consumers.source_code import token_cache
from consumers.source_code.byte_pairs import train_byte_pairs
from consumers.source_code.form import code_form
from consumers.source_code.token_cache import COLUMNS, TokenCache
from consumers.source_code.windows import Windows
from schema.errors import UsageError
from schema.record import encode

TEXTS = ["def f(x):\n    return x\n" * count for count in (1, 7, 30)] + ["é€😀" * 40, ""]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    path.write_text(train_byte_pairs(TEXTS, 300))
    return path


def windows_of(file: Path, cache: Path | None, **options: Any) -> Windows:
    chosen = {"window": 32, "stride": 8, **options}
    expand = code_form(FormOptions(tokenizer=file, cache=cache, **chosen)).expand
    assert isinstance(expand, Windows)
    return expand


def expanded(windows: Windows, texts: list[str], epoch: int = 0) -> pl.DataFrame:
    rows = pl.DataFrame(
        {"text": texts, "example_id": range(len(texts))}, schema={"text": pl.String, "example_id": pl.UInt64}
    )
    frames = [frame.with_columns(document=parents) for parents, frame in windows.sequences(rows, 1, epoch)]
    return pl.concat([pl.DataFrame(schema={"part": pl.Int32(), **windows.schema, "document": pl.Int64()}), *frames])


def warm(windows: Windows, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the tokenizer fail from now on."""

    def fails(*_: object) -> None:
        raise AssertionError("the cache was not used")

    monkeypatch.setattr(Windows, "_encoded", fails)


@hypothesis_settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.text(st.characters(exclude_categories=("Cs",)) | st.sampled_from("\n def")), min_size=1, max_size=5),
    st.integers(1, 20),
    st.sampled_from([{}, {"masking": 0.3, "masking_form": "mask"}, {"masking": 0.3, "masking_form": "fim"}]),
)
def test_windows_are_the_same_cold_warm_and_without_a_cache(
    file: Path, tmp_path: Path, texts: list[str], stride: int, masking: dict[str, Any]
) -> None:
    plain = windows_of(file, None, stride=stride, **masking)
    cached = windows_of(file, tmp_path, stride=stride, **masking)
    for epoch in (0, 1, 0):
        assert expanded(cached, texts, epoch).equals(expanded(plain, texts, epoch))


def test_a_second_pass_does_not_tokenize(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = expanded(windows_of(file, None), TEXTS)
    assert expanded(windows_of(file, tmp_path), TEXTS).equals(plain)
    copied = pickle.loads(pickle.dumps(windows_of(file, tmp_path)))  # noqa: S301  # as loader workers get it
    warm(copied, monkeypatch)
    assert expanded(copied, TEXTS).equals(plain)
    # Another stride, other texts and another order are not in the cache.
    for other in (windows_of(file, tmp_path, stride=9), windows_of(file, tmp_path, window=33)):
        with pytest.raises(AssertionError, match="not used"):
            expanded(other, TEXTS)
    for texts in (TEXTS[:-1], TEXTS[::-1], [*TEXTS[:-1], "x"]):
        with pytest.raises(AssertionError, match="not used"):
            expanded(copied, texts)


def rows(tokens: list[list[int | None]], places: list[list[int]]) -> bytes:
    return encode(pl.DataFrame({"tokens": tokens, "places": places, "prompt": [0] * len(tokens)}, schema=COLUMNS))


def flipped(value: bytes) -> bytes:
    """Return the file with another bit in a byte of its Arrow part."""
    return value[:-40] + bytes([value[-40] ^ 1]) + value[-39:]


@pytest.mark.parametrize(
    "damage",
    [
        lambda value: b"",
        lambda value: value[: len(value) // 2],
        lambda value: b"x" * len(value),
        flipped,
        lambda value: rows([[1]], [[0, 1, 1, 1]]),
        lambda value: rows([[1]] * 5, [[0, 1, 1, 1]] * 5),
        lambda value: rows([[10**6]] * 4 + [[]], [[0, 1, 1, 1]] * 4 + [[]]),
        lambda value: rows([[-1]] * 4 + [[]], [[0, 1, 1, 1]] * 4 + [[]]),
        lambda value: rows([[None]] * 4 + [[]], [[0, 1, 1, 1]] * 4 + [[]]),
        lambda value: rows([[1]] * 4 + [[]], [[0, 10**6, 1, 1]] * 4 + [[]]),
        lambda value: rows([[1]] * 4 + [[]], [[0, 1, 1]] * 4 + [[]]),
        lambda value: encode(pl.DataFrame({"tokens": ["a"] * 5, "places": [[1]] * 5})),
    ],
)
@pytest.mark.parametrize("with_checksum", [False, True])
def test_a_damaged_file_is_made_again(
    file: Path, tmp_path: Path, damage: Any, with_checksum: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    windows = windows_of(file, tmp_path)
    plain = expanded(windows, TEXTS)
    (kept,) = tmp_path.rglob("*.arrow")
    value = damage(kept.read_bytes())
    if with_checksum and damage is not flipped:
        # Even a file with a right checksum is not believed.
        value = token_cache._checksum(kept.stem, value) + value
    kept.write_bytes(value)
    assert expanded(windows, TEXTS).equals(plain)
    warm(windows, monkeypatch)
    assert expanded(windows, TEXTS).equals(plain)


def test_a_folder_that_cannot_be_written_is_named_once(
    file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    windows = windows_of(file, blocked)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert expanded(windows, TEXTS).equals(expanded(windows_of(file, None), TEXTS))
    assert [f"{blocked} cannot be written" in record.getMessage() for record in caplog.records] == [True]


def test_the_least_recently_used_files_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_cache, "_LOOK_WRITES", 1)
    frame = pl.DataFrame({"tokens": [[1] * 1000], "places": [[0, 1, 1, 1]], "prompt": [0]}, schema=COLUMNS)
    size = len(encode(frame)) + 20
    cache = TokenCache(tmp_path, 3 * size)
    keys = [f"{number:02d}" * 20 for number in range(5)]
    killed = tmp_path / "00" / ".killed.part"
    for number, key in enumerate(keys[:3]):
        cache.write(key, frame)
        os.utime(cache._path(key), (1000 + number, 1000 + number))
    killed.write_text("left over")
    os.utime(killed, (1000, 1000))
    assert cache.read(keys[0], 1) is not None
    monkeypatch.setattr(token_cache, "_LOOK_WRITES", 2)
    for key in keys[3:]:
        cache.write(key, frame)
    monkeypatch.setattr(token_cache, "_LOOK_WRITES", 1)
    cache._make_room()
    assert [cache.read(key, 1) is not None for key in keys] == [True, False, False, True, True]
    assert not killed.exists()


def test_cache_bytes_below_one_are_refused(file: Path) -> None:
    with pytest.raises(UsageError, match="cache_bytes is 0"):
        FormOptions(tokenizer=file, cache="x", cache_bytes=0)


def _in_process(file: Path, cache: Path, number: int) -> str:
    texts = [f"{text}{part}" for part in range(40) for text in TEXTS]
    return str(expanded(windows_of(file, cache), texts).hash_rows().sum()) if number >= 0 else ""


@pytest.mark.slow
def test_processes_share_a_cache(file: Path, tmp_path: Path) -> None:
    with ProcessPoolExecutor(3, mp_context=get_context("spawn")) as pool:
        found = set(pool.map(_in_process, [file] * 6, [tmp_path] * 6, range(6)))
    assert found == {_in_process(file, tmp_path, 0)}
    shutil.rmtree(tmp_path)
    assert found == {_in_process(file, tmp_path, 0)}
    assert not list(tmp_path.rglob("*.part"))
