"""`feedmill train code` on a real Kafka: it learns, resumes exactly, filters documents, and writes a card."""

from __future__ import annotations

import json
import signal
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from broker.clients import Connection
from consumers.language_model.run_file import RunFile, parse_run_file
from consumers.language_model.saved_model import ADAPTER_FILES
from consumers.language_model.training import CodeTraining
from consumers.source_code.byte_pairs import train_byte_pairs
from consumers.source_code.document_filters import DocumentFilters
from consumers.train_rows import count_rows
from consumers.training.ranks import ALONE
from consumers.training.report import Step, TrainReport
from consumers.training.stopping import StopRequest
from schema.errors import TrainingStoppedError, UsageError
from schema.family import identify
from schema.source_code import FAMILY
from schema.source_code.filters import is_documented, is_idiomatic
from tests.consumers.language_model.tiny import quantising_on_the_cpu
from tests.consumers.records import write
from tests.source_code import valid_rows

STEPS = 12
TINY = "model: {base: tiny, hidden_size: 16, layers: 1, heads: 2}\n"
TRAIN = f"train: {{sequence_length: 64, batch_size: 4, learning_rate: 1e-2, steps: {STEPS}, warmup_steps: 2, "
TRAIN += "checkpoint_every: 4, held_out_rows: 8}\n"


@pytest.fixture(scope="module")
def documents() -> pl.DataFrame:
    """Documents of which some are in each split."""
    rows = valid_rows(60).with_row_index("number")
    return identify(rows.with_columns(group=pl.format("group {}", "number")).drop("number"), FAMILY)


@pytest.fixture
def clean(connection: Connection, documents: pl.DataFrame) -> Connection:
    write(connection, documents, rows_per_record=8, family=FAMILY)
    return connection


@pytest.fixture(scope="module")
def tokenizer(documents: pl.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    path.write_text(train_byte_pairs(documents["text"], 400))
    return path


def run_file(tokenizer: Path, more: str = "", train: str = TRAIN) -> RunFile:
    made = parse_run_file((TINY + train + more).encode(), "x.yml")
    return made.model_copy(update={"model": made.model.model_copy(update={"tokenizer": str(tokenizer)})})


def trained(
    connection: Connection, out: Path, file: RunFile, *, stop_after: int | None = None, resume: bool = False
) -> TrainReport:
    training = CodeTraining(file, connection, out, out.parent / "tokens", resume=resume)
    stop = StopRequest()

    def watch(step: Step) -> None:
        if step.number == stop_after:
            stop.heed(signal.SIGTERM, None)

    return training.train(training.options(ALONE, replace=False), ALONE, stop, watch)


def test_a_run_learns_and_one_that_was_stopped_resumes_exactly(
    clean: Connection, tokenizer: Path, tmp_path: Path
) -> None:
    # Dropout of an adapter draws random numbers at every step; the adapter's base is the first run.
    first = trained(clean, tmp_path / "first", run_file(tokenizer))
    assert first.last_loss < first.first_loss
    assert first.padding_share < 0.1
    assert first.judgement.figures["held_out_tokens"] > 0
    assert json.loads((tmp_path / "first" / "training.json").read_text())["perplexity"] > 1
    lora = parse_run_file(
        f"model: {{load_from: {tmp_path / 'first'}, lora: {{r: 4, dropout: 0.3}}}}\n{TRAIN}".encode(), "x.yml"
    )
    whole = trained(clean, tmp_path / "whole", lora)
    with pytest.raises(TrainingStoppedError):
        trained(clean, tmp_path / "stopped", lora, stop_after=6)
    resumed = trained(clean, tmp_path / "stopped", lora, resume=True)
    assert resumed.resumed_from == 6
    assert resumed.losses == whole.losses
    saved = json.loads((tmp_path / "whole" / f"step-{STEPS:08d}" / "trainer.json").read_text())
    assert [Path(each["checkpoint"]).parent.name for each in saved["ancestors"]] == ["first"]


def test_an_adapter_on_a_base_in_4_bits_resumes_exactly_and_only_in_4_bits(
    clean: Connection, tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quantising_on_the_cpu(monkeypatch)
    trained(clean, tmp_path / "first", run_file(tokenizer))

    def lora(more: str) -> RunFile:
        values = f"model: {{load_from: {tmp_path / 'first'}, lora: {{r: 4, dropout: 0.3{more}}}}}\n"
        train = TRAIN.replace("steps: 12", "steps: 12, eval_every: 3, gradient_checkpointing: true")
        return parse_run_file((values + train).encode(), "x.yml")

    whole = trained(clean, tmp_path / "whole", lora(", quantize: 4bit"))
    assert whole.losses != trained(clean, tmp_path / "plain", lora("")).losses
    with pytest.raises(TrainingStoppedError):
        trained(clean, tmp_path / "stopped", lora(", quantize: 4bit"), stop_after=6)
    with pytest.raises(UsageError, match="of a run with quantize 4bit, but None is asked for"):
        trained(clean, tmp_path / "stopped", lora(""), resume=True)
    resumed = trained(clean, tmp_path / "stopped", lora(", quantize: 4bit"), resume=True)
    assert resumed.resumed_from == 6
    assert resumed.losses == whole.losses
    assert resumed.judgement == whole.judgement
    assert {path.name for path in (tmp_path / "stopped").iterdir()} >= set(ADAPTER_FILES)


def test_epochs_are_steps_and_a_curriculum_takes_simple_documents_first(
    clean: Connection, documents: pl.DataFrame, tokenizer: Path, tmp_path: Path
) -> None:
    train = "train: {sequence_length: 64, batch_size: 4, epochs: 3, curriculum: true}\n"
    training = CodeTraining(run_file(tokenizer, train=train), clean, tmp_path / "out", tmp_path / "tokens")
    batches = list(training.feed())
    assert training.options(ALONE, replace=False).budget.steps == 3 * len(batches)
    # A run that is resumed keeps its length, although the topic has grown.
    with pytest.raises(TrainingStoppedError):
        trained(clean, tmp_path / "out", training.file, stop_after=2)
    write(clean, documents, rows_per_record=8, family=FAMILY)
    resumed = replace(training, resume=True)
    assert resumed.options(ALONE, replace=False).budget.steps == 3 * len(batches)


def test_an_earlier_run_and_another_tokenizer_exclude_each_other(
    clean: Connection, tokenizer: Path, tmp_path: Path
) -> None:
    with pytest.raises(TrainingStoppedError):
        trained(clean, tmp_path / "first", run_file(tokenizer), stop_after=1)
    other = tmp_path / "tokenizer.json"
    other.write_text(train_byte_pairs(["something else"], 300))
    file = run_file(other)
    later = file.model_copy(update={"model": file.model.model_copy(update={"load_from": str(tmp_path / "first")})})
    with pytest.raises(UsageError, match="has another tokenizer than"):
        trained(clean, tmp_path / "later", later)


def test_filters_are_those_of_the_refine_stage_and_every_reason_is_counted(
    clean: Connection, documents: pl.DataFrame
) -> None:
    longest = int(documents["characters"].max())  # type: ignore[arg-type]
    filters = DocumentFilters(
        min_length=200,
        max_length=longest - 1,
        exclude_tests=True,
        exclude_examples=True,
        exclude_benches=True,
        prefer_idiomatic=True,
        prefer_documented=True,
        languages=("python",),
        where="nesting >= 0) OR (nesting < 0 -- all",
        others_share=0.4,
        others_seed=3,
    )
    with pytest.raises(UsageError):
        count_rows(clean, FAMILY, DocumentFilters(where="1 = 1)) OR ((1 = 1").conditions(), "kind")
    counts = count_rows(clean, FAMILY, filters.conditions(), "kind")
    train = documents.filter(pl.col("split") == "train")
    own = {
        "text_too_short": pl.col("characters") >= 200,
        "text_too_long": pl.col("characters") < longest,
        "test": pl.col("role") != "tests",
        "example": ~pl.col("path").str.contains("examples?/"),
        "bench": ~pl.col("path").str.contains("bench"),
        "not_idiomatic": is_idiomatic(),
        "not_documented": is_documented(),
        "other_language": pl.col("language") == "python",
        "where": pl.lit(True),
        "other_share": (pl.col("example_id") % 10_007 + 3 * 3_823 % 10_007) % 10_007 < 4_003,
    }
    assert counts.rows == train.height
    assert counts.filtered == {name: train.filter(~test).height for name, test in own.items()}
    passed = train.filter(pl.all_horizontal(*own.values()))
    assert counts.passed == passed.height
    assert sum(counts.kinds.values()) == counts.passed
    assert f"{counts.passed}/{counts.rows} rows" in str(counts)
