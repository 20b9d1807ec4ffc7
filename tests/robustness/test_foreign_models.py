"""Whatever is in the files of a checkpoint or a recipe, its reader raises a `ValueError` that names it, and ends."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from mutants import break_one, damaged, retold, seeds, withstands

from marc import load_model
from marc.data.prompts import chat_messages
from marc.memory.embedder import TINY_FOLDER, EventEmbedder, save_dual_encoder
from marc.model import chat_templates
from marc.model.chat_templates import ChatTemplateError, bounded_rendering, check_template
from marc.model.tiny import build_tiny

ENCODER: dict[str, Any] = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2},
}
PREPARED = {
    "size": (32, 32),
    "mean": (0.5,) * 3,
    "std": (0.5,) * 3,
    "interpolation": "bilinear",
    "resize_mode": "squash",
}
MESSAGES = chat_messages("What?", path="a.mp4")


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("good")
    for part in build_tiny():
        part.save_pretrained(folder)
    return folder


def test_checkpoints(good, tmp_path):
    def use() -> None:
        _, processor = load_model(folder, device="cpu")
        processor.apply_chat_template(MESSAGES, add_generation_prompt=True)

    for number, chance in enumerate(seeds(25)):
        folder = tmp_path / str(number)
        shutil.copytree(good, folder)
        name = break_one(folder, chance)
        withstands(use, ValueError, f"{name}, mutant {number}")
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def encoder_folder(tmp_path_factory) -> Path:
    """A model of open_clip with open_clip's own tokenizer."""
    torch.manual_seed(0)
    folder, model = tmp_path_factory.mktemp("encoder"), open_clip.CustomTextCLIP(**ENCODER)
    open_clip.set_model_preprocess_cfg(model, PREPARED)
    save_dual_encoder(folder, model, ENCODER | {"custom_text": True})
    return folder


@pytest.mark.parametrize("is_shipped", [False, True])
def test_encoders(encoder_folder, tmp_path, is_shipped):
    """Also the shipped one, of which a question reads the text tower by itself."""

    def use() -> None:
        encoder = EventEmbedder.from_pretrained(folder, device="cpu")
        vector = encoder.embed_question("What?").vector
        assert vector.shape == encoder.embed_frames(np.zeros((1, 32, 32, 3), np.uint8))[0].shape
        assert np.isfinite(vector).all()

    for number, chance in enumerate(seeds(20)):
        folder = tmp_path / str(number)
        shutil.copytree(TINY_FOLDER if is_shipped else encoder_folder, folder)
        name = break_one(folder, chance)
        withstands(use, ValueError, f"{name}, mutant {number}")
        shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("place", "field", "value"),
    [("text_cfg", "vocab_size", 10**9), ("vision_cfg", "layers", 10**7), ("preprocess_cfg", "size", [10**6, 10**6])],
)
@pytest.mark.parametrize("is_shipped", [False, True])
def test_sizes_of_an_encoder_that_its_weights_do_not_have_take_no_memory(
    encoder_folder, tmp_path, place, field, value, is_shipped
):
    folder = tmp_path / "model"
    shutil.copytree(TINY_FOLDER if is_shipped else encoder_folder, folder)
    file = folder / "open_clip_config.json"
    content = json.loads(file.read_text())
    (content if place == "preprocess_cfg" else content["model_cfg"])[place][field] = value
    file.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=rf"{field} of {place} is .*, the weights are"):
        EventEmbedder.from_pretrained(folder, device="cpu")


@pytest.mark.parametrize(
    ("field", "value"), [("hidden_size", 10**9), ("vocab_size", 10**12), ("num_hidden_layers", 10**7)]
)
def test_sizes_that_the_weights_do_not_have_take_no_memory(good, tmp_path, field, value):
    folder = tmp_path / "model"
    shutil.copytree(good, folder)
    config = json.loads((folder / "config.json").read_text())
    config["text_config"][field] = value
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"in config\.json, but the weights are|cannot be read"):
        load_model(folder, device="cpu")


LOOPS = {
    "loops in loops": "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}",
    "calls that double": "{% macro f(n) %}{% if n > 0 %}{{ f(n-1) }}{{ f(n-1) }}{% endif %}{% endmacro %}{{ f(60) }}",
    "a call of itself": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "a long range": "{% for a in range(999999) %}{% endfor %}",
    "a division": "{{ 1 / 0 }}",
    "what it says itself": "{{ raise_exception('no') }}",
    "what is not there": "{{ messages.foo.bar }}",
}


@pytest.mark.parametrize("kind", LOOPS)
def test_a_template_that_does_not_end_is_stopped(good, tmp_path, kind):
    folder = tmp_path / "model"
    shutil.copytree(good, folder)
    (folder / "chat_template.jinja").write_text(LOOPS[kind])
    _, processor = load_model(folder, device="cpu")
    with pytest.raises(ChatTemplateError):
        processor.apply_chat_template(MESSAGES, add_generation_prompt=True)


def test_a_template_that_grows_is_stopped(monkeypatch):
    _, processor = build_tiny()
    monkeypatch.setattr(chat_templates, "MOST_MEMORY", 4 << 10)
    processor.chat_template = (
        "{% set ns = namespace(x='0123456789abcdef') %}"
        "{% for a in range(24) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}{{ ns.x }}"
    )
    with pytest.raises(ChatTemplateError, match="takes more than 4 MiB"):
        processor.apply_chat_template(MESSAGES, add_generation_prompt=True)


@pytest.mark.parametrize("template", ["{{ 10 ** 9 }}", "{{ 'x' * 9 }}", "{{ 'x'.ljust(10000000) }}", "{{ 'x", 7])
def test_a_template_whose_single_steps_may_be_endless_is_refused(template):
    with pytest.raises(ChatTemplateError, match="folder"):
        check_template(template, "folder")


def test_the_templates_that_are_known_are_within_the_bounds(good):
    processor = build_tiny()[1]
    check_template(processor.chat_template, "tiny")
    check_template(None, "none")
    long = [{"role": "user", "content": [{"type": "text", "text": "What?"}]}] * 1000
    with bounded_rendering():
        processor.apply_chat_template(long, add_generation_prompt=True)


def test_recipes(tmp_path):
    from marc.training.config import VideoSFTConfig
    from marc.training.run import SFTRunOptions, read_options

    recipe = tmp_path / "recipe.yaml"
    options = {"model": "tiny", "rows": "r.json", "learning_rate": 1e-5, "budget": "events:4", "lora_rank": 4}
    typed = ["--config", str(recipe), "--output_dir", str(tmp_path / "out"), "--dry_run", "true"]
    for number, chance in enumerate(seeds(40)):
        text = retold(options, chance) if chance.random() < 0.5 else json.dumps(options, indent=1)
        recipe.write_bytes(damaged(text.encode(), chance) if chance.random() < 0.6 else text.encode())
        withstands(
            lambda: read_options(SFTRunOptions, VideoSFTConfig, typed), (ValueError, OSError), f"mutant {number}"
        )
