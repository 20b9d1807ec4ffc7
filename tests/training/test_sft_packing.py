"""Questions packed behind their video against the same questions in rows of their own."""

import dataclasses
import json
import math

import pytest
import torch
from peft import LoraConfig
from tiny_supervised import batch_of, loss_of, make_trainer

from marc import load_model
from marc.inference.video_input import inputs_at
from marc.model import CompressionConfig
from marc.model.prefix_attention import PREFIX_ATTENTION
from marc.model.tiny import build_tiny

BUDGETS = {"events": 1, "full": 1, "frames-2": 1}


@pytest.fixture
def questions(rows, mixed_rows):
    """Three questions about each of two videos, one more with other cuts, two about an image, two texts."""
    about = [*rows, mixed_rows[1], mixed_rows[2]]
    asked = [
        dataclasses.replace(
            row, problem_id=f"{row.problem_id}-{n}", problem=f"Where is {n * 'it, '}it?", solution=n * "on "
        )
        for n, chosen in enumerate([about, about, about[:2]], start=1)
        for row in chosen
    ]
    return [
        *asked,
        *(dataclasses.replace(row, problem_id=f"cut-{row.problem_id}", cuts=(0.6,)) for row in asked[:5:4]),
    ]


def both(files, rows, tmp_path, *, double=True, **options):
    """The same trainer with a row for each question and with packed ones."""
    options = {"data": {"questions_per_video": 3}, **options}
    trainers = [
        make_trainer(files, rows, tmp_path / str(pack), pack_questions=pack, **options) for pack in (False, True)
    ]
    for trainer in trainers if double else ():
        trainer.model.double()
        if trainer.args.gradient_checkpointing:
            trainer.model.gradient_checkpointing_enable({"use_reentrant": False})
    return trainers


def gradients(trainer, items) -> dict[str, torch.Tensor]:
    batch = batch_of(trainer, items)
    loss = loss_of(trainer, batch)
    loss.backward()
    grads = {name: p.grad for name, p in trainer.model.named_parameters() if p.grad is not None}
    return {"loss": loss.detach(), **grads}


CASES = {
    "event layout": {},
    "frame layout": {"compression": CompressionConfig(layout="frames", target_frames=2)},
    "every token": {"compression": CompressionConfig(target_frames=None)},
    "inside the tower": {"compression": CompressionConfig(tower_layer=1)},
    "a rule": {"compression": CompressionConfig(layout="random", visual_tokens=7)},
    "frozen tower": {"freeze_tower": True},
    "gradient checkpointing": {"gradient_checkpointing": True},
    "DeepStack": {"family": "qwen3_vl"},
    "DeepStack, inside the tower": {"family": "qwen3_vl", "compression": CompressionConfig(tower_layer=1)},
    "DeepStack, gradient checkpointing": {"family": "qwen3_vl", "gradient_checkpointing": True},
    "dft": {"loss_type": "dft"},
    "lora": {
        "kwargs": {
            "peft_config": LoraConfig(r=4, target_modules=r".*language_model.*proj", init_lora_weights="gaussian")
        }
    },
}


@pytest.mark.parametrize("case", CASES)
def test_loss_and_gradients_are_those_of_single_rows(case, files, questions, tmp_path):
    single, packed = both(files, questions, tmp_path, **CASES[case])
    packed.model.load_state_dict(single.model.state_dict())
    items = list(range(len(single.train_dataset)))
    expected, actual = gradients(single, items), gradients(packed, items)
    assert expected.keys() == actual.keys()
    assert sum(value.abs().max() > 0 for value in expected.values()) > len(expected) / 3
    largest = max(value.abs().max() for value in expected.values())
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-7 * largest.item())


@pytest.mark.parametrize("layout", ["events", "frames", None])
def test_logits_of_completions_are_those_of_single_rows(layout, files, questions, tmp_path):
    compression = CompressionConfig(target_frames=None) if layout is None else CompressionConfig(layout=layout)
    single, packed = both(files, questions, tmp_path, compression=compression)
    logits = []
    for trainer in (single, packed):
        asked = batch_of(trainer, list(range(len(trainer.train_dataset))))["questions"]
        shown = inputs_at([question.visuals for question in asked], trainer.processing_class, compression)
        batch = trainer._batch(trainer.model, asked, shown)
        with torch.no_grad():
            output = trainer.model(**{key: value for key, value in batch.items() if key != "labels"}).logits
        chosen = batch["labels"].roll(-1, dims=1).ne(-100)
        said = batch["labels"].roll(-1, dims=1)[chosen]
        logits.append(sorted(zip(said.tolist(), output[chosen].tolist(), strict=True)))
    assert len(logits[0]) == sum(len(question.completion) for question in asked)
    assert [token for token, _ in logits[0]] == [token for token, _ in logits[1]]
    expected, actual = (torch.tensor([row for _, row in side], dtype=torch.float64) for side in logits)
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-9)


def test_a_sequence_holds_each_video_once_and_no_padding(files, questions, tmp_path):
    _, packed = both(files, questions, tmp_path)
    asked = batch_of(packed, list(range(len(packed.train_dataset))))["questions"]
    shown = inputs_at([question.visuals for question in asked], packed.processing_class, packed.model.compression)
    batch = packed._batch(packed.model, asked, shown)
    ids = batch["input_ids"][0]
    distinct = {seen for row in shown for seen in row}
    assert len(distinct) == 4, "two videos, one of them with other cuts as well, an image"
    for kind, token in (("video", packed.model.config.video_token_id), ("image", packed.model.config.image_token_id)):
        assert (ids == token).sum() == sum(seen.tokens for seen in distinct if seen.kind == kind)
    assert batch["attention_mask"].all() and not (ids == packed._tokenizer.pad_token_id).any()
    assert len(batch["shared_prefixes"].prefixes) == 5, "one more for the texts, which share what opens a chat"
    assert sum(len(part.places) for part in batch["shared_prefixes"].questions) == len(asked)


def test_a_question_does_not_see_another(files, questions, tmp_path):
    _, packed = both(files, questions, tmp_path)
    asked = batch_of(packed, list(range(len(packed.train_dataset))))["questions"]
    shown = inputs_at([question.visuals for question in asked], packed.processing_class, packed.model.compression)
    batch = packed._batch(packed.model, asked, shown)
    del batch["labels"]
    places = [row for part in batch["shared_prefixes"].questions for row in part.places]
    own = next(row for row in places if len(row.unique()) == len(row))
    with torch.no_grad():
        before = packed.model(**batch).logits[0]
        batch["input_ids"][0, own] = batch["input_ids"][0, own].flip(0)
        changed = (packed.model(**batch).logits[0] - before).abs().amax(-1) > 1e-9
    assert set(changed.nonzero().flatten().tolist()) == set(own.tolist())


def history(trainer, *more: str) -> list[dict]:
    keys = ("loss", "grad_norm", "mean_token_accuracy", "entropy", *more)
    return [{key: row[key] for key in keys} for row in trainer.state.log_history if "loss" in row]


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_run_with_mixed_budgets_takes_the_steps_of_single_rows(accumulate, files, questions, tmp_path):
    """Items hold one to three questions, so that losses must be weighed by their tokens."""
    options = {"budgets": BUDGETS, "max_steps": 4, "gradient_accumulation_steps": accumulate, "learning_rate": 1e-4}
    single, packed = both(files, questions, tmp_path, double=False, **options)
    names = [f"budget/{name}" for name in BUDGETS]
    for trainer in (single, packed):
        trainer.train()
    assert sum(max(row[name] for row in history(packed, *names)) for name in names) > 1
    for ours, theirs in zip(history(packed, *names), history(single, *names), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-3)


def test_a_resumed_run_is_the_uninterrupted_one(files, questions, tmp_path):
    options = {
        "max_steps": 4,
        "save_strategy": "steps",
        "save_steps": 2,
        "budgets": BUDGETS,
        "per_device_train_batch_size": 3,
        "pack_questions": True,
        "data": {"questions_per_video": 2},
    }
    whole = make_trainer(files, questions, tmp_path / "whole", **options)
    whole.train()
    resumed = make_trainer(files, questions, tmp_path / "resumed", **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "run" / "checkpoint-2"))
    assert history(resumed) == history(whole)
    for ours, theirs in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_a_broken_video_is_skipped(files, questions, tmp_path):
    broken = [dataclasses.replace(questions[n], problem_id=f"7{n}", path="broken.mp4") for n in (0, 1)]
    single, packed = both(files, [*questions[:2], *broken], tmp_path, bad_video="skip")
    losses = [loss_of(trainer, batch_of(trainer, list(range(4)))).item() for trainer in (single, packed)]
    assert losses[0] == pytest.approx(losses[1])
    assert packed._metrics["train"]["bad_videos"] == [2]


def test_evaluation_saving_and_other_calls_are_unchanged(files, questions, tmp_path):
    single, packed = both(files, questions, tmp_path, double=False, per_device_eval_batch_size=3)
    losses = [trainer.evaluate(trainer.train_dataset)["eval_loss"] for trainer in (single, packed)]
    assert math.isfinite(losses[0]) and losses[0] == pytest.approx(losses[1], rel=1e-5)
    prompts = packed.processing_class.tokenizer(
        ["What is", "Where is it, and why?"], padding=True, return_tensors="pt"
    )
    said = [trainer.model.generate(**prompts, max_new_tokens=8, do_sample=False) for trainer in (single, packed)]
    assert torch.equal(*said)
    packed.save_model(str(tmp_path / "saved"))
    assert PREFIX_ATTENTION not in json.dumps(json.loads((tmp_path / "saved" / "config.json").read_text()))
    model, _ = load_model(tmp_path / "saved", device="cpu")
    assert model.model.language_model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("attention", ["flash_attention_2", "eager"])
def test_other_attention_is_refused(attention, files, rows, tmp_path, monkeypatch):
    def other(**kwargs):
        model, processor = build_tiny(**kwargs)
        model.model.language_model.config._attn_implementation = attention
        return model, processor

    monkeypatch.setattr("tiny_supervised.build_tiny", other)
    make_trainer(files, rows, tmp_path)
    with pytest.raises(ValueError, match=rf"pack_questions: .*{attention}.*attn_implementation: sdpa"):
        make_trainer(files, rows, tmp_path, pack_questions=True)


def test_sliding_windows_are_refused(files, rows, tmp_path, monkeypatch):
    def sliding(**kwargs):
        model, processor = build_tiny(**kwargs)
        model.config.text_config.layer_types = ["full_attention", "sliding_attention", "full_attention"]
        return model, processor

    monkeypatch.setattr("tiny_supervised.build_tiny", sliding)
    with pytest.raises(ValueError, match=r"pack_questions: .*sliding window"):
        make_trainer(files, rows, tmp_path, pack_questions=True)


def test_recurrent_layers_are_refused(files, rows, tmp_path):
    with pytest.raises(ValueError, match=r"pack_questions: not for this model: a recurrent layer"):
        make_trainer(files, rows, tmp_path, family="qwen3_5", pack_questions=True)
