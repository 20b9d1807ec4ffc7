"""The text tower alone is open_clip's, to rounding, and whatever is not of its kind is left to open_clip."""

import json
import shutil

import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import load_file, save_file

from marc.memory.embedder import (
    CONFIG_FILE,
    TINY_FOLDER,
    WEIGHTS_FILE,
    EventEmbedder,
    load_dual_encoder,
    save_dual_encoder,
)
from marc.memory.encoders.loading import load_encoder
from marc.memory.text_tower import TextEncoder, read_text_encoder

QUESTIONS = ["What happens in the plain scene?", "a red  cross", "Où est-il?", "R&amp;B &lt;b&gt; café", "so " * 50]


def custom_encoder(folder, **text):
    """A folder with an encoder of random weights in open_clip's other class, which PE-Core has."""
    config = json.loads((TINY_FOLDER / CONFIG_FILE).read_text())["model_cfg"]
    model_config = {**config, "custom_text": True, "text_cfg": {**config["text_cfg"], **text}}
    shown = {name: value for name, value in model_config["text_cfg"].items() if name != "hf_tokenizer_name"}
    torch.manual_seed(0)
    model = open_clip.CustomTextCLIP(config["embed_dim"], config["vision_cfg"], shown)
    whole = open_clip.create_model_from_pretrained(f"local-dir:{TINY_FOLDER}")[0]
    open_clip.model.set_model_preprocess_cfg(model, whole.visual.preprocess_cfg)
    tokenizer = open_clip.get_tokenizer(f"local-dir:{TINY_FOLDER}")
    save_dual_encoder(folder, model, model_config, tokenizer=tokenizer)
    return folder


@pytest.fixture(params=["the embedded encoder", "a custom text tower"])
def folder(request, tmp_path):
    return TINY_FOLDER if request.param == "the embedded encoder" else custom_encoder(tmp_path / "custom")


def test_it_says_what_open_clip_says(folder):
    alone, both = read_text_encoder(folder, "alone"), load_dual_encoder(folder)
    tokens = both.tokenizer(QUESTIONS)
    found = alone.tokenize(QUESTIONS)
    np.testing.assert_array_equal(found, tokens[:, : found.shape[1]])
    assert [alone.token_count(text) for text in QUESTIONS] == [both.token_count(text) for text in QUESTIONS]
    assert (alone.fingerprint, alone.token_limit) == (both.fingerprint, both.token_limit)
    with torch.inference_mode():
        torch.testing.assert_close(alone.model(found), both.model.eval().encode_text(tokens))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_questions_are_embedded_alike_with_and_without_the_image_tower(precision):
    both = EventEmbedder(load_dual_encoder("tiny"), precision=precision)
    alone = EventEmbedder.from_pretrained("tiny", device="cpu", precision=precision)
    assert alone.identity == both.identity
    pairs = zip(alone.embed_questions(QUESTIONS), both.embed_questions(QUESTIONS), strict=True)
    for one, other in pairs:
        assert one.vector @ other.vector > (0.9999 if precision == "bf16" else 0.999999)
        assert (one.text, one.token_count) == (other.text, other.token_count)


def test_both_towers_are_loaded_when_the_first_picture_comes(monkeypatch):
    loaded = []
    monkeypatch.setattr("marc.memory.embedder.load_encoder", lambda name: loaded.append(name) or load_encoder(name))
    embedder = EventEmbedder.from_pretrained("tiny", device="cpu")
    embedder.embed_question("Is there a red cross?")
    assert not loaded
    pictures = np.zeros((2, 28, 28, 3), np.uint8)
    assert embedder.embed_frames(pictures).shape == (2, embedder.dimension)
    assert embedder.image_size == 28
    assert loaded == ["tiny"]


def test_files_that_change_in_between_are_refused(tmp_path):
    folder = custom_encoder(tmp_path / "encoder")
    embedder = EventEmbedder.from_pretrained(folder, device="cpu")
    weights = load_file(folder / WEIGHTS_FILE)
    save_file({name: tensor + 1 for name, tensor in weights.items()}, folder / WEIGHTS_FILE)
    with pytest.raises(ValueError, match="files have changed"):
        embedder.embed_frames(np.zeros((1, 28, 28, 3), np.uint8))


def changed(folder, file, change):
    content = json.loads((folder / file).read_text())
    change(content)
    (folder / file).write_text(json.dumps(content))


OTHER_KINDS = {
    "another activation": lambda folder: changed(
        folder, CONFIG_FILE, lambda content: content["model_cfg"].update(quick_gelu=True)
    ),
    "another pooling": lambda folder: changed(
        folder, CONFIG_FILE, lambda content: content["model_cfg"]["text_cfg"].update(pool_type="last")
    ),
    "pictures of another size": lambda folder: changed(
        folder, CONFIG_FILE, lambda content: content["preprocess_cfg"].update(size=32)
    ),
    "a tokenizer class": lambda folder: changed(
        folder, "tokenizer_config.json", lambda content: content.update(tokenizer_class="BertTokenizer")
    ),
    "no tokenizer": lambda folder: (folder / "tokenizer.json").unlink(),
    "half precision": lambda folder: save_file(
        {name: tensor.half() for name, tensor in load_file(folder / WEIGHTS_FILE).items()}, folder / WEIGHTS_FILE
    ),
    "more layers than there are": lambda folder: changed(
        folder, CONFIG_FILE, lambda content: content["model_cfg"]["text_cfg"].update(layers=3)
    ),
}


@pytest.mark.parametrize("kind", OTHER_KINDS)
def test_another_kind_is_left_to_open_clip(kind, tmp_path):
    folder = tmp_path / "encoder"
    shutil.copytree(TINY_FOLDER, folder)
    assert isinstance(read_text_encoder(folder, "encoder"), TextEncoder)
    OTHER_KINDS[kind](folder)
    assert read_text_encoder(folder, "encoder") is None
