"""Prompts that answers share are read once; what is learned and logged is what a row for each answer gives."""

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from unittest import mock

import pytest
import torch
from peft import LoraConfig
from tiny_training import make_trainer
from torch import Tensor
from trl.trainer.utils import shuffle_sequence_dict, split_tensor_dict

from marc.model import CompressionConfig
from marc.training import CGRPOTrainer
from marc.training.shared_prompts import pack_prompts, rows_to_pack

ANSWERS = 3
"""To each prompt."""


def lora() -> LoraConfig:
    return LoraConfig(r=4, target_modules=r".*language_model.*\.(q_proj|v_proj)", init_lora_weights="gaussian")


def both(files, rows, tmp_path, **options) -> list[CGRPOTrainer]:
    """A trainer that reads a row for each answer and one that reads prompts once, in float64."""
    defaults = {
        "num_generations": ANSWERS,
        "per_device_train_batch_size": ANSWERS * len(rows),
        "bf16": False,
    }
    trainers = [
        make_trainer(files, rows, tmp_path / str(share), **{**defaults, **options}, share_prompts=share)
        for share in (False, True)
    ]
    for trainer in trainers:
        teacher = [trainer._teacher.model] if trainer.args.needs_teacher else []
        for model in filter(None, [trainer.model, trainer.ref_model, *teacher]):
            model.double()
        trainer.model.train()
        if trainer.args.gradient_checkpointing:
            trainer.model.gradient_checkpointing_enable(trainer.args.gradient_checkpointing_kwargs)
    trainers[1].model.load_state_dict(trainers[0].model.state_dict())
    return trainers


def answered(trainer: CGRPOTrainer, advantages: Tensor | None = None) -> dict:
    """A generation batch whose answers have unlike lengths and, unless told otherwise, advantages of no group."""
    torch.manual_seed(0)
    group = trainer.num_generations
    batch = trainer._generate_and_score_completions([row for row in trainer.train_dataset for _ in range(group)])
    count, longest = batch["completion_mask"].shape
    lengths = torch.tensor([1 + 5 * row % longest for row in range(count)])
    batch["completion_mask"] = batch["completion_mask"] * (torch.arange(longest) < lengths[:, None])
    batch["num_items_in_batch"] = batch["completion_mask"].sum()
    batch["advantages"] = torch.linspace(-1, 1, count) if advantages is None else advantages
    return batch


def learned(trainer: CGRPOTrainer, batches: Sequence[dict]) -> dict[str, Tensor]:
    """Loss, gradients and logged numbers of an optimizer step."""
    trainer.model.zero_grad()
    trainer._metrics["train"].clear()
    trainer.current_gradient_accumulation_steps = len(batches)
    total = torch.zeros((), dtype=torch.float64)
    for batch in batches:
        loss = trainer._compute_loss(trainer.model, batch)
        loss.backward()
        total = total + loss.detach()
    gradients = {name: weight.grad for name, weight in trainer.model.named_parameters() if weight.grad is not None}
    logged = {name: torch.tensor(values) for name, values in trainer._metrics["train"].items()}
    return {"loss": total, **gradients, **logged}


def assert_close(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert actual.keys() == expected.keys()
    gradients = [value.abs().max() for value in expected.values()]
    assert sum(largest > 0 for largest in gradients) > len(gradients) / 3
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-7 * max(gradients).item(), equal_nan=True)


CASES = {
    "event layout": {},
    "frame layout": {"compression": CompressionConfig(layout="frames", target_frames=2)},
    "every token": {"compression": CompressionConfig(target_frames=None)},
    "inside the tower": {"compression": CompressionConfig(tower_layer=1)},
    "a rule": {"compression": CompressionConfig(layout="random", visual_tokens=7), "freeze_tower": True},
    "frozen tower": {"freeze_tower": True},
    "lora": {"kwargs": {"peft_config": lora()}},
    "reference": {"beta": 0.1},
    "lora and reference": {"kwargs": {"peft_config": lora()}, "beta": 0.1},
    "iterations": {"num_iterations": 2},
    "temperature": {"temperature": 0.7},
    "distillation": {"distill_coef": 1.0},
    "distillation alone": {"distill_coef": 1.0, "reward_coef": 0.0, "freeze_tower": True},
    "gradient checkpointing": {"gradient_checkpointing": True},
    "gradient checkpointing that goes backward in each layer, lora": {
        "gradient_checkpointing": True,
        "gradient_checkpointing_kwargs": {"use_reentrant": True},
        "kwargs": {"peft_config": lora()},
    },
    "gradient checkpointing and distillation": {"gradient_checkpointing": True, "distill_coef": 1.0},
    "DeepStack, reference": {"family": "qwen3_vl", "beta": 0.1},
    "DeepStack, inside the tower": {"family": "qwen3_vl", "compression": CompressionConfig(tower_layer=1)},
    "DeepStack, gradient checkpointing": {"family": "qwen3_vl", "gradient_checkpointing": True},
    "DeepStack, frozen tower, distillation": {"family": "qwen3_vl", "freeze_tower": True, "distill_coef": 1.0},
    "sequence level": {"importance_sampling_level": "sequence", "loss_type": "grpo", "num_iterations": 2},
    "entropy of the best": {"top_entropy_quantile": 0.5},
    **{name: {"loss_type": name} for name in ("grpo", "bnpo", "dr_grpo", "dapo", "cispo", "sapo")},
}


@pytest.mark.parametrize("case", CASES)
def test_loss_and_gradients_are_those_of_single_rows(case, files, rows, mixed_rows, tmp_path):
    """A video, an image and a text, of which each has several answers."""
    single, shared = both(files, [rows[0], *mixed_rows[1:3]], tmp_path, **CASES[case])
    batch = answered(single)
    assert_close(learned(shared, [batch]), learned(single, [batch]))


@pytest.mark.parametrize(("size", "accumulation"), [(1, 8), (2, 4), (8, 1), (16, 2)])
def test_any_shape_of_a_step(size, accumulation, files, rows, mixed_rows, tmp_path):
    """Where a pass holds answers to several prompts, or one of each."""
    prompts = [*rows, *mixed_rows[1:3]][: size * accumulation // 8]
    options = {"per_device_train_batch_size": size, "gradient_accumulation_steps": accumulation, "num_generations": 8}
    single, shared = both(files, prompts, tmp_path, **options)
    batches = split_tensor_dict(shuffle_sequence_dict(answered(single)), accumulation)
    assert {len(batch["visuals"]) for batch in batches} == {size}
    assert_close(learned(shared, batches), learned(single, batches))


@pytest.mark.parametrize("nothing", ["some", "a group", "all"])
def test_rows_from_which_nothing_is_learned(nothing, files, rows, tmp_path, monkeypatch):
    single, shared = both(files, rows, tmp_path)
    advantages = torch.linspace(-1, 1, 2 * ANSWERS)
    advantages[{"some": slice(1, None, 2), "a group": slice(ANSWERS), "all": slice(None)}[nothing]] = 0
    batch = answered(single, advantages)
    actual, expected = learned(shared, [batch]), learned(single, [batch])
    monkeypatch.setattr(CGRPOTrainer, "_nothing_to_learn", lambda *_: None)
    for trainer, result in ((single, expected), (shared, actual)):
        if nothing == "all":
            everything = learned(trainer, [batch])
            assert not any(everything[name].any() for name, _ in trainer.model.named_parameters())
        else:
            assert_close(result, learned(trainer, [batch]))


@pytest.mark.parametrize(("freeze_tower", "processes"), [(True, 1), (True, 2), (False, 1), (False, 2)])
def test_where_processes_train_the_tower_every_row_takes_part(freeze_tower, processes, files, rows, tmp_path):
    """One that learns from its texts alone would have no gradients for the tower, for which the others wait."""
    trainer = make_trainer(files, rows, tmp_path, freeze_tower=freeze_tower, bf16=False)
    batch = trainer._generate_and_score_completions([row for row in trainer.train_dataset for _ in range(2)])
    batch["advantages"] = torch.tensor([0.0, 0.0, 1.0, -1.0])
    trainer._row_visuals = batch["visuals"]
    with mock.patch.object(type(trainer.accelerator), "num_processes", processes):
        idle = trainer._nothing_to_learn(batch)
    assert idle == (None if processes == 2 and not freeze_tower else [True, True, False, False])


def test_a_skipped_row_has_a_prompt_and_no_answer(files, rows, tmp_path):
    broken = dataclasses.replace(rows[0], problem_id="77", path="broken.mp4")
    single, shared = both(files, [rows[1], broken, rows[0]], tmp_path, bad_video="skip")
    batch = answered(single)
    assert batch["completion_mask"][ANSWERS : 2 * ANSWERS].sum() == 0
    assert_close(learned(shared, [batch]), learned(single, [batch]))
    only_bad = {name: value[ANSWERS : 2 * ANSWERS] for name, value in batch.items() if name != "num_items_in_batch"}
    losses = [learned(one, [{**only_bad, "num_items_in_batch": torch.tensor(1)}])["loss"] for one in (single, shared)]
    assert losses == [0, 0]


@contextmanager
def tokens_read(trainer: CGRPOTrainer) -> Iterator[list[int]]:
    """Tokens that go through the language model, one number a pass."""
    read: list[int] = []
    hook = trainer.accelerator.unwrap_model(trainer.model).model.language_model.register_forward_pre_hook(
        lambda module, args, kwargs: read.append(kwargs["inputs_embeds"].shape[:2].numel()), with_kwargs=True
    )
    yield read
    hook.remove()


def test_each_prompt_is_read_once_and_no_padding(files, rows, mixed_rows, tmp_path):
    """The last token of a prompt, which predicts the first one of each answer, is read with these."""
    single, shared = both(files, [*rows, *mixed_rows[1:3]], tmp_path, num_iterations=2)
    batch = answered(single)
    count, longest = batch["prompt_mask"].shape
    longest += batch["completion_mask"].shape[1]
    with tokens_read(single) as read:
        learned(single, [batch])
    assert read == [count * longest]
    with tokens_read(shared) as read:
        learned(shared, [batch])
    prompts = batch["prompt_mask"].sum(1)[::ANSWERS]
    assert read == [int((prompts - 1).sum() + count + batch["completion_mask"].sum())]


@pytest.mark.parametrize("size", [None, 1, 3])
@pytest.mark.parametrize("grad", [False, True])
def test_log_probabilities_and_entropies_are_those_of_single_rows(size, grad, files, rows, mixed_rows, tmp_path):
    single, shared = both(files, [*rows, *mixed_rows[1:3]], tmp_path)
    batch = answered(single)
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1)
    mask = torch.cat([batch["prompt_mask"], batch["completion_mask"]], 1)
    outputs = []
    for trainer in (single, shared):
        trainer._row_visuals = batch["visuals"]
        with torch.set_grad_enabled(grad):
            outputs.append(
                trainer._get_per_token_logps_and_entropies(
                    trainer.model, ids, mask, batch["completion_ids"].shape[1], size, compute_entropy=True
                )
            )
    (logps, entropies, _), (shared_logps, shared_entropies, _) = outputs
    assert logps.shape == batch["completion_mask"].shape and logps.requires_grad == grad
    assert not shared_logps[batch["completion_mask"] == 0].any()
    torch.testing.assert_close(shared_logps, logps, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(shared_entropies, entropies, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])
@pytest.mark.parametrize("compression", [{}, {"layout": "frames"}, {"target_frames": None}])
def test_every_token_keeps_its_position(family, compression, files, rows, mixed_rows, tmp_path):
    options = {"family": family, "compression": CompressionConfig(**compression)}
    single, _ = both(files, [*rows, *mixed_rows[1:3]], tmp_path, **options)
    batch = answered(single)
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1)
    mask = torch.cat([batch["prompt_mask"], batch["completion_mask"]], 1)
    seen: list[Tensor] = []
    single.model.model.language_model.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["position_ids"][-3:]), with_kwargs=True
    )
    learned(single, [batch])
    rows_of_batch = rows_to_pack(ids, mask, batch["visuals"], batch["completion_ids"].shape[1])
    packed = pack_prompts(single.model, ids, mask, rows_of_batch)
    assert torch.equal(packed.positions, packed.rows.choose(seen[0]))
    assert torch.equal(packed.rows.choose(mask), torch.ones_like(packed.rows.choose(mask)))


def test_steps_are_those_of_single_rows(files, rows, mixed_rows, tmp_path, monkeypatch):
    """From sampling to weights, where answers are drawn as transformers does."""
    monkeypatch.setattr("marc.training.grpo.drawn_by_one_number", lambda rows: None)
    options = {"max_steps": 2, "beta": 0.1, "per_device_train_batch_size": 6, "gradient_accumulation_steps": 2}
    single, shared = both(files, [*rows, *mixed_rows[1:3]], tmp_path, **options)
    for trainer in (single, shared):
        trainer.model.float()
        trainer.ref_model.float()
        torch.manual_seed(0)
        trainer.train()
    keys = ("loss", "grad_norm", "reward", "kl", "entropy", "completions/mean_length")
    histories = [
        [[row[key] for key in keys] for row in trainer.state.log_history if "loss" in row]
        for trainer in (single, shared)
    ]
    assert len(histories[0]) == 2
    for ours, theirs in zip(*histories, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-3, abs=1e-5)


def test_answers_stay_together_within_a_step(files, rows, mixed_rows, tmp_path, monkeypatch):
    """Which batch of an optimizer step a row is in changes nothing, but how often its prompt is read."""
    options = {"per_device_train_batch_size": 3, "gradient_accumulation_steps": 2, "steps_per_generation": 4}
    _, trainer = both(files, [*rows, *mixed_rows[1:3]], tmp_path, **options)
    batch = answered(trainer)
    monkeypatch.setattr(trainer, "_generate_and_score_completions", lambda rows: dict(batch))
    torch.manual_seed(1)
    first = trainer._prepare_inputs([])
    together = trainer._buffered_inputs
    assert first is together[0] and len(together) == 4
    torch.manual_seed(1)
    apart = split_tensor_dict(shuffle_sequence_dict(dict(batch)), 4)

    def seen(batches: Sequence[dict]) -> list[tuple]:
        """What belongs to each row, in any order."""
        rows = [
            (tuple(ids), tuple(said), advantage, tuple(map(id, visuals)), budget)
            for each in batches
            for ids, said, advantage, visuals, budget in zip(
                each["prompt_ids"].tolist(),
                each["completion_ids"].tolist(),
                each["advantages"].tolist(),
                each["visuals"],
                each["budgets"],
                strict=True,
            )
        ]
        return sorted(rows, key=lambda row: row[:3])

    for step in (slice(2), slice(2, 4)):
        assert seen(together[step]) == seen(apart[step])
        assert [len(each["visuals"]) for each in together[step]] == [3, 3]
        ours, theirs = learned(trainer, together[step]), learned(trainer, apart[step])
        weights = {"loss", *(name for name, _ in trainer.model.named_parameters())}
        assert_close(*({name: part[name] for name in part.keys() & weights} for part in (ours, theirs)))
    reads = [
        sum(len({tuple(ids) for ids in each["prompt_ids"].tolist()}) for each in batches)
        for batches in (together, apart)
    ]
    assert reads[0] < reads[1]


def test_a_loss_of_the_batch_keeps_its_batches(files, rows, tmp_path, monkeypatch):
    options = {"per_device_train_batch_size": 3, "gradient_accumulation_steps": 2, "loss_type": "bnpo"}
    _, trainer = both(files, rows, tmp_path, **options)
    batch = answered(trainer)
    monkeypatch.setattr(trainer, "_generate_and_score_completions", lambda rows: dict(batch))
    torch.manual_seed(1)
    trainer._prepare_inputs([])
    torch.manual_seed(1)
    apart = split_tensor_dict(shuffle_sequence_dict(dict(batch)), 2)
    for ours, theirs in zip(trainer._buffered_inputs, apart, strict=True):
        assert torch.equal(ours["completion_ids"], theirs["completion_ids"])
