"""A prompt is read with gradients once a step, whatever batches its answers are in; what is learned stays the same."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from unittest import mock

import pytest
import torch
from peft import LoHaConfig, LoraConfig, get_peft_model
from tiny_training import make_trainer
from torch import Tensor, nn
from transformers import TrainerCallback

from marc.data.rows import TrainingRow
from marc.inference.packing import KnownPrefixes
from marc.training import CGRPOTrainer
from marc.training.prompts_once import ChunkPrompts, StepPrompts, varies


class Watch(TrainerCallback):
    """Of each step: gradients, and how many tokens the language model reads without and with gradients.

    Attributes:
        gradients: By the name of the weight.
        read: Of each step, tokens of each pass and whether it had gradients.
    """

    def __init__(self, trainer: CGRPOTrainer) -> None:
        self.gradients: list[dict[str, Tensor]] = []
        self.read: list[list[tuple[int, bool]]] = []
        self._model = trainer.accelerator.unwrap_model(trainer.model)
        text = next(module for name, module in self._model.named_modules() if name.endswith("model.language_model"))
        text.register_forward_pre_hook(self._count, with_kwargs=True)
        trainer.add_callback(self)

    def on_step_begin(self, *_: object, **__: object) -> None:
        self.read.append([])

    def on_pre_optimizer_step(self, *_: object, **__: object) -> None:
        weights = self._model.named_parameters()
        self.gradients.append({name: weight.grad.clone() for name, weight in weights if weight.grad is not None})

    def _count(self, module: nn.Module, args: tuple, kwargs: dict) -> None:
        if "shared_prefixes" in kwargs:
            self.read[-1].append((kwargs["inputs_embeds"].shape[1], torch.is_grad_enabled()))

    def with_gradients(self, step: int) -> list[int]:
        return [tokens for tokens, had in self.read[step] if had]


ANSWERS = 4
"""To each prompt."""
RUN = {"bf16": False, "shuffle_dataset": False, "optim": "sgd", "learning_rate": 0.1, "num_generations": ANSWERS}
ROW_BY_ROW = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 8}


def trained(
    files: Path, rows: list[TrainingRow], folder: Path, *, once: bool, dtype: torch.dtype = torch.float64, **options
) -> tuple[CGRPOTrainer, Watch]:
    """A run in which each prompt of a step is read once, or once a batch."""
    trainer = make_trainer(files, rows, folder / str(once), **{**RUN, "beta": 0.1, **options})
    for model in filter(None, [trainer.model, trainer.ref_model]):
        model.to(dtype)
    watch = Watch(trainer)
    torch.manual_seed(0)
    nothing = mock.patch.object(StepPrompts, "next_pass", return_value=KnownPrefixes())
    if once:
        trainer.train()
    else:
        with nothing:
            trainer.train()
    return trainer, watch


def assert_equal_runs(files, rows, folder, **options) -> tuple[Watch, Watch]:
    """Gradients of every weight in every step, and what is logged."""
    (ours, once), (theirs, often) = (trained(files, rows, folder, once=once, **options) for once in (True, False))
    keys = ("loss", "grad_norm", "reward", "completions/mean_length", "entropy", "kl")
    histories = [
        [[row.get(key, 0.0) for key in keys] for row in trainer.state.log_history if "loss" in row]
        for trainer in (ours, theirs)
    ]
    assert histories[0] == [pytest.approx(row, rel=1e-5, abs=1e-9) for row in histories[1]]
    assert len(once.gradients) == len(often.gradients) == ours.args.max_steps
    for actual, expected in zip(once.gradients, often.gradients, strict=True):
        largest = max(gradient.abs().max() for gradient in expected.values()).item()
        torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-7 * largest)
    assert not ours._step_encodings.prompts
    return once, often


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])
@pytest.mark.parametrize(("size", "batches", "spread"), [(1, 8, 2), (2, 4, 2), (3, 4, 2), (8, 1, 0), (8, 2, 0)])
def test_any_shape_of_a_step(size, batches, spread, family, files, rows, mixed_rows, tmp_path):
    """Two videos, a picture and a text; ``spread`` of the prompts with something to show are in several batches."""
    prompts = [rows[0], mixed_rows[1], rows[1], mixed_rows[2]]
    prompts = prompts[: size * batches // ANSWERS]
    shape = {"per_device_train_batch_size": size, "gradient_accumulation_steps": batches, "family": family}
    once, often = assert_equal_runs(files, prompts, tmp_path, **shape, max_steps=1)
    ours, theirs = once.with_gradients(0), often.with_gradients(0)
    assert len(ours) == len(theirs) == batches
    assert (sum(ours) < sum(theirs)) == (spread > 0)


def test_of_a_prompt_every_answer_of_which_is_a_batch_only_the_last_one_reads_it(files, rows, tmp_path):
    once, often = assert_equal_runs(files, rows[:2], tmp_path, **ROW_BY_ROW, max_steps=1)
    ours, theirs = once.with_gradients(0), often.with_gradients(0)
    prompts = [theirs[number] - ours[number] for number in (0, ANSWERS)]
    assert min(prompts) > 10
    for number, (own, before) in enumerate(zip(ours, theirs, strict=True)):
        is_last = number % ANSWERS == ANSWERS - 1
        assert before - own == (0 if is_last else prompts[number // ANSWERS])
    without = [tokens for tokens, had in once.read[0] if not had]
    assert [tokens - 1 for tokens in without[-2:]] == prompts, "the last token of a prompt is read with each answer"


CASES = {
    "iterations": {"num_iterations": 2, "max_steps": 3},
    "two steps of a generation": {"steps_per_generation": 16, "max_steps": 3},
    "frozen tower": {"freeze_tower": True},
    "gradient checkpointing": {"gradient_checkpointing": True},
    "gradient checkpointing that goes backward in each layer, lora": {
        "gradient_checkpointing": True,
        "gradient_checkpointing_kwargs": {"use_reentrant": True},
        "kwargs": {"peft_config": LoraConfig(r=4, target_modules=r".*language_model.*\.(q_proj|v_proj)")},
    },
    "distillation": {"distill_coef": 1.0, "teacher_model": "self"},
    "a loss of the batch": {"loss_type": "bnpo"},
    "nothing learned from some": {"beta": 0.0},
    "answers that were cut off": {"mask_truncated_completions": True, "max_completion_length": 3},
    "entropy of the best": {"top_entropy_quantile": 0.5},
    "drawn budgets": {"budgets": {"events": 1, "full": 1}},
}


@pytest.mark.parametrize("case", CASES)
def test_runs_of_every_kind(case, files, rows, mixed_rows, tmp_path):
    prompts = [rows[0], mixed_rows[1], rows[1], mixed_rows[2]]
    once, often = assert_equal_runs(files, prompts, tmp_path, **{**ROW_BY_ROW, **CASES[case]})
    assert sum(once.with_gradients(0)) <= sum(often.with_gradients(0))


def test_mixed_precision(files, rows, tmp_path):
    options = {**ROW_BY_ROW, "dtype": torch.float32, "bf16": True}
    (ours, _), (theirs, _) = (trained(files, rows, tmp_path, once=once, **options) for once in (True, False))
    keys = ("loss", "grad_norm", "reward", "kl")
    histories = [
        [[row[key] for key in keys] for row in each.state.log_history if "loss" in row] for each in (ours, theirs)
    ]
    assert histories[0] == [pytest.approx(row, rel=5e-2, abs=1e-3) for row in histories[1]]


def test_where_a_prompt_reads_otherwise_each_time_every_batch_reads_it(files, rows, tmp_path):
    adapters = LoraConfig(r=4, target_modules=r".*language_model.*\.(q_proj|v_proj)", lora_dropout=0.1)
    trainer, watch = trained(
        files, rows, tmp_path, once=True, **ROW_BY_ROW, kwargs={"peft_config": adapters}, max_steps=1
    )
    model = trainer.model.get_base_model().model
    assert varies(model.train()) and not varies(model.eval())
    assert min(watch.with_gradients(0)) > 10


@pytest.mark.parametrize("dropout", [{}, {"module_dropout": 0.5}, {"rank_dropout": 0.5}])
def test_dropout_of_adapters_is_known_by_its_names(dropout, files, rows, tmp_path):
    model = make_trainer(files, rows, tmp_path, bf16=False).model
    adapted = get_peft_model(model, LoHaConfig(r=2, target_modules=["q_proj"], **dropout)).train()
    assert varies(adapted.get_base_model().model) == bool(dropout)


def test_noise_in_the_embeddings_has_every_batch_read_its_prompt(files, rows, tmp_path):
    _, watch = trained(files, rows, tmp_path, once=True, **ROW_BY_ROW, max_steps=1, neftune_noise_alpha=5.0)
    assert min(watch.with_gradients(0)) > 10


def test_nothing_is_kept_of_the_prompts_of_a_step_when_it_ends(files, rows, tmp_path):
    trainer, _ = trained(files, rows, tmp_path, once=True, **ROW_BY_ROW, max_steps=1)
    assert trainer._step_prompts.known == KnownPrefixes() and trainer._shared_prompts is None


def test_of_chunks_the_first_one_leaves_its_prompts_to_the_others():
    chunks = ChunkPrompts([["a"], ["a", "b"], [], ["b", "c"], ["a"]])
    told = [chunks.next_chunk() for _ in range(5)]
    assert [(sorted(each.stored), sorted(each.kept)) for each in told] == [
        ([], ["a"]),
        (["a"], ["b"]),
        ([], []),
        (["b"], []),
        (["a"], []),
    ]
    assert told[1].stored["a"] is told[0].kept["a"] is told[4].stored["a"]


def test_chunks_without_gradients_read_a_prompt_once(files, rows, tmp_path):
    """The old log-probabilities of an answer each."""
    _, watch = trained(files, rows, tmp_path, once=True, **ROW_BY_ROW, max_steps=1, num_iterations=2, beta=0.0)
    old = [tokens for tokens, had in watch.read[0] if not had][: 2 * ANSWERS]
    for prompt in (old[:ANSWERS], old[ANSWERS:]):
        assert prompt[0] > 10 + max(prompt[1:]), "the first chunk alone reads the prompt"


def test_two_prompts_about_a_video_in_other_batches(files, rows, mixed_rows, tmp_path):
    """The last batch of the first one reads it with features whose gradients wait for the last batch of the second."""
    again = dataclasses.replace(rows[0], problem_id="9", problem="What is to be seen?")
    shape = {"per_device_train_batch_size": 3, "gradient_accumulation_steps": 4}
    once, often = assert_equal_runs(files, [rows[0], again, rows[1]], tmp_path, **shape, max_steps=1, keep_visuals=2)
    assert sum(once.with_gradients(0)) < sum(often.with_gradients(0))
