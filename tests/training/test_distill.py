"""On-policy distillation: the divergence against float64, its gradients, and a teacher that sees every token."""

import dataclasses
import math
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft import LoraConfig
from tiny_training import IN_FLOAT64, OTHER_FAMILIES, TWO_STEPS
from torch import Tensor, nn

from marc.inference.encoding import encode
from marc.inference.hf import HFBackend
from marc.inference.prompts import Prompt
from marc.inference.video_input import VideoInput, feature_inputs, grid_inputs
from marc.model import CompressionConfig
from marc.model.loading import load_model
from marc.model.modeling import token_types
from marc.model.tiny import EMBEDDED_FAMILY, build_tiny
from marc.training import CGRPOConfig, CGRPOTrainer, to_dataset, video_trainer
from marc.training.distill import completion_kl, reverse_kl
from marc.training.full_teacher import make_teacher
from marc.training.inputs import tokenize_prompt, visual_sources
from marc.training.video_trainer import frozen_copy

GROUP = 2
OFF = CompressionConfig(target_frames=None)


def make_trainer(
    files, rows, tmp_path, *, family=EMBEDDED_FAMILY, dataset=None, peft_config=None, **options
) -> CGRPOTrainer:
    model, processor = build_tiny(family=family)
    defaults = {
        **TWO_STEPS,
        "bf16": False,
        "per_device_train_batch_size": 4,
        "num_generations": GROUP,
        "max_completion_length": 5,
        "distill_coef": 1.0,
        "reward_coef": 0.0,
    }
    return CGRPOTrainer(
        model=model,
        args=CGRPOConfig(str(tmp_path / "run"), **{**defaults, **options}),
        train_dataset=dataset or to_dataset(rows, files, style="plain"),
        processing_class=processor,
        peft_config=peft_config,
    )


def lora() -> LoraConfig:
    return LoraConfig(r=4, target_modules=r".*language_model.*\.(q_proj|v_proj)", init_lora_weights="gaussian")


def scored(trainer: CGRPOTrainer) -> dict:
    trainer.model.train()
    torch.manual_seed(0)
    return trainer._generate_and_score_completions([row for row in trainer.train_dataset for _ in range(GROUP)])


@given(st.integers(0, 1000), st.integers(2, 12))
def test_reverse_kl_is_the_divergence(seed, words):
    generator = torch.Generator().manual_seed(seed)
    student, teacher = torch.randn(2, 5, words, generator=generator, dtype=torch.float64) * 3
    p, q = student.softmax(-1), teacher.softmax(-1)
    torch.testing.assert_close(reverse_kl(student, teacher), (p * (p / q).log()).sum(-1))
    assert (reverse_kl(student, teacher) >= -1e-12).all()
    assert reverse_kl(student, student).abs().max() < 1e-12


@pytest.mark.parametrize("parts", [1, 3, 7])
def test_the_gradient_of_the_divergence_in_parts(parts):
    """``d KL / d z_v = p_v (log p_v - log q_v - KL)`` for the student's logits ``z``; masked, some parts empty."""
    torch.manual_seed(0)
    student = torch.randn(2, 4, 7, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(2, 4, 7, dtype=torch.float64)
    mask = torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0]])
    kl = completion_kl(student, teacher, mask, (nn.Identity(), nn.Identity()), temperature=2.0, parts=parts)
    kl.sum().backward()
    p, q = (student.detach() / 2).softmax(-1), (teacher / 2).softmax(-1)
    divergence = (p * (p / q).log()).sum(-1)
    torch.testing.assert_close(kl.detach(), divergence * mask)
    expected = p * ((p / q).log() - divergence[..., None]) / 2 * mask[..., None]
    torch.testing.assert_close(student.grad, expected)


def logits_alone(model, reader, prompt, completion: Tensor) -> Tensor:
    """Next-token logits ``[C, V]`` at the completion of one row by itself, without any padding."""
    seen = tuple(
        VideoInput.of(reader.read(source), reader.processor, model.compression) for source in visual_sources(prompt)
    )
    ids = Prompt(tuple(tokenize_prompt(reader.processor, prompt)), seen).expanded(model)
    input_ids = torch.tensor([[*ids, *completion.tolist()]])
    visual = grid_inputs([seen])
    if visual:
        visual["mm_encoder_outputs"] = feature_inputs([seen], encode(model, seen))
        visual["mm_token_type_ids"] = token_types(input_ids, model)
    output = model.model(input_ids=input_ids, attention_mask=torch.ones_like(input_ids), **visual)
    return model.lm_head(output.last_hidden_state[0, len(ids) - 1 : -1])


@pytest.mark.parametrize("family", IN_FLOAT64)
@pytest.mark.parametrize("freeze_tower", [False, True])
def test_loss_and_gradients_against_float64(family, freeze_tower, files, rows, mixed_rows, tmp_path):
    """Against models of their own, row by row: the student compressed, the teacher with every token."""
    options = {
        "family": family,
        "freeze_tower": freeze_tower,
        "temperature": 1.3,
        "per_device_train_batch_size": 6,
    }
    trainer = make_trainer(files, [*rows, mixed_rows[1]], tmp_path, **options)
    for model in (trainer.model, trainer._teacher.model):
        model.double()
    with torch.no_grad():
        trainer.model.model.language_model.layers[0].mlp.up_proj.weight.mul_(1.1)
    batch = scored(trainer)
    trainer.model.zero_grad()
    trainer.current_gradient_accumulation_steps = 1
    loss = trainer._compute_loss(trainer.model, batch)
    loss.backward()

    student, teacher = (build_tiny(family=family, compression=c)[0].double() for c in (None, OFF))
    student.model.language_model.layers[0].mlp.up_proj.weight.data.mul_(1.1)
    total = torch.zeros((), dtype=torch.float64)
    examples = [row for row in trainer.train_dataset for _ in range(GROUP)]
    for row, ids, mask in zip(examples, batch["completion_ids"], batch["completion_mask"], strict=True):
        completion = ids[mask.bool()]
        log_p = (logits_alone(student, trainer._reader, row["prompt"], completion) / 1.3).log_softmax(-1)
        log_q = (logits_alone(teacher, trainer._reader, row["prompt"], completion) / 1.3).log_softmax(-1).detach()
        total = total + (log_p.exp() * (log_p - log_q)).sum()
    expected = total / batch["completion_mask"].sum()
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    theirs = dict(student.named_parameters())
    compared = 0
    for name, parameter in trainer.model.named_parameters():
        if parameter.requires_grad:
            torch.testing.assert_close(parameter.grad, theirs[name].grad, rtol=1e-5, atol=1e-9)
            compared += 1
    assert compared > 20


def test_the_teacher_reads_every_token_of_the_video(files, rows, tmp_path):
    trainer = make_trainer(files, rows, tmp_path, freeze_tower=True)
    teacher, seen, grids = trainer._teacher.model, [], []
    teacher.model.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append((kwargs["input_ids"] == teacher.config.video_token_id).sum(1)),
        with_kwargs=True,
    )
    trainer.model.model.visual.register_forward_hook(
        lambda module, args, kwargs, output: grids.append(len(kwargs["grid_thw"])), with_kwargs=True
    )
    batch = scored(trainer)
    whole = [math.prod(row[0].patches.grid_thw) // 4 for row in batch["visuals"]]
    assert torch.cat(seen).tolist() == whole
    assert all(row[0].tokens < count for row, count in zip(batch["visuals"], whole, strict=True))
    assert grids == [2], "one tower call serves the student and its teacher"


CASES = {
    "alone": {},
    "with rewards": {"reward_coef": 1.0, "teacher": "online", "teacher_samples": 2},
    "reference": {"beta": 0.1},
    "lora": {"peft_config": lora()},
    "accumulation": {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "num_iterations": 2},
    "checkpointing": {"gradient_checkpointing": True},
    "mixed budgets": {"budgets": {"events": 1, "frames-2": 1, "full": 1}},
}


@pytest.mark.parametrize(
    ("family", "case"),
    [*((EMBEDDED_FAMILY, case) for case in CASES), *((family, "with rewards") for family in OTHER_FAMILIES)],
)
def test_two_steps_move_every_trainable_parameter(family, case, files, rows, tmp_path):
    trainer = make_trainer(files, rows, tmp_path, family=family, **CASES[case])
    before = {n: p.detach().clone() for n, p in trainer.model.named_parameters() if p.requires_grad}
    trainer.train()
    history = [row for row in trainer.state.log_history if "loss" in row]
    assert len(history) == 2
    assert all(math.isfinite(row["loss"]) and row["grad_norm"] > 0 for row in history)
    assert all(row["distill/kl"] > 0 for row in history)
    still = [n for n, p in trainer.model.named_parameters() if p.requires_grad and torch.equal(p, before[n])]
    assert not still, still


def states_after_a_change(trainer: CGRPOTrainer) -> tuple[Tensor, Tensor]:
    """The teacher's states on one batch before and after the policy has changed."""
    batch = scored(trainer)
    again = []
    for _ in range(2):
        trainer._row_visuals = batch["visuals"]
        again.append(trainer._teacher_states(batch))
        with torch.no_grad():
            for parameter in trainer.model.parameters():
                if parameter.requires_grad:
                    parameter.add_(0.05 * torch.randn_like(parameter))
    return again[0], again[1]


@pytest.mark.parametrize(
    ("options", "stays"),
    [
        ({}, True),
        ({"beta": 0.1}, True),
        ({"peft_config": lora()}, True),
        ({"teacher_model": "self"}, False),
    ],
)
def test_the_initial_teacher_stays_what_it_was(options, stays, files, rows, tmp_path):
    before, after = states_after_a_change(make_trainer(files, rows, tmp_path, **options))
    assert torch.equal(before, after) == stays


def test_a_teacher_from_a_folder(files, rows, tmp_path):
    model, processor = build_tiny(seed=5)
    for part in (model, processor):
        part.save_pretrained(tmp_path / "teacher")
    name = str(tmp_path / "teacher")
    with pytest.raises(ValueError, match=r"another vision tower.*freeze_tower: false"):
        make_trainer(files, rows, tmp_path, teacher_model=name, freeze_tower=True)
    trainer = make_trainer(files, rows, tmp_path, teacher_model=name)
    trainer.train()
    for ours, theirs in zip(trainer._teacher.model.parameters(), model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_a_resumed_run_is_the_uninterrupted_one(files, rows, mixed_rows, tmp_path):
    options = {
        "max_steps": 4,
        "save_strategy": "steps",
        "save_steps": 2,
        "reward_coef": 1.0,
        "teacher": "online",
        "teacher_samples": 2,
        "budgets": {"events": 1, "full": 1},
    }
    dataset = [dataclasses.replace(row, a_full=None) for row in (*rows, *mixed_rows[1:])]
    whole = make_trainer(files, dataset, tmp_path / "whole", **options)
    whole.train()
    resumed = make_trainer(files, dataset, tmp_path / "resumed", **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "run" / "checkpoint-2"))
    keys = ("loss", "grad_norm", "distill/kl", "budget/full")
    expected = [[row[key] for key in keys] for row in whole.state.log_history if "loss" in row]
    actual = [[row[key] for key in keys] for row in resumed.state.log_history if "loss" in row]
    assert actual == expected
    for ours, theirs in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_distillation_alone_needs_no_labels(files, rows, tmp_path):
    dataset = to_dataset(rows, files).remove_columns(["solution", "problem_type", "a_full"])
    trainer = make_trainer(files, rows, tmp_path, dataset=dataset)
    trainer.train()
    assert trainer.state.log_history[0]["distill/kl"] > 0


def test_the_online_teacher_is_asked_once_about_each_video_row(files, rows, mixed_rows, tmp_path, monkeypatch):
    from marc.training import teacher

    asked = []
    answers = teacher.answers

    def counted(prompts, *rest):
        asked.extend(prompts)
        return answers(prompts, *rest)

    monkeypatch.setattr(teacher, "answers", counted)
    dataset = [dataclasses.replace(row, a_full=None) for row in (*rows, *mixed_rows[1:3])]
    options = {"reward_coef": 1.0, "distill_coef": 0.0, "teacher": "online", "per_device_train_batch_size": 8}
    trainer = make_trainer(files, dataset, tmp_path, **options)
    batch = scored(trainer)
    values = trainer._a_full([{**row, "a_full": 0.123} for row in trainer.train_dataset for _ in range(GROUP)])
    assert len(asked) == 2 and 0.123 not in values
    assert all(0 <= value <= 1 for value in values[: 2 * GROUP]) and all(map(math.isnan, values[2 * GROUP :]))
    assert torch.isfinite(batch["advantages"]).all()
    with torch.no_grad():
        trainer.model.lm_head.weight.normal_()
    prompt = trainer.train_dataset[0]["prompt"]
    read = {source: trainer._reader.read(source) for source in visual_sources(prompt)}
    with trainer._grader.engine() as engine:
        ours = answers([prompt], read, engine, trainer._grader.options)
    first = HFBackend(*build_tiny(compression=OFF))
    assert ours == answers([prompt], read, first, trainer._grader.options), "the weights of the beginning"


@pytest.mark.parametrize(
    "options",
    [
        {"reward_coef": 0.0, "distill_coef": 0.0},
        {"distill_coef": -1.0},
        {"teacher": "online", "teacher_model": "self"},
        {"teacher": "sometimes"},
    ],
)
def test_wrong_options_are_refused(options, tmp_path):
    with pytest.raises(ValueError, match=next(iter(options))):
        CGRPOConfig(str(tmp_path), use_cpu=True, bf16=False, **options)


def test_other_weights_compute_as_the_policy_does(tmp_path, monkeypatch):
    """A teacher from a checkpoint, and a reference that is read again where ZeRO-3 has shared the weights out."""
    model, processor = build_tiny()
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    model, _ = load_model(tmp_path, device="cpu", attn_implementation="eager")
    args = SimpleNamespace(deepspeed_plugin=None)
    accelerator = SimpleNamespace(unwrap_model=lambda model: model, device="cpu")
    trainer = SimpleNamespace(args=args, accelerator=accelerator, model=model)
    monkeypatch.setattr(video_trainer, "is_deepspeed_zero3_enabled", lambda: True)
    for other in (make_teacher(trainer, str(tmp_path), None).model, frozen_copy(model)):
        assert other.config._attn_implementation == "eager"
        assert other is not model and not any(weight.requires_grad for weight in other.parameters())
