"""No near duplicates between the splits of real trees: all pairs are compared exactly, by code of this test only."""

from __future__ import annotations

import re
import shutil
import sysconfig
from collections import Counter
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import polars as pl
import pytest

from producers.run import generate
from producers.source_code.run import CodeRun
from schema.family import identify
from schema.source_code import FAMILY
from tests.crates import fetch_crates

pytestmark = pytest.mark.slow

SIMILAR = 0.7
WORD = re.compile(r"[a-z0-9\x80-\U0010ffff]+")
# Folders of the standard library with many near duplicates, 10 MB together.
FOLDERS = ["asyncio", "email", "encodings", "json", "lib2to3", "test/test_asyncio", "test/test_email", "unittest"]

Shingle = tuple[str, ...]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> pl.DataFrame:
    """The documents of a part of the standard library, tests included: each file is a group of its own."""
    top = tmp_path_factory.mktemp("library")
    for name in FOLDERS:
        # Some installations of Python have no tests, and later versions no lib2to3.
        if (folder := Path(sysconfig.get_paths()["stdlib"]) / name).is_dir():
            shutil.copytree(folder, top / name)
    return documents(top)


@pytest.fixture(scope="module")
def crates(tmp_path_factory: pytest.TempPathFactory) -> pl.DataFrame:
    """The documents of real crates: each crate is a group of its own."""
    return documents(fetch_crates(tmp_path_factory.mktemp("cargo")))


def documents(top: Path) -> pl.DataFrame:
    return pl.concat(generate(CodeRun(paths=[str(top)])))


def shingles(text: str) -> set[Shingle]:
    words = WORD.findall(text.lower())
    return set(zip(*(words[at:] for at in range(5)), strict=False)) or {tuple(words)}


def pairs_apart(rows: pl.DataFrame) -> Iterator[tuple[str, str, float]]:
    """Yield the near duplicates of which one is in train and the other is not: their paths and their similarity."""
    rest = rows.filter(pl.col("split") != "train")
    sets = [shingles(text) for text in rest["text"]]
    holders: dict[Shingle, list[int]] = {}
    for number, shingled in enumerate(sets):
        for shingle in shingled:
            holders.setdefault(shingle, []).append(number)
    for text, path in rows.filter(split="train").select("text", "path").iter_rows():
        mine = shingles(text)
        shared = Counter(chain.from_iterable(holders[shingle] for shingle in mine if shingle in holders))
        for number, count in shared.items():
            similarity = count / (len(mine) + len(sets[number]) - count)
            if similarity >= SIMILAR:
                yield path, rest["path"][number], similarity


@pytest.mark.parametrize("tree", ["library", "crates"])
def test_train_has_no_near_duplicate_of_a_document_of_another_split(tree: str, request: pytest.FixtureRequest) -> None:
    rows = request.getfixturevalue(tree)
    assert set(rows["split"]) == {"train", "val", "test"}
    assert list(pairs_apart(rows)) == []


@pytest.mark.parametrize("tree", ["library", "crates"])
def test_a_split_by_files_alone_would_have_near_duplicates(tree: str, request: pytest.FixtureRequest) -> None:
    by_file = request.getfixturevalue(tree).with_columns(group=pl.concat_str("repository", "path", separator="/"))
    assert list(pairs_apart(identify(by_file, FAMILY)))


def test_near_duplicates_of_two_crates_are_in_train_and_the_other_files_stay_together(crates: pl.DataFrame) -> None:
    moved = crates.filter(pl.col("group") != pl.col("repository"))
    assert set(moved["split"]) == {"train"}
    assert moved.filter(pl.col("path") == "rustfmt.toml")["repository"].sort().to_list() == ["aho-corasick", "memchr"]
    stayed = crates.filter(pl.col("group") == pl.col("repository"))
    assert stayed.group_by("repository").agg(pl.col("split").n_unique())["split"].max() == 1
