"""The search for settings: what it varies, that it goes on after a stop, and that failures do not end it."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from consumers.language_model.run_file import RunFile, parse_run_file
from consumers.language_model.sweep import STUDY, Sweep, TrialFailedError, planned, space, trial_file
from schema.errors import UsageError

PLAIN = parse_run_file(b"train: {sequence_length: 1024, batch_size: 8, steps: 5}", "x.yml")
LORA = parse_run_file(b"model: {lora: {}}\ntrain: {sequence_length: 512, steps: 5}", "x.yml")


def loss(file: RunFile) -> float:
    """Best at a rate of 2e-4."""
    return abs(file.train.learning_rate - 2e-4)


def test_a_sweep_varies_the_rate_the_rows_and_the_adapter() -> None:
    assert set(space(PLAIN)) == {"learning_rate", "sequence_length"}
    assert set(space(LORA)) == {"learning_rate", "sequence_length", "r", "alpha"}
    made = trial_file(PLAIN, {"learning_rate": 1e-4, "sequence_length": 256})
    assert (made.train.learning_rate, made.train.sequence_length, made.train.batch_size) == (1e-4, 256, 32)
    made = trial_file(LORA, {"learning_rate": 1e-4, "sequence_length": 512, "r": 4, "alpha": 64})
    assert made.model.lora is not None
    assert (made.model.lora.r, made.model.lora.alpha, made.model.lora.dropout) == (4, 64, 0.05)


def test_a_stopped_sweep_goes_on_and_tries_the_stopped_trial_again(tmp_path: Path) -> None:
    tried: list[RunFile] = []

    def stopped(number: int, file: RunFile) -> float:
        tried.append(file)
        if number == 3:
            raise KeyboardInterrupt
        return loss(file)

    with pytest.raises(KeyboardInterrupt), Sweep(PLAIN, tmp_path, 1, largest=False) as sweep:
        sweep.run(10, stopped)
    with Sweep(PLAIN, tmp_path, 1, largest=False) as sweep:
        sweep.run(10, lambda number, file: stopped(-number, file))
        found = sweep.trials()
        # The study is done.
        sweep.run(10, lambda *_: pytest.fail("one more"))
    assert tried[4] == tried[3]
    assert [each.state for each in found] == ["complete"] * 10 + ["stopped"]
    metrics = [each.metric for each in found if each.metric is not None]
    assert metrics == sorted(metrics)
    # No trial is drawn twice, whatever the number of calls.
    assert len({each.train.learning_rate for each in tried}) == len(tried) - 1
    assert all(5e-5 <= each.train.learning_rate <= 5e-4 and each.train.sequence_length <= 1024 for each in tried)


def test_a_failed_trial_is_kept_and_three_at_the_beginning_end_the_sweep(tmp_path: Path) -> None:
    def sometimes(number: int, file: RunFile) -> float:
        if number == 1:
            raise TrialFailedError("out of memory")
        return -loss(file)

    with Sweep(PLAIN, tmp_path / "some", 1, largest=True) as sweep:
        sweep.run(4, sometimes)
        found = sweep.trials()
    assert [(each.number, each.error) for each in found if each.state == "failed"] == [(1, "out of memory")]
    metrics = [each.metric for each in found if each.metric is not None]
    assert metrics == sorted(metrics, reverse=True)

    def never(number: int, file: RunFile) -> float:
        raise TrialFailedError(f"reason {number}")

    with (
        Sweep(PLAIN, tmp_path / "none", 1, largest=False) as sweep,
        pytest.raises(UsageError, match="the first 3 trials failed, the last one with: reason 2"),
    ):
        sweep.run(20, never)


def test_a_metric_that_is_no_number_is_a_failed_trial(tmp_path: Path) -> None:
    values = {0: 1.0, 1: math.nan, 2: math.inf, 3: 2.0}
    with Sweep(PLAIN, tmp_path, 1, largest=False) as sweep:
        sweep.run(4, lambda number, _: values[number])
        assert [each.state for each in sweep.trials()] == ["complete"] * 2 + ["failed"] * 2
    with Sweep(PLAIN, tmp_path / "none", 1, largest=False) as sweep, pytest.raises(UsageError, match="diverged"):
        sweep.run(20, lambda *_: math.nan)


def test_a_study_whose_writer_was_killed_in_a_line_goes_on(tmp_path: Path) -> None:
    with Sweep(PLAIN, tmp_path, 1, largest=False) as sweep:
        sweep.run(3, lambda _, file: loss(file))
    study = tmp_path / STUDY
    study.write_bytes(study.read_bytes()[:-7])
    (tmp_path / f"{STUDY}.lock").symlink_to(study)
    for trials in (4, 5):
        with Sweep(PLAIN, tmp_path, 1, largest=False) as sweep:
            sweep.run(trials, lambda _, file: loss(file))
            assert sum(each.state == "complete" for each in sweep.trials()) == trials


@pytest.mark.parametrize("line", ["5", "[]", "{}", '{"op_code": 99, "worker_id": "x"}', "\x00", '{"op_code": 4}'])
def test_a_file_that_is_no_study_is_refused(tmp_path: Path, line: str) -> None:
    (tmp_path / STUDY).write_text(f"{line}\n")
    for _ in range(2):
        with pytest.raises(UsageError, match="holds no study that can go on"):
            Sweep(PLAIN, tmp_path, 1, largest=False)


def test_a_folder_belongs_to_one_sweep(tmp_path: Path) -> None:
    with Sweep(PLAIN, tmp_path, 1, largest=False) as sweep:
        sweep.run(1, lambda _, file: loss(file))
        with pytest.raises(UsageError, match="another sweep runs"):
            Sweep(PLAIN, tmp_path, 1, largest=False)
    with pytest.raises(UsageError, match="another run file, number of steps, tokenizer or metric"):
        Sweep(LORA, tmp_path, 1, largest=False)
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="choose another --out"):
        Sweep(PLAIN, tmp_path / "file", 1, largest=False)


def test_a_plan_draws_run_files_of_the_space_by_its_seed() -> None:
    first = planned(LORA, 3, seed=0)
    assert len({each.train.learning_rate for each in first}) == 3
    assert all(each.train.sequence_length <= 512 for each in first)
    assert planned(LORA, 3, seed=0) == first != planned(LORA, 3, seed=1)
