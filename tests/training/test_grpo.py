"""Two steps of everything on the tiny model, looking at what could silently go wrong."""

import dataclasses
import math

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from tiny_training import (
    FAMILIES,
    GROUP,
    OTHER_FAMILIES,
    TWO_STEPS,
    make_trainer,
    train_and_name_the_moved,
    varied,
)
from torch import Tensor

from marc.inference.decoding import drawn_by_one_number
from marc.inference.video_input import VideoInput
from marc.model import CompressionConfig
from marc.model.tiny import EMBEDDED_FAMILY, PATCH, build_tiny
from marc.rewards import accuracy_reward, format_reward
from marc.training import CGRPOConfig, CGRPOTrainer, to_dataset


def lora() -> LoraConfig:
    return LoraConfig(r=4, target_modules=r".*language_model.*\.(q_proj|v_proj)", init_lora_weights="gaussian")


CASES = {
    "plain": {},
    "frozen tower": {"freeze_tower": True},
    "published layout": {"compression": CompressionConfig(layout="frames")},
    "no compression": {"compression": CompressionConfig(target_frames=None)},
    "reference": {"beta": 0.1},
    "iterations": {"num_iterations": 2},
    "gradient checkpointing": {"gradient_checkpointing": True},
    "accumulation": {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2},
    "advantage": {"retention_form": "advantage"},
    "lora": {"kwargs": {"peft_config": lora()}},
    "lora and reference": {"kwargs": {"peft_config": lora()}, "beta": 0.1},
    "sequence level": {
        "importance_sampling_level": "sequence",
        "loss_type": "grpo",
        "num_iterations": 2,
        "learning_rate": 1e-4,  # a longer step is clipped, and with it every gradient of the second iteration
    },
}


@pytest.mark.parametrize(
    ("family", "case"),
    [
        *((EMBEDDED_FAMILY, case) for case in CASES),
        *((family, case) for family in OTHER_FAMILIES for case in ("gradient checkpointing", "lora and reference")),
    ],
)
def test_two_steps_move_every_trainable_parameter(family, case, files, rows, tmp_path):
    trainer = make_trainer(files, rows, tmp_path, family=family, **CASES[case])
    moved = train_and_name_the_moved(trainer)
    assert any("visual" in name for name in moved) == (case not in ("frozen tower", "lora", "lora and reference"))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("freeze_tower", [False, True])
def test_mixed_rows(family, freeze_tower, files, mixed_rows, tmp_path):
    options = {"per_device_train_batch_size": 8, "freeze_tower": freeze_tower, "beta": 0.1}
    trainer = make_trainer(files, mixed_rows, tmp_path, family=family, **options)
    trainer.train()
    assert all(math.isfinite(row["loss"]) and row["grad_norm"] > 0 for row in trainer.state.log_history[:2])


def test_rows_of_one_kind_after_another(files, mixed_rows, tmp_path):
    """Steps with a video, an image and a text alone, in turns."""
    trainer = make_trainer(files, mixed_rows, tmp_path, per_device_train_batch_size=2, max_steps=4)
    trainer.train()
    assert len([row for row in trainer.state.log_history if "loss" in row]) == 4


def scored(trainer: CGRPOTrainer, rows: list[int]) -> dict:
    """A batch with completions, as a step of training sees it; each row ``GROUP`` times."""
    trainer.model.train()
    torch.manual_seed(0)
    return trainer._generate_and_score_completions([trainer.train_dataset[i] for i in rows for _ in range(GROUP)])


def gradients(trainer: CGRPOTrainer, batch: dict) -> dict[str, Tensor]:
    trainer.model.zero_grad()
    trainer.current_gradient_accumulation_steps = 1
    trainer._compute_loss(trainer.model, batch).backward()
    return {n: p.grad.clone() for n, p in trainer.model.named_parameters() if p.grad is not None}


def other_pixels(seen: VideoInput) -> VideoInput:
    """What is seen of another video of the same size."""
    pixels = torch.randn(math.prod(seen.patches.grid_thw), 3 * 2 * PATCH**2)
    other = dataclasses.replace(seen.patches, pixels=pixels, tower=None)
    return dataclasses.replace(seen, patches=other, features=None)


@pytest.mark.parametrize("freeze_tower", [False, True])
def test_the_forward_that_carries_gradients_saw_the_video(freeze_tower, files, rows, tmp_path):
    trainer = make_trainer(files, rows, tmp_path, freeze_tower=freeze_tower)
    batch = scored(trainer, [0, 1])
    seen = gradients(trainer, batch)
    again = gradients(trainer, batch)
    swapped = {seen: other_pixels(seen) for row in batch["visuals"] for seen in row}
    other = gradients(trainer, {**batch, "visuals": [tuple(map(swapped.get, row)) for row in batch["visuals"]]})
    name = "model.language_model.layers.0.self_attn.v_proj.weight"
    assert torch.equal(seen[name], again[name])
    assert (seen[name] - other[name]).abs().max() > 1e-3 * seen[name].abs().max()
    assert any(n.startswith("model.visual") for n in seen) == (not freeze_tower)


def own(seen: VideoInput) -> VideoInput:
    return dataclasses.replace(seen, patches=dataclasses.replace(seen.patches))


def test_shared_encoding_equals_separate_ones(files, rows, tmp_path):
    """Loss and gradients are those of a batch in which every row has a video of its own."""
    trainer = make_trainer(files, rows, tmp_path, beta=0.1, bf16=False)
    batch = scored(trainer, [0, 1])
    assert batch["visuals"][0][0] is batch["visuals"][1][0]
    alone = {**batch, "visuals": [tuple(map(own, row)) for row in batch["visuals"]]}
    shared, separate = gradients(trainer, batch), gradients(trainer, alone)
    for name, gradient in shared.items():
        torch.testing.assert_close(gradient, separate[name], rtol=1e-3, atol=1e-6)


def test_a_frozen_tower_reads_each_video_once(files, rows, tmp_path):
    trainer = make_trainer(files, rows, tmp_path, freeze_tower=True, beta=0.1, num_iterations=2)
    grids = []
    trainer.model.model.visual.register_forward_hook(
        lambda module, args, kwargs, output: grids.append(len(kwargs["grid_thw"])), with_kwargs=True
    )
    trainer.train()
    assert grids == [2], "two videos in one call, for generation, old, reference and two policy passes"


def test_a_pass_without_gradients_encodes_each_video_once_however_it_is_cut(files, rows, tmp_path):
    options = {"beta": 0.1, "bf16": False}
    trainer = make_trainer(files, rows, tmp_path, per_device_train_batch_size=1, generation_batch_size=8, **options)
    grids = []
    trainer.ref_model.model.visual.register_forward_hook(
        lambda module, args, kwargs, output: grids.append(len(kwargs["grid_thw"])), with_kwargs=True
    )
    batch = scored(trainer, [0, 1])
    assert grids == [2], "the reference reads one row at a time"
    whole = make_trainer(files, rows, tmp_path, per_device_train_batch_size=8, **options)
    torch.testing.assert_close(batch["ref_per_token_logps"], scored(whole, [0, 1])["ref_per_token_logps"])


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("compression", [{}, {"layout": "frames"}, {"target_frames": None}])
def test_positions_agree_between_generation_and_log_probabilities(
    family, compression, files, rows, mixed_rows, tmp_path
):
    """Each row by itself in both; that shared prompts keep these positions is for `test_shared_prompts`."""
    options = {"family": family, "compression": CompressionConfig(**compression), "share_prompts": False}
    trainer = make_trainer(files, [*rows, *mixed_rows[1:]], tmp_path, **options)
    seen: list[Tensor] = []
    trainer.model.model.language_model.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["position_ids"][-3:]), with_kwargs=True
    )
    batch = scored(trainer, [0, 1, 2, 3])
    generated = torch.cat(seen, dim=2)
    seen.clear()
    gradients(trainer, {**batch, "advantages": torch.ones_like(batch["advantages"])})
    (one_pass,) = seen
    mask = torch.cat([batch["prompt_mask"], batch["completion_mask"]], 1)[:, :-1].bool()
    assert mask[:, batch["prompt_mask"].shape[1] :].any()
    for axis in range(3):
        assert torch.equal(one_pass[axis][:, :-1][mask], generated[axis][:, : mask.shape[1]][mask])


def test_sampling_and_scoring_agree(files, rows, mixed_rows, tmp_path):
    """The log-probabilities of a greedy completion are the largest ones, token by token."""
    trainer = make_trainer(files, [*rows, *mixed_rows[1:]], tmp_path, generation_kwargs={"do_sample": False})
    trainer.generation_config.do_sample = False
    batch = scored(trainer, [0, 1, 2, 3])
    trainer._row_visuals = batch["visuals"]
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1)
    mask = torch.cat([batch["prompt_mask"], batch["completion_mask"]], 1)
    keep = batch["completion_ids"].shape[1]
    logps, _, _ = trainer._get_per_token_logps_and_entropies(trainer.model, ids, mask, keep)
    for token in range(0, 256, 5):
        tried = ids.clone()
        tried[:, -keep] = token
        other, _, _ = trainer._get_per_token_logps_and_entropies(trainer.model, tried, mask, keep)
        assert (other[:, 0] <= logps[:, 0] + 1e-5).all()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("share", [False, True])
def test_what_was_drawn_has_the_log_probabilities_that_it_was_drawn_with(
    family, share, files, rows, mixed_rows, tmp_path, monkeypatch
):
    """What the head says while rows are decoded, and in one pass over the prompt and the whole answer."""
    said: dict[int, list[float]] = {}

    def drawn(count: int):
        draw = drawn_by_one_number(count)

        def note(scores_NV: Tensor, rows_N: Tensor) -> Tensor:
            tokens_N = draw(scores_NV, rows_N)
            values_N = heads[-1].log_softmax(-1).gather(1, tokens_N[:, None])[:, 0]
            for row, value in zip(rows_N.tolist(), values_N.tolist(), strict=True):
                said.setdefault(row, []).append(value)
            return tokens_N

        return note

    heads: list[Tensor] = []
    monkeypatch.setattr("marc.training.grpo.drawn_by_one_number", drawn)
    trainer = make_trainer(files, [*rows, *mixed_rows[1:]], tmp_path, family=family, bf16=False)
    trainer.model.lm_head.register_forward_hook(lambda module, args, logits: heads.append(logits.float()))
    batch = scored(trainer, [0, 1, 2, 3])
    trainer.args.share_prompts, trainer._row_visuals = share, batch["visuals"]
    parts = ("prompt", "completion")
    ids, mask = (torch.cat([batch[f"{part}_{kind}"] for part in parts], 1) for kind in ("ids", "mask"))
    count = batch["completion_ids"].shape[1]
    with torch.no_grad():
        logps, _, _ = trainer._get_per_token_logps_and_entropies(trainer.model, ids, mask, count)
    lengths = batch["completion_mask"].sum(1).tolist()
    assert len(lengths) == 4 * GROUP and max(lengths) > 1
    for row, length in enumerate(lengths):
        torch.testing.assert_close(logps[row, :length], torch.tensor(said[row][:length]), rtol=1e-5, atol=1e-5)


def test_vision_tokens_are_never_sampled(files, rows, tmp_path):
    trainer = make_trainer(files, rows, tmp_path)
    config, tokenizer = trainer.model.config, trainer._tokenizer
    never = {config.image_token_id, config.video_token_id, config.vision_start_token_id, config.vision_end_token_id}
    assert never <= set(trainer.generation_config.suppress_tokens)
    bias = torch.zeros(len(tokenizer))
    bias[sorted(never)] = 1e4
    trainer.model.lm_head.register_forward_hook(lambda module, args, logits: logits + bias)
    batch = scored(trainer, [0])
    assert not never & set(batch["completion_ids"].flatten().tolist())


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_advantages_against_float64(scale, files, rows, mixed_rows, tmp_path, monkeypatch):
    """``A_i = (R_i - mean(R)) / std(R)`` with the retention term, recomputed from the equations."""
    dataset = [mixed_rows[0], mixed_rows[3], mixed_rows[1]]
    trainer = make_trainer(
        files, dataset, tmp_path, scale_rewards=scale, num_generations=4, per_device_train_batch_size=12, alpha=0.5
    )
    accuracies = [1.0, 1.0, 0.0, 1.0, 0.0, 0.3, 0.05, 0.0, 1.0, 0.0, 0.0, 0.0]
    extras = [0.0, 1.0, 0.0, 1.0, 1.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 1.0]
    trainer.reward_funcs[0] = lambda **columns: accuracies
    trainer.reward_funcs[1] = lambda **columns: extras
    trainer.model.train()
    batch = trainer._generate_and_score_completions([trainer.train_dataset[i] for i in range(3) for _ in range(4)])
    rewards = []
    for group, a_full in enumerate([0.5, 0.5, None]):
        own = accuracies[4 * group : 4 * group + 4]
        r_c = 0.0 if a_full is None else 0.5 * max(0.0, sum(own) / 4 / a_full - 0.6)
        rewards += [a + e + (a > 0.1) * r_c for a, e in zip(own, extras[4 * group : 4 * group + 4], strict=True)]
    R = torch.tensor(rewards, dtype=torch.float64).view(3, 4)
    expected = R - R.mean(1, keepdim=True)
    if scale != "none":
        expected = expected / ((R.std(1, keepdim=True) if scale == "group" else R.std()) + 1e-4)
    torch.testing.assert_close(batch["advantages"].double(), expected.flatten(), rtol=1e-5, atol=1e-6)


def test_retention_is_divided_out_of_binary_groups_but_weights_advantages(files, mixed_rows, tmp_path):
    right = [1.0, 1.0, 0.0, 1.0]
    advantages = {}
    for form, alpha in (("reward", 0.0), ("reward", 5.0), ("advantage", 5.0)):
        trainer = make_trainer(
            files, mixed_rows[:1], tmp_path, num_generations=4, retention_form=form, alpha=alpha, scale_rewards="group"
        )
        trainer.reward_funcs[:2] = [lambda **columns: right, lambda **columns: [0.0] * 4]
        trainer.model.train()
        batch = trainer._generate_and_score_completions([trainer.train_dataset[0]] * 4)
        advantages[form, alpha] = batch["advantages"]
    plain = advantages["reward", 0.0]
    torch.testing.assert_close(advantages["reward", 5.0], plain, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(advantages["advantage", 5.0], plain * (1 + 5 * (0.75 / 0.5 - 0.6)))


def test_every_term_is_logged(files, rows, tmp_path):
    trainer = make_trainer(files, rows, tmp_path)
    trainer.train()
    logged = set(trainer.state.log_history[0])
    for name in ("eta", "reward", "active_groups", "advantage_change"):
        assert f"retention/{name}" in logged
    assert {"rewards/accuracy_reward/mean", "rewards/retention/mean", "groups/zero_variance", "bad_videos"} <= logged


def test_a_broken_video_stops_the_run_by_name(files, rows, tmp_path):
    broken = dataclasses.replace(rows[0], problem_id="77", path="broken.mp4")
    with pytest.raises(ValueError, match=r"problem_id 77: .*broken\.mp4"):
        make_trainer(files, [broken], tmp_path, per_device_train_batch_size=2).train()


def test_a_broken_video_is_skipped_and_counted(files, rows, tmp_path):
    broken = dataclasses.replace(rows[0], problem_id="77", path="broken.mp4")
    trainer = make_trainer(files, [rows[1], broken], tmp_path, bad_video="skip")
    batch = scored(trainer, [0, 1])
    assert batch["advantages"][GROUP:].tolist() == [0.0] * GROUP
    assert batch["completion_mask"][GROUP:].sum() == 0 < batch["completion_mask"][:GROUP].sum()
    trainer.current_gradient_accumulation_steps = 1
    alike = {**batch, "advantages": torch.ones(2 * GROUP)}
    assert trainer._compute_loss(trainer.model, alike).item() == pytest.approx(-1), "a mean over the others' tokens"
    trainer.train()
    assert trainer.state.log_history[0]["bad_videos"] == GROUP
    assert math.isfinite(trainer.state.log_history[0]["loss"])


def test_long_prompts_are_refused_by_name(files, rows, tmp_path):
    long = dataclasses.replace(rows[1], problem_id="88", problem="why " * 500)
    with pytest.raises(ValueError, match=r"1 prompts are longer .*problem_id 88 \(\d+ tokens\)"):
        make_trainer(files, [rows[0], long], tmp_path, max_prompt_length=1500)


def test_long_prompts_of_evaluation_are_refused_by_name(files, rows, tmp_path):
    long = dataclasses.replace(rows[1], problem_id="88", problem="why " * 500)
    evaluated = {"eval_dataset": {"held out": to_dataset([long], files)}}
    with pytest.raises(ValueError, match="problem_id 88"):
        make_trainer(files, rows, tmp_path, kwargs=evaluated, max_prompt_length=1500)


@pytest.mark.parametrize("options", [{}, {"budgets": {"events": 1, "uniform:2": 1}}])
def test_rules_that_choose_by_features_need_a_frozen_tower(options, files, rows, tmp_path):
    layout = "events" if options else "random"
    options = {"compression": CompressionConfig(layout=layout, visual_tokens=7), **options}
    with pytest.raises(ValueError, match=r"layout (random|uniform) chooses tokens .*: set freeze_tower: true"):
        make_trainer(files, rows, tmp_path, **options)


def test_plain_texts_are_measured_and_have_no_teacher(tmp_path):
    rows = [{"problem_id": str(length), "prompt": "why " * length, "a_full": None} for length in (5, 500)]
    model, processor = build_tiny()
    options = {**TWO_STEPS, "bf16": False, "per_device_train_batch_size": 2, "num_generations": 2, "max_steps": 1}

    def make(limit: int, **kwargs) -> CGRPOTrainer:
        args = CGRPOConfig(str(tmp_path), max_completion_length=4, max_prompt_length=limit, **options, **kwargs)
        return CGRPOTrainer(model, [varied, accuracy_reward], args, dataset, processing_class=processor)

    dataset = Dataset.from_list([{**row, "solution": "seven", "problem_type": "OCR"} for row in rows])
    with pytest.raises(ValueError, match=r"problem_id 500 \(\d+ tokens\)"):
        make(100)
    trainer = make(2000, teacher="online")
    trainer.train()
    assert math.isfinite(trainer.state.log_history[0]["loss"])


def test_retention_needs_a_teacher(files, rows, tmp_path):
    model, processor = build_tiny()
    dataset = to_dataset(rows, files).remove_columns("a_full")
    args = CGRPOConfig(str(tmp_path), use_cpu=True, bf16=False, report_to="none")
    with pytest.raises(ValueError, match="'a_full'"):
        CGRPOTrainer(model, [accuracy_reward, format_reward], args, dataset, processing_class=processor)
    unknown = to_dataset([rows[0], dataclasses.replace(rows[1], a_full=None)], files)
    with pytest.raises(ValueError, match=f"1 video rows have no a_full.*problem_id {rows[1].problem_id};"):
        CGRPOTrainer(model, [accuracy_reward, format_reward], args, unknown, processing_class=processor)


def test_a_reward_that_hides_the_accuracy_is_warned_of(files, rows, tmp_path, caplog):
    def wrapped(**columns):
        return accuracy_reward(**columns)

    model, processor = build_tiny()
    args = CGRPOConfig(str(tmp_path), use_cpu=True, bf16=False, report_to="none")
    CGRPOTrainer(model, wrapped, args, to_dataset(rows, files), processing_class=processor)
    assert "no retention reward" in caplog.text and "wrapped" in caplog.text


@pytest.mark.parametrize("family", FAMILIES)
def test_a_resumed_run_is_the_uninterrupted_one(family, files, rows, mixed_rows, tmp_path):
    options = {"family": family, "max_steps": 4, "save_strategy": "steps", "save_steps": 2, "beta": 0.1, "bf16": False}
    dataset = [*rows, *mixed_rows[1:]]
    whole = make_trainer(files, dataset, tmp_path / "whole", **options)
    whole.train()
    resumed = make_trainer(files, dataset, tmp_path / "resumed", **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "run" / "checkpoint-2"))
    keys = ("loss", "grad_norm", "reward", "kl", "completions/mean_length")
    expected = [{key: row[key] for key in keys} for row in whole.state.log_history if "loss" in row]
    actual = [{key: row[key] for key in keys} for row in resumed.state.log_history if "loss" in row]
    assert actual == expected
    for ours, theirs in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_evaluation_and_saving(files, rows, tmp_path):
    from marc import load_model

    trainer = make_trainer(files, rows, tmp_path, per_device_eval_batch_size=4)
    metrics = trainer.evaluate(trainer.train_dataset)
    assert math.isfinite(metrics["eval_loss"])
    trainer.save_model(str(tmp_path / "saved"))
    model, processor = load_model(tmp_path / "saved", device="cpu")
    assert processor.compression == model.compression == trainer.model.compression
