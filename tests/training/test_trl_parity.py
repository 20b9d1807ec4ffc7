"""With compression off and no video, `CGRPOTrainer` is TRL's `GRPOTrainer`, step by step and weight by weight."""

import numpy as np
import pytest
import torch
from datasets import Dataset
from PIL import Image
from tiny_inputs import noise
from tiny_training import OPTIONS, varied
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor
from trl import GRPOConfig, GRPOTrainer

from marc import load_model
from marc.model import CompressionConfig
from marc.model.family import vision_token_ids
from marc.model.tiny import build_tiny
from marc.training import CGRPOConfig, CGRPOTrainer

SIDE = 28
"""Pixels along each side of a picture that neither TRL nor we scale."""


@pytest.fixture(scope="module")
def stock(tmp_path_factory):
    """A folder with a stock Qwen2.5-VL: the tiny model's weights, config and processor without ours."""
    folder = tmp_path_factory.mktemp("stock")
    ours, processor = build_tiny(compression=CompressionConfig(target_frames=None))
    values = ours.config.to_dict()
    del values["compression"], values["model_type"], values["text_after_video"]
    model = Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(**values))
    model.load_state_dict(ours.state_dict())
    model.generation_config = ours.generation_config
    model.save_pretrained(folder)
    plain = Qwen2_5_VLProcessor(
        processor.image_processor,
        processor.tokenizer,
        processor.video_processor,
        chat_template=processor.chat_template,
    )
    plain.save_pretrained(folder)
    return folder


def chat(text: str, *parts: dict) -> list[dict]:
    return [{"role": "user", "content": [*parts, {"type": "text", "text": text}]}]


def pictures() -> list[Image.Image]:
    return [Image.fromarray(noise(1, seed=20 + index)[0][:SIDE, :SIDE]) for index in range(2)]


def text_chats(folder) -> tuple[Dataset, Dataset]:
    rows = Dataset.from_list([{"prompt": chat("What?")}, {"prompt": chat("And why is that?")}])
    return rows, rows


def plain_texts(folder) -> tuple[Dataset, Dataset]:
    rows = Dataset.from_list([{"prompt": "Beautiful is better than"}, {"prompt": "Explicit is"}])
    return rows, rows


def picture_columns(folder) -> tuple[Dataset, Dataset]:
    rows = Dataset.from_list(
        [
            {"prompt": [{"role": "user", "content": text}], "image": picture}
            for text, picture in zip(("What?", "And why is that?"), pictures(), strict=True)
        ]
    )
    return rows, rows


def picture_paths(folder) -> tuple[Dataset, Dataset]:
    """TRL takes pictures in a column, we take paths in the prompt."""
    theirs, _ = picture_columns(folder)
    ours = []
    for index, (row, picture) in enumerate(zip(theirs, pictures(), strict=True)):
        picture.save(folder / f"{index}.png")
        assert np.array_equal(np.asarray(Image.open(folder / f"{index}.png")), np.asarray(row["image"]))
        ours.append(
            {"prompt": chat(row["prompt"][0]["content"], {"type": "image", "image": str(folder / f"{index}.png")})}
        )
    return theirs, Dataset.from_list(ours)


def run(trainer_class, config_class, model, processor, dataset, folder, **options):
    never = vision_token_ids(processor.tokenizer)
    # Ours never samples placeholders of pictures, shuffles later epochs anew, and keeps the tower out of autocast.
    given = _known(config_class, {**OPTIONS, "shuffle_dataset": False, "bf16": False, **options})
    config = config_class(str(folder), **given, generation_kwargs={"suppress_tokens": never})
    trainer = trainer_class(model, varied, config, dataset, processing_class=processor)
    trainer.train()
    keys = ("loss", "grad_norm", "reward", "reward_std", "entropy", "completions/mean_length", "kl")
    rows = [row for row in trainer.state.log_history if "loss" in row]
    history = [{key: row[key] for key in keys if row.get(key) is not None} for row in rows]
    return history, {name: weight.detach() for name, weight in trainer.model.named_parameters()}


def _known(config_class, options: dict) -> dict:
    return {key: value for key, value in options.items() if key in config_class.__dataclass_fields__}


@pytest.mark.parametrize("data", [text_chats, plain_texts, picture_columns, picture_paths])
@pytest.mark.parametrize("options", [{}, {"beta": 0.1, "num_iterations": 2}], ids=["plain", "reference"])
def test_it_is_trl(data, options, stock, tmp_path):
    theirs_rows, our_rows = data(tmp_path)
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(stock)
    processor = Qwen2_5_VLProcessor.from_pretrained(stock, padding_side="left")
    expected, weights = run(GRPOTrainer, GRPOConfig, model, processor, theirs_rows, tmp_path / "trl", **options)
    model, processor = load_model(stock, device="cpu", target_frames=None)
    model.config.text_after_video = "grid"
    actual, our_weights = run(CGRPOTrainer, CGRPOConfig, model, processor, our_rows, tmp_path / "marc", **options)
    assert len(actual) == 2
    if data is picture_paths:  # where we encode a picture once for its group, TRL for each row: sums are rounded apart
        assert actual == [pytest.approx(row, rel=1e-4, abs=1e-6, nan_ok=True) for row in expected]
        return
    assert actual == expected
    for name, weight in weights.items():
        assert torch.equal(weight, our_weights[name]), name
