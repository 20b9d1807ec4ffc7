"""Two steps of supervised training on the tiny model, looking at what could silently go wrong."""

import dataclasses
import math

import pytest
import torch
from peft import LoraConfig
from tiny_supervised import batch_of, loss_of, make_trainer
from tiny_training import FAMILIES, IN_FLOAT64, OTHER_FAMILIES, TWO_STEPS, train_and_name_the_moved

from marc.inference.video_input import inputs_at
from marc.model import CompressionConfig
from marc.model.tiny import EMBEDDED_FAMILY, build_tiny
from marc.training import VideoSFTConfig, VideoSFTTrainer, to_supervised
from marc.training.run import lora as lora_of_recipes


def lora() -> LoraConfig:
    return LoraConfig(r=4, target_modules=r".*language_model.*\.(q_proj|v_proj)", init_lora_weights="gaussian")


CASES = {
    "plain": {},
    "frozen tower": {"freeze_tower": True},
    "gradient checkpointing": {"gradient_checkpointing": True},
    "accumulation": {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 2},
    "mixed budgets": {"budgets": {"events": 1, "full": 1}, "seed": 1},
    "inside the tower": {"compression": CompressionConfig(tower_layer=1)},
    "lora": {"kwargs": {"peft_config": lora()}},
}


@pytest.mark.parametrize(
    ("family", "case"),
    [
        *((EMBEDDED_FAMILY, case) for case in CASES),
        *((family, case) for family in OTHER_FAMILIES for case in ("gradient checkpointing", "inside the tower")),
    ],
)
def test_two_steps_move_every_trainable_parameter(family, case, files, rows, tmp_path):
    trainer = make_trainer(files, rows, tmp_path, family=family, **CASES[case])
    moved = train_and_name_the_moved(trainer)
    assert any("visual" in name for name in moved) == (case not in ("frozen tower", "lora"))


@pytest.mark.parametrize("family", FAMILIES)
def test_adapters_go_to_every_large_linear_layer_of_the_language_model(family, files, rows, tmp_path):
    model, _ = build_tiny(family=family)
    trainer = make_trainer(files, rows, tmp_path, family=family, kwargs={"peft_config": lora_of_recipes(model, 4)})
    adapted = {name.partition(".lora_A")[0] for name in train_and_name_the_moved(trainer) if "lora_A" in name}
    linears = ((n, m) for n, m in model.model.language_model.named_modules() if isinstance(m, torch.nn.Linear))
    large = {name for name, module in linears if module.out_features > 16}  # a recurrent layer's gates are not
    assert {name.partition("language_model.")[2] for name in adapted} == large


LOSSES = [
    *((EMBEDDED_FAMILY, compression) for compression in ({}, {"layout": "frames"}, {"target_frames": None})),
    *((family, {}) for family in IN_FLOAT64 if family in OTHER_FAMILIES),
]


@pytest.mark.parametrize(("family", "compression"), LOSSES)
def test_the_loss_is_the_cross_entropy_of_the_completion_alone(family, compression, files, rows, mixed_rows, tmp_path):
    """Against the model's own forward on each row by itself, through the processor's inputs, in float64."""
    options = {"family": family, "compression": CompressionConfig(**compression)}
    trainer = make_trainer(files, [*rows, *mixed_rows[1:3]], tmp_path, **options)
    trainer.model.double()
    batch = batch_of(trainer, [0, 1, 2, 3])
    total, count = 0.0, 0
    for question in batch["questions"]:
        shown = inputs_at([question.visuals], trainer.processing_class, trainer.model.compression)
        alone = trainer._batch(trainer.model, [question], shown)
        with torch.no_grad():
            logits = trainer.model(**{k: v for k, v in alone.items() if k != "labels"}).logits[0]
        start = alone["input_ids"].shape[1] - len(question.completion)
        log_probabilities = logits[start - 1 : -1].log_softmax(-1)
        total -= log_probabilities.gather(1, torch.tensor(question.completion)[:, None]).sum().item()
        count += len(question.completion)
    assert batch["labels"][:, 1:].ne(-100).sum() == count
    assert loss_of(trainer, batch).item() == pytest.approx(total / count, rel=1e-5)


@pytest.mark.parametrize("freeze_tower", [False, True])
def test_the_forward_that_carries_gradients_saw_the_video(freeze_tower, files, rows, tmp_path):
    trainer = make_trainer(files, rows, tmp_path, freeze_tower=freeze_tower)
    gradients = []
    for swap in (False, True):
        batch = batch_of(trainer, [0, 1])
        if swap:
            first, second = batch["questions"]
            batch["questions"] = [
                dataclasses.replace(first, visuals=second.visuals),
                dataclasses.replace(second, visuals=first.visuals),
            ]
        trainer.model.zero_grad()
        loss_of(trainer, batch).backward()
        gradients.append(trainer.model.model.language_model.layers[0].self_attn.v_proj.weight.grad.clone())
    assert (gradients[0] - gradients[1]).abs().max() > 1e-3 * gradients[0].abs().max()


def test_questions_about_a_video_share_one_encoding(files, rows, tmp_path):
    questions = [dataclasses.replace(rows[0], problem_id=str(i), problem=f"What is {i}?") for i in range(5)]
    trainer = make_trainer(files, [*questions, rows[1]], tmp_path, data={"questions_per_video": 4}, freeze_tower=True)
    assert [len(item["questions"]) for item in trainer.train_dataset] == [4, 1, 1]
    grids = []
    trainer.model.model.visual.register_forward_hook(
        lambda module, args, kwargs, output: grids.append(len(kwargs["grid_thw"])), with_kwargs=True
    )
    loss_of(trainer, batch_of(trainer, [0, 1, 2]))
    assert grids == [2], "two videos in one call"


@pytest.mark.parametrize("family", FAMILIES)
def test_kept_videos_are_decoded_and_encoded_once(family, files, rows, tmp_path):
    options = {
        "family": family,
        "freeze_tower": True,
        "keep_visuals": 2,
        "max_steps": 4,
        "budgets": {"events": 1, "full": 1, "frames-2": 1},
    }
    trainer = make_trainer(files, rows, tmp_path, **options)
    grids = []
    trainer.model.model.visual.register_forward_hook(
        lambda module, args, kwargs, output: grids.append(len(kwargs["grid_thw"])), with_kwargs=True
    )
    trainer.train()
    assert grids == [2]
    plain = make_trainer(files, rows, tmp_path, **{**options, "keep_visuals": 0})
    plain.train()
    losses = [[row["loss"] for row in t.state.log_history if "loss" in row] for t in (trainer, plain)]
    assert losses[0] == losses[1]
    drawn = [
        max(("events", "full", "frames-2"), key=lambda n: row[f"budget/{n}"]) for row in trainer.state.log_history[:4]
    ]
    assert len(set(drawn)) > 1


def test_a_resumed_run_is_the_uninterrupted_one(files, rows, mixed_rows, tmp_path):
    options = {
        "max_steps": 4,
        "save_strategy": "steps",
        "save_steps": 2,
        "budgets": {"events": 1, "full": 1},
        "per_device_train_batch_size": 3,
    }
    dataset = [*rows, *mixed_rows[1:]]
    whole = make_trainer(files, dataset, tmp_path / "whole", **options)
    whole.train()
    resumed = make_trainer(files, dataset, tmp_path / "resumed", **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "run" / "checkpoint-2"))
    keys = ("loss", "grad_norm", "mean_token_accuracy")
    expected = [[row[key] for key in keys] for row in whole.state.log_history if "loss" in row]
    actual = [[row[key] for key in keys] for row in resumed.state.log_history if "loss" in row]
    assert actual == expected
    for ours, theirs in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_a_broken_video_stops_the_run_by_name(files, rows, tmp_path):
    broken = dataclasses.replace(rows[0], problem_id="77", path="broken.mp4")
    with pytest.raises(ValueError, match=r"problem_id 77: .*broken\.mp4"):
        make_trainer(files, [broken], tmp_path).train()


def test_a_broken_video_is_skipped_and_counted(files, rows, tmp_path):
    broken = dataclasses.replace(rows[0], problem_id="77", path="broken.mp4")
    trainer = make_trainer(files, [rows[1], broken], tmp_path, bad_video="skip")
    both, alone = batch_of(trainer, [0, 1]), batch_of(trainer, [0])
    assert loss_of(trainer, both).item() == pytest.approx(loss_of(trainer, alone).item())
    trainer._metrics["train"].clear()
    trainer.train()
    assert trainer.state.log_history[0]["bad_videos"] == 1


def test_long_rows_are_refused_by_name(files, rows, tmp_path):
    long = dataclasses.replace(rows[1], problem_id="88", solution="why " * 500)
    with pytest.raises(ValueError, match=r"longer than max_length=1500: problem_id 88 \(\d+ tokens\)"):
        make_trainer(files, [rows[0], long], tmp_path, max_length=1500)
    evaluated = {"eval_dataset": to_supervised([long], files, reasoning=False)}
    with pytest.raises(ValueError, match="problem_id 88"):
        make_trainer(files, rows, tmp_path, max_length=1500, kwargs=evaluated)


REFUSED = {
    "completion_only_loss": {"completion_only_loss": False},
    "pad_to_multiple_of": {"pad_to_multiple_of": 8},
    "keep_visuals": {"keep_visuals": 2, "dataloader_num_workers": 1},
    "eval_packing": {"eval_packing": True},
    "load_best_model_at_end": {"load_best_model_at_end": True, "eval_strategy": "steps", "save_strategy": "steps"},
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_have_no_effect_is_refused_by_name(name, files, rows, tmp_path):
    evaluated = {"eval_dataset": to_supervised(rows, files, reasoning=False)}
    with pytest.raises(ValueError, match=name):
        make_trainer(files, rows, tmp_path, kwargs=evaluated, **REFUSED[name])


def test_reasoning_is_said_before_the_answer_or_asked_for(files, rows):
    with pytest.raises(ValueError, match=r"2 rows have no reasoning .*problem_id 0; 1"):
        to_supervised(rows, files)
    row = dataclasses.replace(rows[0], process="<think>it is</think>")
    (item,) = to_supervised([row], files)
    assert item["questions"][0]["completion"] == "<think>it is</think><answer>seven</answer>"
    assert to_supervised([row], files, reasoning=False)[0]["questions"][0]["completion"] == "<answer>seven</answer>"


def test_evaluation_and_saving(files, rows, tmp_path):
    from marc import load_model

    trainer = make_trainer(files, rows, tmp_path, per_device_eval_batch_size=2)
    metrics = trainer.evaluate(trainer.train_dataset)
    assert math.isfinite(metrics["eval_loss"])
    trainer.save_model(str(tmp_path / "saved"))
    model, processor = load_model(tmp_path / "saved", device="cpu")
    assert processor.compression == model.compression == trainer.model.compression


def test_the_best_adapters_are_loaded_at_the_end_and_saved(files, rows, tmp_path):
    from marc import load_model

    model, processor = build_tiny()
    model.save_pretrained(tmp_path / "base")
    processor.save_pretrained(tmp_path / "base")
    model, processor = load_model(tmp_path / "base", device="cpu", layout="frames")
    options = {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1}
    trainer = VideoSFTTrainer(
        model,
        VideoSFTConfig(str(tmp_path / "run"), **{**TWO_STEPS, **options, "bf16": False}, load_best_model_at_end=True),
        train_dataset=(dataset := to_supervised(rows, files, reasoning=False)),
        eval_dataset=dataset,
        processing_class=processor,
        peft_config=lora(),
    )
    trainer.train()
    trainer.save_model(str(tmp_path / "saved"))
    loaded, processor = load_model(tmp_path / "saved", device="cpu")
    assert loaded.compression == processor.compression == model.compression
    best, _ = load_model(trainer.state.best_model_checkpoint, device="cpu")
    base, _ = load_model(tmp_path / "base", device="cpu")
    moved = 0
    for (name, weight), other, before in zip(
        loaded.named_parameters(), best.parameters(), base.parameters(), strict=True
    ):
        assert torch.equal(weight, other), name
        moved += not torch.equal(weight, before)
    assert moved
