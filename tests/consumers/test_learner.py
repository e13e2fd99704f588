"""An update is the same however its rows are divided into micro-batches and ranks; frozen parameters never change."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn

from consumers.scenario.tensors import ScenarioBatch
from consumers.training.learner import Learner
from consumers.training.options import Execution, Optimisation
from consumers.training.ranks import ALONE
from schema.errors import CheckpointError, UsageError
from tests.consumers.toy_task import ToyModel, ToyTask, inputs, part, toy_batch

ROWS = 24
_LIMIT_S = 300
# A gradient clipped to this norm differs from the unclipped one, so that clipping is compared, too.
OPTIMISATION = Optimisation(learning_rate=0.1, clip_norm=0.5, weight_decay=0.1)


def learner(task: ToyTask | None = None) -> Learner:
    task = task or ToyTask()
    torch.manual_seed(1)
    made = Learner(task, task.build(None), OPTIMISATION, ALONE)
    made.prepare(Execution())
    return made


def pieces(batch: ScenarioBatch, cuts: list[int]) -> list[ScenarioBatch]:
    return [part(batch, slice(begin, end)) for begin, end in itertools.pairwise([0, *sorted(cuts), len(batch)])]


def weights(made: Learner) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in made.model.state_dict().items()}


@given(st.lists(st.integers(0, ROWS), max_size=5), st.integers(0, 2**31))
def test_micro_batches_of_unequal_size_give_the_update_of_one_big_batch(cuts: list[int], seed: int) -> None:
    batch = toy_batch(ROWS, seed)
    whole, divided = learner(), learner()
    for _ in range(3):
        one, many = whole.update([batch], 0.1), divided.update(pieces(batch, cuts), 0.1)
        assert many.weight == one.weight == int(batch.response_mask.sum())
        assert many.loss == pytest.approx(one.loss, rel=1e-5)
        assert many.gradient_norm == pytest.approx(one.gradient_norm, rel=1e-4)
    for name, value in weights(whole).items():
        torch.testing.assert_close(weights(divided)[name], value, rtol=1e-4, atol=1e-5)


def test_the_gradient_is_that_of_the_summed_losses_by_the_summed_weights() -> None:
    batch = toy_batch(ROWS, 5)
    made = learner()
    assert isinstance(made.model, ToyModel)
    tokens = batch.response_mask.sum(dim=1)
    loss = ((made.model(inputs(batch)) - batch.support_needed).square() * tokens).sum() / tokens.sum()
    gradients = torch.autograd.grad(loss, list(made.model.head.parameters()))
    norm = torch.cat([gradient.flatten() for gradient in gradients]).norm().item()
    update = made.update(pieces(batch, [3, 20]), 0.1)
    assert update.gradient_norm == pytest.approx(norm, rel=1e-5)
    assert update.loss / update.weight == pytest.approx(loss.item(), rel=1e-5)
    # The mean of the micro-batches' means is another number.
    means = [(learner().update([piece], 0.1)) for piece in pieces(batch, [3, 20])]
    assert sum(each.loss / each.weight for each in means) / 3 != pytest.approx(loss.item(), rel=1e-2)


# Three ranks train on their shares of micro-batches; each writes its weights and all random states.
RANKS = """
import os, sys
from pathlib import Path
import torch
import torch.distributed as dist
from safetensors.torch import save_file
from consumers.training.learner import Learner
from consumers.training.options import Execution, Optimisation
from consumers.training.random_states import random_states, seed_rank
from consumers.training.ranks import Ranks
from tests.consumers.toy_task import ToyTask, part, toy_batch

def train(ranks, out):
    torch.manual_seed(1)
    task = ToyTask()
    made = Learner(task, task.build(None), Optimisation(learning_rate=0.1, clip_norm=0.5, weight_decay=0.1), ranks)
    seed_rank(1, ranks, 0)
    made.prepare(Execution())
    for seed in range(3):
        # The last rank's share of the first micro-batch is empty.
        batch = toy_batch(24, seed)
        cuts = [part(batch, slice(0, 2)), part(batch, slice(2, None))]
        made.update([part(each, slice(ranks.rank, None, ranks.world)) for each in cuts], 0.1)
    states = random_states(ranks)
    save_file(dict(made.model.state_dict()), out / f"{ranks.rank}.safetensors")
    (out / f"{ranks.rank}.txt").write_text("\\n".join(f"{name} {states[name]}" for name in sorted(states)))

out = Path(sys.argv[1])
torch.set_num_threads(1)
# Children of one process, because importing torch takes longer than the training.
for rank in range(3):
    if os.fork() == 0:
        dist.init_process_group("gloo", init_method=f"file://{out / 'store'}", rank=rank, world_size=3)
        train(Ranks(rank, 3), out)
        os._exit(0)
sys.exit(any([os.wait()[1] for _ in range(3)]))
"""


def test_three_ranks_give_the_update_of_one_and_draw_their_own_random_numbers(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-c", RANKS, tmp_path],
        check=True,
        timeout=_LIMIT_S,
        cwd=Path(__file__).parents[2],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    alone = learner()
    for seed in range(3):
        alone.update([toy_batch(ROWS, seed)], 0.1)
    for rank in range(3):
        for name, value in load_file(tmp_path / f"{rank}.safetensors").items():
            torch.testing.assert_close(value, weights(alone)[name], rtol=1e-4, atol=1e-5)
    texts = [(tmp_path / f"{rank}.txt").read_text() for rank in range(3)]
    assert texts[0] == texts[1] == texts[2]
    states = dict(line.split() for line in texts[0].splitlines())
    assert list(states) == ["rank-0-cpu", "rank-1-cpu", "rank-2-cpu"]
    assert len(set(states.values())) == 3


def test_a_frozen_parameter_is_neither_changed_nor_stored_by_the_optimizer(tmp_path: Path) -> None:
    made = learner()
    before = weights(made)
    for seed in range(3):
        made.update([toy_batch(ROWS, seed)], 0.1)
    after = weights(made)
    assert torch.equal(after["base.weight"], before["base.weight"])
    assert torch.equal(after["base.bias"], before["base.bias"])
    assert not torch.equal(after["head.weight"], before["head.weight"])
    assert isinstance(made.model, ToyModel)
    assert not any(weight.requires_grad for weight in made.model.base.parameters())
    assert sum(len(group["params"]) for group in made.optimizer.param_groups) == 2
    made.save(tmp_path)
    stored = load_file(tmp_path / "optimizer.safetensors")
    moments, names = ("step", "exp_avg", "exp_avg_sq"), ("head.weight", "head.bias")
    assert set(stored) == {f"{moment}.{name}" for moment in moments for name in names}


def test_a_saved_learner_goes_on_exactly_and_weights_load_without_the_optimizer(tmp_path: Path) -> None:
    made = learner()
    made.update([toy_batch(ROWS, 1)], 0.1)
    made.save(tmp_path)
    loaded, begun = learner(), learner()
    loaded.load(tmp_path)
    begun.load_model(tmp_path)
    assert not begun.optimizer.state
    for each in (made, loaded, begun):
        each.update([toy_batch(ROWS, 2)], 0.1)
    assert all(torch.equal(value, weights(made)[name]) for name, value in weights(loaded).items())
    assert not torch.equal(weights(begun)["head.weight"], weights(made)["head.weight"])


def test_an_optimizer_file_with_a_frozen_parameter_is_refused(tmp_path: Path) -> None:
    made = learner()
    made.update([toy_batch(ROWS, 1)], 0.1)
    made.save(tmp_path)
    stored = load_file(tmp_path / "optimizer.safetensors")
    save_file({**stored, "exp_avg.base.weight": torch.zeros(8, 2)}, tmp_path / "optimizer.safetensors")
    with pytest.raises(CheckpointError, match=r"base\.weight"):
        learner().load(tmp_path)


def test_a_batch_without_target_tokens_changes_nothing_but_the_decay() -> None:
    made = learner()
    update = made.update([toy_batch(0, 1)], 0.0)
    assert (update.loss, update.weight, update.gradient_norm) == (0, 0, 0)
    assert all(torch.equal(value, weights(learner())[name]) for name, value in weights(made).items())


@dataclass(frozen=True)
class Untrainable(ToyTask):
    def trainable(self, model: ToyModel) -> dict[str, nn.Parameter]:
        return {}


def test_a_task_without_trainable_parameters_is_refused() -> None:
    with pytest.raises(UsageError, match="has no trainable parameter"):
        learner(Untrainable())


def test_gradient_checkpointing_of_a_model_without_it_is_refused() -> None:
    with pytest.raises(UsageError, match="leave gradient_checkpointing out"):
        learner().prepare(Execution(gradient_checkpointing=True))


def test_a_step_takes_at_least_one_batch() -> None:
    with pytest.raises(UsageError, match="accumulation 0 is invalid"):
        Optimisation(accumulation=0)
