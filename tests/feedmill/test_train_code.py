"""`feedmill train code` and `generate code`: run files, model cards, resumes, prompts, and lines of errors."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from broker.clients import Connection
from consumers.source_code.byte_pairs import train_byte_pairs
from schema.family import identify
from schema.source_code import FAMILY
from tests.consumers.records import write
from tests.feedmill.conftest import Command
from tests.source_code import valid_rows

RUN_FILE = """
model: {base: tiny, hidden_size: 16, layers: 1, heads: 2}
train: {sequence_length: 64, batch_size: 4, learning_rate: 1e-2, steps: 12, held_out_rows: 8}
"""


@pytest.mark.slow
def test_the_command_trains_writes_a_card_and_generates(
    connection: Connection, tmp_path: Path, called: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents = valid_rows(40).with_row_index("number")
    documents = identify(documents.with_columns(group=pl.format("group {}", "number")).drop("number"), FAMILY)
    write(connection, documents, family=FAMILY)
    tokenizer = tmp_path / "tokenizer.json"
    tokenizer.write_text(train_byte_pairs(documents["text"], 400))
    file, out = tmp_path / "run.yml", tmp_path / "out"
    file.write_text(RUN_FILE)
    status, _, err = called("train", "code", "--config", str(file), "--out", str(out))
    assert (status, "needs a tokenizer" in err) == (2, True)
    arguments = ["--config", str(file), "--tokenizer", str(tokenizer), "--out", str(out), "--steps", "3"]
    status, printed, err = called("train", "code", *arguments, "--json")
    assert status == 0, err
    report = json.loads(printed)
    assert (report["steps"], report["documents"]["passed"]) == (3, report["documents"]["documents"])
    card = (out / "README.md").read_text()
    assert "A causal language model of code" in card
    assert f"{report['documents']['passed']}/{report['documents']['documents']} documents" in card
    # The run's own file and its own tokenizer are enough to resume.
    monkeypatch.chdir(tmp_path)
    tokenizer.rename(tokenizer.with_suffix(".moved"))
    status, _, err = called("train", "code", "--resume", "--out", str(out), "--steps", "5")
    tokenizer.with_suffix(".moved").rename(tokenizer)
    assert status == 0, err
    assert "in 5 steps" in err
    status, printed, err = called("generate", "code", "--model", str(out), "fn main() {", "--max-new-tokens", "4")
    assert status == 0, err
    row = json.loads(printed)
    assert (row["prompt"], row["tokens"] <= 4) == ("fn main() {", True)
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"prompt": "def ", "task_id": "a"}\n{"prompt": 3}\n')
    status, _, err = called("generate", "code", "--model", str(out), "--prompt-file", str(prompts))
    assert (status, "prompts.jsonl, line 2: it is no JSON object with a text `prompt`" in err) == (2, True)


def test_a_folder_without_a_run_cannot_be_resumed(tmp_path: Path, called: Command) -> None:
    status, _, err = called("train", "code", "--resume", "--out", str(tmp_path))
    assert (status, "give --config for a new run" in err) == (1, True)
    status, _, err = called("train", "code")
    assert (status, "--config is missing" in err) == (2, True)
