"""Run files in YAML: their keys, their defaults, and the lines that refuse them."""

from __future__ import annotations

from pathlib import Path

import pytest

from consumers.language_model.run_file import (
    CONFIGS,
    RunFile,
    find_run_file,
    parse_run_file,
    read_run_file,
    with_changes,
    written,
)
from schema.errors import UsageError


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yml")), ids=lambda path: path.name)
def test_the_files_that_ship_are_valid_and_survive_writing(path: Path) -> None:
    run = read_run_file(path.name)
    assert parse_run_file(written(run).encode(), "x.yml") == run


def test_the_files_have_the_values_of_the_contract() -> None:
    one, two, expert, effectiveness = (
        read_run_file(f"{name}.yml") for name in ("phase1", "phase2", "expert", "effectiveness")
    )
    assert (one.train.sequence_length, one.train.learning_rate, one.train.steps) == (4096, 1e-4, 12_000)
    assert (two.train.sequence_length, two.train.learning_rate, two.train.steps) == (2048, 5e-5, 4_000)
    assert two.dataset.prefer_idiomatic and two.dataset.prefer_documented and two.model.load_from == "phase1"
    assert (expert.train.learning_rate, expert.train.steps) == (5e-5, 1_500)
    assert (effectiveness.train.epochs, effectiveness.train.batch_size, effectiveness.train.learning_rate) == (
        300,
        8,
        2e-5,
    )
    assert effectiveness.train.curriculum
    assert two.model.lora is not None
    assert two.model.lora.model_dump() == {"r": 16, "alpha": 16, "dropout": 0.05, "quantize": None}


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("trian: {steps: 1}", "there is no key trian: did you mean train?"),
        ("train: {step: 1}", "there is no key train.step: did you mean train.steps?"),
        ("model: {lora: {rank: 1}}\ntrain: {steps: 1}", "there is no key model.lora.rank: did you mean model.lora.r?"),
        ("dataset: {exclude_test: true}", "did you mean dataset.exclude_tests?"),
        ("model: {quantize: 4bit}", "there is no key model.quantize: did you mean model.lora.quantize?"),
        ("model: {r: 4}", "there is no key model.r: did you mean model.lora.r?"),
        ("learning_rate: 1", "there is no key learning_rate: did you mean train.learning_rate?"),
        (
            "model: {lora: {quantize: 8bit}}",
            "model.lora.quantize: there is no value '8bit': did you mean 4bit?",
        ),
        ("model: {lora: {quantize: 4}}", "model.lora.quantize: there is no value '4': did you mean 4bit?"),
        ("train: {steps: ten}", "train.steps: Input should be a valid integer, not 'ten'"),
        ("train: {steps: 0}", "train.steps: Input should be greater than or equal to 1"),
        ("train: {steps: 1, epochs: 1}", "either steps or epochs"),
        ("train: {}", "either steps or epochs"),
        ("[1]", "is no table"),
        ("a: &x [1]\nb: *x", "has an alias"),
        ("a: !!python/object/apply:os.system [ls]", "is not YAML"),
        ("a: [", "is not YAML"),
        # Values of which the library's own errors are of other classes.
        ("train: {steps: 2020-13-45}", "is not YAML"),
        ("train: {steps: !!timestamp never}", "is not YAML"),
        ("train: {steps: !!bool maybe}", "is not YAML"),
        ("train: {steps: !!int ten}", "is not YAML"),
        (f"train: {{steps: {'1' * 5000}}}", "is not YAML"),
        ("train: {steps: 1, steps: 2}", "the key steps is given twice"),
        ("train: {steps: 1}\ntrain: {steps: 2}", "the key train is given twice"),
        ("train: {[1]: 2, [1]: 3}", "is not YAML"),
        ("dataset: {min_length: 1000000000000000000000}\ntrain: {steps: 1}", "dataset.min_length"),
        ("\x00", "is not YAML"),
    ],
)
def test_a_wrong_file_is_refused_in_a_line(text: str, line: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse_run_file(text.encode(), "x.yml")
    assert line in str(refused.value)
    assert "\n" not in str(refused.value)


def test_numbers_without_a_point_are_numbers() -> None:
    assert parse_run_file(b"train: {steps: 1, learning_rate: 3e-4}", "x.yml").train.learning_rate == 3e-4


def test_a_file_that_is_missing_large_or_binary_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"effectiveness.yml, expert.yml, phase1.yml, phase2.yml"):
        find_run_file("phase9.yml")
    with pytest.raises(UsageError, match="there is no run file"):
        find_run_file("../configs/phase1.yml")
    (tmp_path / "large.yml").write_text("#" * 70_000)
    with pytest.raises(UsageError, match="more than 65,536 bytes"):
        read_run_file(str(tmp_path / "large.yml"))
    (tmp_path / "binary.yml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="is not YAML"):
        read_run_file(str(tmp_path / "binary.yml"))


def test_values_of_the_command_line_come_first() -> None:
    run = parse_run_file(b"train: {epochs: 3}", "x.yml")
    changed = with_changes(run, "x.yml", steps=7, base="folder", tokenizer=None)
    assert (changed.train.steps, changed.train.epochs, changed.model.base) == (7, None, "folder")
    assert with_changes(run, "x.yml") == run


def test_the_base_of_an_adapter_can_be_in_4_bits() -> None:
    run = parse_run_file(b"model: {lora: {quantize: 4bit}}\ntrain: {steps: 1}", "x.yml")
    assert (run.model.quantize, RunFile().model.quantize) == ("4bit", None)
    assert parse_run_file(written(run).encode(), "x.yml") == run
    assert with_changes(run, "x.yml", base="folder").model.quantize == "4bit"
