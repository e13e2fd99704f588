"""Hostile checkpoints: every one is refused in one line, and none of their code runs."""

from __future__ import annotations

import base64
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from consumers.reduction.model import SpanPredictor, SpanPredictorConfig
from consumers.reduction.saved_model import CONFIG, WEIGHTS, load_model, save_model
from consumers.reduction.task import ReductionTask
from consumers.training.budget import Budget
from consumers.training.checkpoint import OPTIMIZER, TRAINER, read_feed_states, read_trainer
from consumers.training.learner import Learner
from consumers.training.options import Optimisation
from consumers.training.random_states import FIRST, set_random_states
from consumers.training.ranks import ALONE
from consumers.training.report import Counters
from schema.errors import CheckpointError

SAVED: dict[str, Any] = {
    "counters": {"steps": 3},
    "settings": {
        "mode": "snapshot",
        "split": "train",
        "batch_size": 8,
        "batch_tokens": None,
        "max_tokens": 60,
        "seed": 0,
        "learning_rate": 1e-3,
        "bf16": False,
        "curriculum": [],
    },
    "budget": {"steps": 3, "seconds": None},
    "lessons": [],
    "feed": {},
    "held_out": {},
    "random": "",
}


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("good")
    torch.manual_seed(1)
    model = SpanPredictor(SpanPredictorConfig(hidden_size=16, num_hidden_layers=2, counter_channels=4))
    save_model(model, folder)
    return folder


@pytest.fixture
def folder(good: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(good, tmp_path / "checkpoint"))


def change(folder: Path, **values: Any) -> None:
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps({**config, **values}))


def test_a_checkpoint_is_read_as_transformers_reads_it(folder: Path) -> None:
    ours, theirs = load_model(folder), SpanPredictor.from_pretrained(folder)
    tokens, mask = torch.randint(3, 9, (4, 11)), torch.ones(4, 11, dtype=torch.bool)
    for name in ("start", "end", "normal_form"):
        assert torch.equal(getattr(ours(tokens, mask), name), getattr(theirs(tokens, mask), name))


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"hidden_size": 10**9}, "hidden_size: Input should be less than or equal to 65536"),
        ({"hidden_size": "64"}, "hidden_size: Input should be a valid integer"),
        ({"num_hidden_layers": -1}, "num_hidden_layers"),
        ({"hidden_size": 60_000, "intermediate_size": 60_000}, "does not fit config.json"),
        ({"num_hidden_layers": 3}, "does not fit config.json"),
        ({"model_type": "bert"}, "of a model of type 'bert'"),
        ({"vocab_size": 10**9}, "vocab_size 1000000000"),
        ({"rope_theta": -1.0}, "greater than 0"),
    ],
)
def test_sizes_that_do_not_fit_the_weights_are_refused_before_memory_is_taken(
    folder: Path, values: dict[str, Any], line: str
) -> None:
    change(folder, **values)
    with pytest.raises(CheckpointError, match=r"cannot be read .* use an earlier checkpoint") as refused:
        load_model(folder)
    assert line in str(refused.value)
    assert "\n" not in str(refused.value)


def test_names_of_types_kernels_and_folders_have_no_effect(folder: Path, tmp_path: Path) -> None:
    expected = load_model(folder).state_dict()
    change(
        folder,
        dtype="float16",
        attn_implementation="someone/kernel",
        _attn_implementation="someone/kernel",
        auto_map={"AutoModel": "someone/model--code.Model"},
        quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True},
    )
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(tmp_path / "other")}))
    loaded = load_model(folder)
    assert all(torch.equal(value, expected[name]) for name, value in loaded.state_dict().items())
    assert loaded.dtype == torch.float32


class Touch:
    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {self._path}",)


@pytest.mark.parametrize("name", [WEIGHTS, "pytorch_model.bin"])
def test_pickled_weights_are_never_read(folder: Path, tmp_path: Path, name: str) -> None:
    touched = tmp_path / "touched"
    (folder / WEIGHTS).unlink()
    torch.save({"embedding.weight": Touch(touched)}, folder / name)
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_model(folder)
    assert not touched.exists()


def test_an_optimizer_of_other_shapes_or_names_is_refused(folder: Path) -> None:
    model = load_model(folder)
    learner = Learner(ReductionTask(), model, Optimisation(), ALONE)
    for key, value in (("exp_avg.embedding.weight", torch.zeros(3)), ("hook.embedding.weight", torch.zeros(()))):
        save_file({key: value}, folder / OPTIMIZER)
        with pytest.raises(CheckpointError, match="which no weight has"):
            learner.load(folder)


@pytest.mark.parametrize(
    ("where", "value", "line"),
    [
        (["counters", "steps"], "many", "counters.steps"),
        (["settings", "split"], {"a": 1}, "settings.split"),
        (["settings", "learning_rate"], "high", "settings.learning_rate"),
        (["settings", "mode"], "eval", "settings.mode"),
        (["budget", "steps"], "all", "budget.steps"),
        (["lessons"], 3, "lessons"),
        (["random"], 3, "random"),
        (["feed"], None, "feed"),
        (["more_random"], {"rank-1-cpu": 3}, "more_random.rank-1-cpu"),
        (["ancestors"], [{"checkpoint": "model", "feed": 3}], "ancestors.0.feed"),
        (["ancestors"], [{"feed": {}}], "ancestors.0.checkpoint"),
    ],
)
def test_a_trainer_file_of_other_types_is_refused_in_one_line(
    tmp_path: Path, where: list[str], value: Any, line: str
) -> None:
    trainer = json.loads(json.dumps(SAVED))
    inner = trainer
    for name in where[:-1]:
        inner = inner[name]
    inner[where[-1]] = value
    (tmp_path / TRAINER).write_text(json.dumps(trainer))
    with pytest.raises(CheckpointError) as refused:
        read_trainer(tmp_path)
    assert line in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_trainer_file_that_lacks_a_part_is_refused(tmp_path: Path) -> None:
    for name in SAVED:
        (tmp_path / TRAINER).write_text(json.dumps({key: value for key, value in SAVED.items() if key != name}))
        with pytest.raises(CheckpointError, match=f"{name}: Field required"):
            read_trainer(tmp_path)


def test_ancestors_of_other_types_are_refused_before_an_evaluation(tmp_path: Path) -> None:
    (tmp_path / TRAINER).write_text(json.dumps({"feed": {}, "ancestors": [{"checkpoint": "model", "feed": 3}]}))
    with pytest.raises(CheckpointError, match=r"cannot be read \(0.feed: Input should be a valid dictionary\)"):
        read_feed_states(tmp_path)


def test_unknown_counters_are_ignored(tmp_path: Path) -> None:
    trainer = {**SAVED, "counters": {"steps": 3, "hook": 4}, "budget": {"steps": 3, "hook": 4}}
    (tmp_path / TRAINER).write_text(json.dumps(trainer))
    read = read_trainer(tmp_path)
    assert Counters(**read["counters"]) == Counters(steps=3)
    assert Budget(**read["budget"]) == Budget(steps=3)


@pytest.mark.parametrize("state", ["", "AAAA", "not base64", base64.b64encode(bytes(5000)).decode()])
def test_an_invalid_random_state_is_refused(state: str) -> None:
    before = torch.get_rng_state()
    with pytest.raises((ValueError, RuntimeError)):
        set_random_states({FIRST: state}, ALONE)
    assert torch.equal(torch.get_rng_state(), before)
