"""Prompts are functions of the topic that compile, and held-out ones share nothing with a training row."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import polars as pl
import pytest

from broker.clients import Connection
from consumers.code_evaluation.samples import CodeSample
from consumers.code_evaluation.verdicts import CodeVerdict, Judged
from consumers.expert_iteration.prompts import FunctionPrompt, PromptSets, choose_prompts, without_overlap
from schema.family import identify
from schema.source_code import FAMILY
from tests.consumers.records import write
from tests.source_code import valid_rows


def judge(samples: Iterable[CodeSample]) -> Iterator[CodeVerdict]:
    """Say that every function compiles but those of boxes."""
    for sample in samples:
        yield CodeVerdict(sample.task_id, None, Judged("boxes" not in sample.program), 0.5, True)


@pytest.fixture
def clean(connection: Connection) -> Connection:
    rows = valid_rows(200).with_row_index("number")
    rows = identify(rows.with_columns(group=pl.format("group {}", "number")).drop("number"), FAMILY)
    write(connection, rows, family=FAMILY)
    return connection


def chosen(connection: Connection, seed: int = 0, training: int = 20) -> PromptSets:
    return choose_prompts(
        connection, "rust", judge, training=training, held_out=5, fits=lambda prompt: len(prompt) < 1000, seed=seed
    )


def test_prompts_are_drawn_by_split_and_seed(clean: Connection) -> None:
    sets = chosen(clean)
    assert {each.split for each in sets.training} == {"train"}
    assert "train" not in {each.split for each in sets.held_out}
    assert (len(sets.training), len(sets.held_out)) == (20, 5)
    assert sets.judged["training"] >= 20
    assert all(each.prompt.startswith("/// Returns the") and each.prompt.endswith("{") for each in sets.training)
    assert not any("boxes" in each.prompt for each in (*sets.training, *sets.held_out))
    assert chosen(clean) == sets
    assert chosen(clean, seed=1).training != sets.training
    shorter = choose_prompts(
        clean, "rust", judge, training=1000, held_out=5, fits=lambda prompt: "letters" not in prompt, seed=0
    )
    assert shorter.training and not any("letters" in each.prompt for each in (*shorter.training, *shorter.held_out))
    every = chosen(clean, training=1000)
    assert any("letters" in each.prompt for each in every.training)
    assert len(every.training) < every.found["training"] == every.judged["training"]


def prompt(body: str) -> FunctionPrompt:
    return FunctionPrompt("1", "fn f() {", body, "val", "rust", "r", "p", None, "g")


WORDS = " ".join(f"word{number}" for number in range(40))


def test_thirteen_shared_words_are_an_overlap_and_twelve_are_none() -> None:
    words = WORDS.split()
    prompts = [prompt(f" {WORDS} }}"), prompt(" other }")]
    thirteen, twelve = " ".join(["a", *words[5:18], "b"]), " ".join(["a", *words[5:17], "b"])
    assert without_overlap(prompts, [pl.Series([twelve])]) == prompts
    assert without_overlap(prompts, [pl.Series(["x"]), pl.Series([thirteen.upper()])]) == prompts[1:]
    assert without_overlap([], [pl.Series([thirteen])]) == []
