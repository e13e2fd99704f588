"""`feedmill iterate` with real Kafka, workers, compiler and training; only what the model writes is made up."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import polars as pl
import pytest

from broker.clients import Connection
from consumers.expert_iteration import completions
from consumers.expert_iteration.prompts import FunctionPrompt
from consumers.language_model.generation import Sampling
from consumers.source_code.byte_pairs import train_byte_pairs
from feedmill.services import running
from producers.sink import send_frames
from schema.family import identify
from schema.record import RAW
from schema.source_code import FAMILY
from tests.feedmill.conftest import Command
from tests.integration import workers
from tests.source_code import valid_rows

RUN_FILE = """
model: {base: tiny, hidden_size: 16, layers: 1, heads: 2}
dataset: {min_length: 0, others_share: 0.5}
train: {sequence_length: 256, batch_size: 4, learning_rate: 1e-2, steps: 2, held_out_rows: 4}
"""
# What the model "writes": one body that compiles, and one that does not.
BODIES = ("\n    Some(vec![limit_{number}])\n}}", " 1 }}")


def made_up(
    model: str, prompts: Sequence[FunctionPrompt], sampling: Sampling, on_progress: Callable[[int], object]
) -> list[str]:
    names = [each.prompt.rpartition("limit_")[2].partition(":")[0] for each in prompts]
    bodies = (BODIES[number % 2 if sampling.temperature else 0] for number in range(len(prompts)))
    return [body.format(number=name) for body, name in zip(bodies, names, strict=True)]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_rounds_write_keep_send_and_train(
    connection: Connection, tmp_path: Path, called: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents = valid_rows(120).with_row_index("number")
    documents = identify(documents.with_columns(group=pl.format("group {}", "number")).drop("number"), FAMILY)
    file, tokenizer = tmp_path / "run.yml", tmp_path / "tokenizer.json"
    file.write_text(RUN_FILE)
    tokenizer.write_text(train_byte_pairs(documents["text"], 400))
    monkeypatch.setattr(completions, "complete", made_up)
    out = tmp_path / "iteration"
    start, command = tmp_path / "start", ["iterate", "--config", str(file), "--out", str(out), "--json", "--control"]
    command += ["--load-from", str(start), "--rounds", "1", "--prompts", "6", "--samples", "2", "--held-out", "2"]
    command += ["--min-idiomatic", "0", "--max-new-tokens", "16"]
    with running(connection.settings, connection.servers, workers=1):
        send_frames(connection, FAMILY, "people", [documents])
        assert called("drain", "code")[0] == 0
        status, _, err = called(
            "train", "code", "--config", str(file), "--tokenizer", str(tokenizer), "--out", str(start)
        )
        assert status == 0, err
        status, printed, err = called(*command)
        assert status == 0, err
        results = json.loads(printed)
        first, last = results["rounds"]
        assert (first["compile_rate"], first["samples"]) == (1.0, 2)
        assert (last["written"]["samples"], last["written"]["compiled"], last["kept"]) == (12, 6, 6)
        assert last["left_out"] == {"not_compiled": 6}
        assert (last["sent"], last["new_on_clean"], last["steps"]) == (6, 6, 2)
        [control] = results["control"]
        assert (control["steps"], "kept" in control) == (2, False)
        kept = workers.clean(connection, FAMILY).filter(pl.col("origin") == "expert")
        assert kept["split"].to_list() == ["train"] * 6
        assert (kept["text"].str.starts_with(kept["prompt"])).all()
        trained = json.loads((out / "round-1" / "model" / "training.json").read_text())
        assert trained["steps"] == 2
        assert "| completion | 6 |" in (out / "round-1" / "model" / "README.md").read_text()
        assert "completion" not in (out / "control-1" / "model" / "README.md").read_text()

        # The same command again finds all steps done; after a kill it does the missing ones, and no row counts twice.
        sent = len(workers.records(connection, RAW, FAMILY))
        assert json.loads(called(*command)[1]) == results
        assert len(workers.records(connection, RAW, FAMILY)) == sent
        (out / "round-1" / "sent.json").unlink()
        status, printed, err = called(*command)
        assert status == 0, err
        assert json.loads(printed)["rounds"][1]["new_on_clean"] == 6
        workers.check_accounts(connection, FAMILY)
        rejected, _ = workers.rejected(connection, FAMILY)
        assert rejected.filter(pl.col("origin") == "expert")["reasons"].to_list() == [["duplicate"]] * 6
        status, _, err = called(*command, "--seed", "1")
        assert (status, "with another sampling" in err) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--language", "cobol"], "there is no judge for cobol"),
        (["--max-new-tokens", "4096"], "leaves no room for a prompt"),
        (["--max-warnings", "-1"], "--max-warnings is at least 0"),
        (["--temperature", "-1"], "temperature -1.0 and top_p"),
        ([], "phase2 holds no checkpoint"),
    ],
)
def test_odd_requests_are_refused_and_leave_nothing(
    called: Command, tmp_path: Path, arguments: list[str], line: str
) -> None:
    command = ["iterate", "--config", "expert.yml", "--load-from", "phase2", "--out", str(tmp_path / "out")]
    status, _, err = called(*command, *arguments)
    assert (status > 0, line in err) == (True, True), err
    assert not (tmp_path / "out").exists()
