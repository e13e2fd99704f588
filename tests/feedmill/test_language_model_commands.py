"""`feedmill train` and `generate` of code and scenarios: run files, cards, resumes, prompts, lines of errors."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from broker.clients import Connection
from consumers.language_model import quantization
from consumers.scenario.byte_tokenizer import SPECIAL, byte_tokenizer
from consumers.scenario.byte_tokens import BOS, EOS, FIRST_BYTE, PAD, SEP
from consumers.source_code.byte_pairs import train_byte_pairs
from schema.family import identify
from schema.scenario import FAMILY as SCENARIO
from schema.source_code import FAMILY
from tests import scenarios
from tests.consumers.records import write
from tests.feedmill.conftest import Command, caller
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
    assert (report["steps"], report["train_rows"]["passed"]) == (3, report["train_rows"]["rows"])
    card = (out / "README.md").read_text()
    assert "A causal language model of code" in card
    assert f"{report['train_rows']['passed']}/{report['train_rows']['rows']} rows" in card
    # The run's own file and its own tokenizer are enough to resume.
    monkeypatch.chdir(tmp_path)
    tokenizer.rename(tokenizer.with_suffix(".moved"))
    status, _, err = called("train", "code", "--resume", "--out", str(out), "--steps", "5")
    tokenizer.with_suffix(".moved").rename(tokenizer)
    assert status == 0, err
    assert "in 5 steps" in err
    assert "\n  steps: 5\n" in (out / "run.yml").read_text()
    # Rows that were retracted since stop a resume, and the option that the error names goes on without them.
    withdrawn = documents.filter(pl.col("split") == "train")["example_id"][0]
    status, _, err = called("forget", "code", "--where", f"example_id = {withdrawn}")
    assert status == 0, err
    again = ("train", "code", "--resume", "--out", str(out), "--steps", "6")
    status, _, err = called(*again)
    assert (status, "--leave-out-retracted" in err) == (1, True)
    status, _, err = called(*again, "--leave-out-retracted")
    assert status == 0, err
    assert "in 6 steps" in err
    status, printed, err = called("generate", "code", "--model", str(out), "fn main() {", "--max-new-tokens", "4")
    assert status == 0, err
    row = json.loads(printed)
    assert (row["prompt"], row["tokens"] <= 4) == ("fn main() {", True)
    # A trial of a sweep is a run in a process of its own.
    sweep = ["--base-cfg", str(file), "--tokenizer", str(tokenizer), "--steps", "2", "--out", str(tmp_path / "sweep")]
    status, printed, err = called("sweep", *sweep, "--trials", "2", "--dry-run")
    assert (status, printed.count("sequence_length: 64"), printed.count("# trial ")) == (0, 2, 2), err
    assert not (tmp_path / "sweep").exists()
    status, printed, err = called("sweep", *sweep, "--trials", "1", "--json")
    assert status == 0, err
    (trial,) = json.loads(printed)["trials"]
    assert (trial["state"], trial["metric"] > 1) == ("complete", True)
    assert json.loads((tmp_path / "sweep" / "sweep.json").read_text())["trials"] == [trial]
    assert (tmp_path / "sweep" / "sweep.png").read_bytes().startswith(b"\x89PNG")
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"prompt": "def ", "task_id": "a"}\n{"prompt": 3}\n')
    status, _, err = called("generate", "code", "--model", str(out), "--prompt-file", str(prompts))
    assert (status, "prompts.jsonl, line 2: it is no JSON object with a text `prompt`" in err) == (2, True)


def test_a_folder_without_a_run_cannot_be_resumed(tmp_path: Path, called: Command) -> None:
    status, _, err = called("train", "code", "--resume", "--out", str(tmp_path))
    assert (status, "give --config for a new run" in err) == (1, True)
    status, _, err = called("train", "code")
    assert (status, "--config is missing" in err) == (2, True)


@pytest.mark.slow
def test_4_bits_are_refused_without_a_gpu_before_any_work(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    called = caller(capfd)
    monkeypatch.setenv("FEEDMILL_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(quantization, "_has_gpu", lambda: False)
    file, out = tmp_path / "run.yml", str(tmp_path / "out")
    file.write_text("model: {load_from: x, lora: {quantize: 4bit}}\ntrain: {steps: 1}\n")
    for command in (
        ["train", "code", "--config", str(file), "--out", out],
        ["train", "scenario", "--config", str(file), "--out", out],
        ["sweep", "--base-cfg", str(file), "--out", out],
        ["generate", "code", "--model", str(tmp_path), "--quantize", "4bit", "fn main() {"],
        ["generate", "scenario", "--model", str(tmp_path), "--quantize", "4bit", "--context", "a", "--request", "b"],
    ):
        status, printed, err = called(*command)
        assert (status, printed, err.count("\n")) == (2, "", 1)
        assert "quantize: 4bit needs a GPU, and torch finds none on this machine: leave quantize out" in err
        assert not Path(out).exists() and not (tmp_path / "data").exists()
    status, _, err = called("sweep", "--base-cfg", str(file), "--out", out, "--dry-run", "--trials", "1")
    assert status == 0, err
    file.write_text("model: {load_from: x, lora: {quantize: 8bit}}\ntrain: {steps: 1}\n")
    for command, line in (
        (["train", "code", "--config", str(file), "--out", out], "no value '8bit': did you mean 4bit?"),
        (["generate", "code", "--model", out, "--quantize", "8bit", "x"], "'8bit' is not one of '4bit'"),
    ):
        status, _, err = called(*command)
        assert (status, line in err) == (2, True), err


@pytest.mark.slow
def test_a_model_of_scenarios_learns_responses_and_writes_one(
    connection: Connection, tmp_path: Path, called: Command
) -> None:
    write(connection, scenarios.valid_rows(60), rows_per_record=32, family=SCENARIO)
    file, out = tmp_path / "run.yml", tmp_path / "out"
    model = "model: {hidden_size: 16, layers: 1, heads: 2}\n"
    file.write_text(model + "train: {sequence_length: 1024, batch_size: 2, learning_rate: 1e-2, steps: 4}\n")
    status, printed, err = called("train", "scenario", "--config", str(file), "--out", str(out), "--json")
    assert status == 0, err
    report = json.loads(printed)
    assert report["last_loss"] < report["first_loss"]
    assert sum(report["train_rows"]["kinds"].values()) == report["train_rows"]["rows"]
    assert "A causal language model of scenarios" in (out / "README.md").read_text()
    asked = ["--context", "Someone is tired.", "--request", "What should I do?"]
    status, printed, err = called("generate", "scenario", "--model", str(out), *asked, "--max-new-tokens", "5")
    assert status == 0, err
    assert json.loads(printed)["prompt"] == "<s>Someone is tired.<sep>What should I do?<sep>"
    # The tokens of the prompt are those of training.
    names = AutoTokenizer.from_pretrained(out)
    tokens = names(json.loads(printed)["prompt"])["input_ids"]
    texts = [text.encode() for text in ("Someone is tired.", "What should I do?")]
    assert tokens == [
        BOS,
        *(FIRST_BYTE + byte for byte in texts[0]),
        SEP,
        *(FIRST_BYTE + byte for byte in texts[1]),
        SEP,
    ]
    for wrong, line in (
        ("dataset: {exclude_tests: true}\ntrain: {steps: 1}", "exclude_tests applies to code only"),
        ("train: {steps: 1, curriculum: true}", "curriculum applies to code only"),
        ("model: {base: x}\ntrain: {steps: 1}", "a token for each byte"),
    ):
        file.write_text(wrong)
        status, _, err = called("train", "scenario", "--config", str(file), "--out", str(tmp_path / "wrong"))
        assert (status, line in err) == (2, True), err


@given(st.text(st.characters(exclude_categories=("Cs",))))
def test_the_byte_tokenizer_has_the_tokens_of_the_family(text: str) -> None:
    tokenizer = Tokenizer.from_str(byte_tokenizer())
    tokenizer.encode_special_tokens = True
    assert tokenizer.encode(text).ids == [FIRST_BYTE + byte for byte in text.encode()]
    assert tokenizer.decode(tokenizer.encode(text).ids) == text
    assert {name: tokenizer.token_to_id(name) for name in SPECIAL} == {
        "<pad>": PAD,
        "<s>": BOS,
        "<sep>": SEP,
        "</s>": EOS,
    }
