"""A trained tower has gradients once for each video of a step; what is learned is what an encoding a batch gives."""

import dataclasses
from pathlib import Path

import pytest
import torch
from peft import LoraConfig
from tiny_training import make_trainer
from torch import Tensor, nn
from transformers import TrainerCallback

from marc.data.rows import TrainingRow
from marc.model import CompressionConfig
from marc.training import CGRPOTrainer
from marc.training.encoded_once import StepEncodings


class Watch(TrainerCallback):
    """Of each step: gradients, and how many videos and pictures go through the tower.

    Attributes:
        gradients: By the name of the weight.
        forward: Without gradients and with them.
        backward: Calls of the tower that are traversed backward.
    """

    def __init__(self, trainer: CGRPOTrainer) -> None:
        self.gradients: list[dict[str, Tensor]] = []
        self.forward: list[tuple[int, int]] = []
        self.backward: list[int] = []
        self._model = trainer.accelerator.unwrap_model(trainer.model)
        tower = next(module for name, module in self._model.named_modules() if name.endswith("model.visual"))
        tower.register_forward_hook(self._count, with_kwargs=True)
        trainer.add_callback(self)

    def on_step_begin(self, *_: object, **__: object) -> None:
        self.forward.append((0, 0))
        self.backward.append(0)

    def on_pre_optimizer_step(self, *_: object, **__: object) -> None:
        weights = self._model.named_parameters()
        self.gradients.append({name: weight.grad.clone() for name, weight in weights if weight.grad is not None})

    def _count(self, tower: nn.Module, args: tuple, kwargs: dict, output: object) -> None:
        count, (without, those_with) = len(kwargs["grid_thw"]), self.forward[-1]
        if not torch.is_grad_enabled():
            self.forward[-1] = (without + count, those_with)
            return
        self.forward[-1] = (without, those_with + count)
        output.pooler_output.register_hook(self._backward)

    def _backward(self, gradient: Tensor) -> None:
        self.backward[-1] += 1


RUN = {"bf16": False, "shuffle_dataset": False, "optim": "sgd", "learning_rate": 0.1}


def trained(
    files: Path, rows: list[TrainingRow], folder: Path, *, once: bool, dtype: torch.dtype = torch.float64, **options
) -> tuple[CGRPOTrainer, Watch]:
    """A run in which each video of a step is encoded once, or once a batch."""
    trainer = make_trainer(files, rows, folder / str(once), **{**RUN, **options})
    trainer.model.to(dtype)
    if trainer.ref_model is not None:
        trainer.ref_model.to(dtype)
    if not once:
        trainer.remove_callback(StepEncodings)
    watch = Watch(trainer)
    torch.manual_seed(0)
    trainer.train()
    return trainer, watch


def history(trainer: CGRPOTrainer) -> list[list[float]]:
    keys = ("loss", "grad_norm", "reward", "completions/mean_length", "entropy")
    return [[row.get(key, 0.0) for key in keys] for row in trainer.state.log_history if "loss" in row]


def assert_equal_runs(files, rows, folder, **options) -> tuple[Watch, Watch]:
    """Gradients of every weight in every step, and what is logged."""
    (ours, once), (theirs, often) = (trained(files, rows, folder, once=once, **options) for once in (True, False))
    assert history(ours) == [pytest.approx(row, rel=1e-5, abs=1e-9) for row in history(theirs)]
    assert len(once.gradients) == len(often.gradients) == ours.args.max_steps
    for actual, expected in zip(once.gradients, often.gradients, strict=True):
        largest = max(gradient.abs().max() for gradient in expected.values()).item()
        torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-7 * largest)
    assert any(gradient.any() for step in often.gradients for name, gradient in step.items() if "visual" in name)
    return once, often


SHAPES = [("qwen2_5_vl", *shape) for shape in ((1, 4), (2, 4), (3, 4), (12, 1))]
SHAPES += [("qwen3_vl", *shape) for shape in ((1, 8), (6, 2))]
"""Rows of a batch and batches of a step, with four answers to each prompt."""


@pytest.mark.parametrize(("family", "size", "batches"), SHAPES)
def test_any_shape_of_a_step(family, size, batches, files, rows, mixed_rows, tmp_path):
    """A reference model keeps rows from being left out that were rewarded alike."""
    prompts = [rows[0], mixed_rows[1], rows[1], mixed_rows[2]]
    shape = {"per_device_train_batch_size": size, "gradient_accumulation_steps": batches, "num_generations": 4}
    once, often = assert_equal_runs(files, prompts, tmp_path, family=family, beta=0.1, **shape)
    count = size * batches // 4
    shown = [sum(each.data_type != "text" for each in some) for some in (prompts[:count], prompts[count : 2 * count])]
    shown = [shown[0]] * 2 if count == 3 else shown  # the fourth prompt alone is no step
    assert once.forward == [(each, each) for each in shown]
    assert all(0 < calls <= each for calls, each in zip(once.backward, shown, strict=True))
    if size < 4:
        assert sum(once.backward) < sum(often.backward)


SPREAD = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 8, "num_generations": 4}
CASES = {
    "iterations": {"num_iterations": 2},
    "two steps of a generation": {"steps_per_generation": 16},
    "steps across generations, the last one short": {
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 3,
        "steps_per_generation": 2,
        "max_steps": 3,
    },
    "gradient checkpointing": {"gradient_checkpointing": True},
    "inside the tower": {"compression": CompressionConfig(tower_layer=1)},
    "in chunks": {"compression": CompressionConfig(tower_chunk=16)},
    "a loss of the batch": {"loss_type": "bnpo"},
    "drawn budgets": {"budgets": {"events": 1, "full": 1}},
    "bad rows": {"bad_video": "skip"},
    "dynamic sampling": {"dynamic_sampling": 2, "beta": 0.0},
    "teacher": {"distill_coef": 1.0, "teacher_model": "self"},
    "shuffled videos": {"temporal_alpha": 0.3},
    "rows by themselves": {"share_prompts": False},
    "adapters on the tower": {
        "kwargs": {"peft_config": LoraConfig(r=2, target_modules=r".*\.(qkv|q_proj)", init_lora_weights="gaussian")}
    },
}


@pytest.mark.parametrize("case", CASES)
def test_runs_of_every_kind(case, files, rows, mixed_rows, tmp_path):
    prompts = [rows[0], mixed_rows[1], rows[1], mixed_rows[2]]
    if case == "bad rows":
        prompts[1] = dataclasses.replace(rows[1], problem_id="77", path="broken.mp4")
    once, often = assert_equal_runs(files, prompts, tmp_path, **{**SPREAD, "beta": 0.1, **CASES[case]})
    assert sum(once.backward) < sum(often.backward)
    assert sum(those_with for _, those_with in once.forward) < sum(those_with for _, those_with in often.forward)


def test_later_weights_encode_anew(files, rows, tmp_path):
    """The second iteration's features are not the generation's, and are encoded once without gradients."""
    options = {**SPREAD, "num_iterations": 2, "beta": 0.1}
    _, watch = trained(files, rows, tmp_path, once=True, **options)
    assert watch.forward == [(2, 2), (2, 2)]


def unlike(completions, problem_id, **columns) -> list[float]:
    """Another reward for each answer, but none about one video."""
    return [number * float(own != "0") for number, own in enumerate(problem_id)]


@pytest.mark.parametrize(
    ("size", "batches", "with_gradients"),
    [
        (8, 1, {1}),  # nothing is learned about the first video
        (2, 4, {2}),  # but a batch of it alone has gradients of 0
        (3, 4, {2, 3}),  # such a batch is there unless its answers come between those to other prompts
    ],
)
def test_where_nothing_is_learned_about_a_video(
    size, batches, with_gradients, files, rows, mixed_rows, tmp_path, monkeypatch
):
    monkeypatch.setattr("tiny_training.varied", unlike)
    shape = {"per_device_train_batch_size": size, "gradient_accumulation_steps": batches, "num_generations": 4}
    prompts = [*rows, *mixed_rows[1:2]][: size * batches // 4]
    once, _ = assert_equal_runs(files, prompts, tmp_path, **shape)
    assert all(without == len(prompts) and those_with in with_gradients for without, those_with in once.forward)


def test_mixed_precision(files, rows, tmp_path):
    runs = [
        trained(files, rows, tmp_path, once=once, dtype=torch.float32, bf16=True, **SPREAD)[0]
        for once in (True, False)
    ]
    ours, theirs = map(history, runs)
    assert ours == [pytest.approx(row, rel=2e-2, abs=1e-3) for row in theirs]


@pytest.mark.parametrize("share", [False, True])
def test_a_step_that_broke_off_leaves_nothing(share, files, rows, tmp_path, monkeypatch):
    """What waits are gradients of a video's features where each answer reads its prompt, else the prompt's states."""
    trainer = make_trainer(files, rows, tmp_path, **SPREAD, bf16=False, share_prompts=share)
    backward, calls = trainer.accelerator.backward, []

    def breaking(loss: Tensor, **kwargs: object) -> None:
        backward(loss, **kwargs)
        calls.append(loss)
        if len(calls) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(trainer.accelerator, "backward", breaking)
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    step = trainer._step_encodings
    assert step.is_open and step.features and bool(step._gradients) != share and bool(step.prompts) == share
    trainer.train()
    assert not (step.is_open or step.features or step._gradients or step.prompts)
