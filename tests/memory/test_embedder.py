import logging
import shutil

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

from marc.memory.embedder import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    EventEmbedder,
    save_dual_encoder,
)
from marc.memory.vectors import average_direction

PREPROCESS = {"mean": (0.5,) * 3, "std": (0.5,) * 3, "interpolation": "bilinear", "resize_mode": "squash"}


def frames(count, seed=0, height=40, width=56):
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def test_frame_vectors_equal_a_plain_use_of_open_clip(dual_encoder_folder, embedder):
    model, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{dual_encoder_folder}")
    rgb = frames(5)
    with torch.no_grad():
        expected = (
            model.eval().encode_image(torch.stack([preprocess(Image.fromarray(frame)) for frame in rgb])).double()
        )
    expected /= expected.norm(dim=-1, keepdim=True)
    vectors = embedder.embed_frames(rgb)
    assert vectors.dtype == np.float32
    assert vectors.shape == (5, embedder.dimension)
    np.testing.assert_allclose(vectors, expected.numpy(), atol=1e-5)


def test_question_vectors_equal_a_plain_use_of_open_clip(dual_encoder_folder, embedder):
    model, _ = open_clip.create_model_from_pretrained(f"local-dir:{dual_encoder_folder}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{dual_encoder_folder}")
    questions = ["a dog", "what does the man in the red hat cook before he leaves the house and why", "is it raining?"]
    with torch.no_grad():
        expected = model.eval().encode_text(tokenizer(questions)).double()
    expected /= expected.norm(dim=-1, keepdim=True)
    found = np.stack([embedding.vector for embedding in embedder.embed_questions(questions)])
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)


def test_batches_do_not_change_the_vectors(dual_encoder_folder, embedder):
    one_by_one = EventEmbedder.from_pretrained(dual_encoder_folder, device="cpu", precision="fp32", batch_size=1)
    np.testing.assert_allclose(one_by_one.embed_frames(frames(4)), embedder.embed_frames(frames(4)), atol=1e-5)
    assert embedder.embed_frames(frames(0)).shape == (0, embedder.dimension)


def test_an_event_is_the_mean_direction_of_its_frames(embedder):
    events = [frames(3, seed=1), frames(1, seed=2)]
    vectors = embedder.embed_events(events)
    mean = embedder.embed_frames(events[0]).astype(np.float64).mean(axis=0)
    np.testing.assert_allclose(vectors[0], mean / np.linalg.norm(mean), atol=1e-6)
    np.testing.assert_allclose(vectors[1], embedder.embed_frames(events[1])[0], atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_average_direction_ignores_common_length():
    assert average_direction(np.array([[1, 0], [0, 1]], np.float32)) == pytest.approx([0.5**0.5, 0.5**0.5])


def test_a_long_question_is_truncated_and_says_so(embedder, caplog):
    with caplog.at_level(logging.WARNING):
        long = embedder.embed_question("what " * 40)
    assert (long.truncated, long.token_count, long.token_limit) == (True, 42, 16)
    assert "reads 16 of the 42 tokens" in caplog.text
    assert not embedder.embed_question("what").truncated


def test_a_question_of_exactly_the_limit_is_whole(embedder):
    exact, longer = embedder.embed_questions(["what " * 14, "what " * 15])
    assert (exact.token_count, exact.truncated) == (16, False)
    assert (longer.token_count, longer.truncated) == (17, True)


def test_options_do_not_change_the_vector(embedder):
    with_options = embedder.embed_question("Where is the ball?Options:\nA. left\nB. right\n")
    np.testing.assert_array_equal(with_options.vector, embedder.embed_question("Where is the ball?").vector)


def bf16_embedder(folder):
    return EventEmbedder.from_pretrained(folder, device="cpu", precision="bf16")


def test_bf16_stays_near_float32(dual_encoder_folder, embedder):
    half = bf16_embedder(dual_encoder_folder)
    similarity = (half.embed_frames(frames(4)) * embedder.embed_frames(frames(4))).sum(axis=1)
    assert similarity.min() > 0.999
    assert half.identity != embedder.identity
    assert half.fingerprint == embedder.fingerprint


def test_the_perception_encoder_sees_in_bf16_what_autocast_sees(monkeypatch):
    name, seen = "PE-Core-T-16-384", []
    load = open_clip.create_model_and_transforms

    def load_and_look(*arguments, **options):
        model, _, preprocess = load(*arguments, **options)
        for module in model.modules():
            if hasattr(module, "fused_attn"):
                module.fused_attn = False
        pictures = torch.stack([preprocess(Image.fromarray(frame)) for frame in frames(2)])
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
            seen.append(torch.nn.functional.normalize(model.eval().encode_image(pictures).float(), dim=-1).numpy())
        return model, None, preprocess

    monkeypatch.setattr(open_clip, "create_model_and_transforms", load_and_look)
    monkeypatch.setattr("marc.memory.embedder.multiplies_bfloat16", lambda device: True)
    np.testing.assert_array_equal(EventEmbedder.untrained(name).embed_frames(frames(2)), *seen)


def test_in_bf16_questions_stay_near_float32_and_the_weights_take_half(dual_encoder_folder, embedder):
    half, questions = bf16_embedder(dual_encoder_folder), ["a dog", "what is it that he eats?"]
    vectors = [[question.vector for question in each.embed_questions(questions)] for each in (half, embedder)]
    assert np.multiply(*vectors).sum(axis=1).min() > 0.999
    held, whole = (sum(weight.nbytes for weight in each.model.parameters()) for each in (half, embedder))
    assert held < 0.6 * whole


def test_saved_and_loaded_again_is_the_same_model(dual_encoder_folder, embedder, tmp_path):
    model, _ = open_clip.create_model_from_pretrained(f"local-dir:{dual_encoder_folder}")
    save_dual_encoder(tmp_path / "copy", model, open_clip.get_model_config(f"local-dir:{dual_encoder_folder}"))
    copy = EventEmbedder.from_pretrained(tmp_path / "copy", device="cpu", precision="fp32")
    assert copy.identity == embedder.identity
    np.testing.assert_array_equal(copy.embed_frames(frames(2)), embedder.embed_frames(frames(2)))


def test_other_weights_have_another_fingerprint(dual_encoder_folder, embedder, tmp_path):
    model, _ = open_clip.create_model_from_pretrained(f"local-dir:{dual_encoder_folder}")
    with torch.no_grad():
        model.text.text_projection.mul_(1.001)
    save_dual_encoder(tmp_path, model, open_clip.get_model_config(f"local-dir:{dual_encoder_folder}"))
    copy = EventEmbedder.from_pretrained(tmp_path, device="cpu", precision="fp32")
    assert copy.fingerprint != embedder.fingerprint


def test_a_hugging_face_tokenizer_travels_with_the_weights(tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = {word: index for index, word in enumerate(["<pad>", "<unk>", "what", "is", "red", "</s>"])}
    backend = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 5)])
    fast = PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", unk_token="<unk>", eos_token="</s>")
    fast.save_pretrained(tmp_path / "tokenizer")
    config = {
        "embed_dim": 8,
        "vision_cfg": {"image_size": 16, "layers": 1, "width": 16, "head_width": 8, "patch_size": 8},
        "text_cfg": {
            "context_length": 6,
            "vocab_size": 6,
            "width": 16,
            "heads": 2,
            "layers": 1,
            "hf_tokenizer_name": "words",
        },
    }
    tokenizer = open_clip.tokenizer.HFTokenizer(str(tmp_path / "tokenizer"), context_length=6)
    model = open_clip.CLIP(**{**config, "text_cfg": {**config["text_cfg"]}})
    open_clip.set_model_preprocess_cfg(model, {**PREPROCESS, "size": (16, 16)})
    save_dual_encoder(tmp_path / "model", model, config, tokenizer=tokenizer)

    loaded = EventEmbedder.from_pretrained(tmp_path / "model", device="cpu", precision="fp32")
    short, long = loaded.embed_questions(["what is red", "what is red what is red"])
    assert (short.token_count, short.truncated) == (4, False)
    assert (long.token_count, long.truncated) == (7, True)


def test_what_is_missing_is_named(dual_encoder_folder, tmp_path):
    with pytest.raises(ValueError, match=CONFIG_FILE):
        EventEmbedder.from_pretrained(tmp_path)
    shutil.copy(dual_encoder_folder / CONFIG_FILE, tmp_path)
    with pytest.raises(ValueError, match=f"no weights beside it .*{WEIGHTS_FILE}"):
        EventEmbedder.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match="no such folder"):
        EventEmbedder.from_pretrained(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="neither a folder nor an open_clip model"):
        EventEmbedder.from_pretrained("PE-Core-XXL")
    with pytest.raises(ValueError, match="has no weights called 'laion'"):
        EventEmbedder.from_pretrained("PE-Core-T-16-384:laion")


def test_weights_that_do_not_fit_are_refused(dual_encoder_folder, tmp_path):
    shutil.copytree(dual_encoder_folder, tmp_path / "model")
    config = tmp_path / "model" / CONFIG_FILE
    config.write_text(config.read_text().replace('"embed_dim": 24', '"embed_dim": 25'))
    with pytest.raises(ValueError, match="cannot load the model"):
        EventEmbedder.from_pretrained(tmp_path / "model")


@pytest.mark.parametrize(("answers", "said"), [(False, "the hub cannot be reached"), (True, "cannot get the weights")])
def test_without_network_the_way_out_is_named(answers, said, monkeypatch, tmp_path):
    def fail(*_, **__):
        raise OSError("connection lost")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("marc.memory.encoders.dual_encoder.hub_answers", lambda: answers)
    monkeypatch.setattr("open_clip.download_pretrained", fail)
    with pytest.raises(ValueError, match=rf"{said}.*run once with network access"):
        EventEmbedder.from_pretrained("PE-Core-T-16-384")


def test_a_name_that_is_nearly_right_is_suggested():
    with pytest.raises(ValueError, match=r"did you mean PE-Core-B-16\?"):
        EventEmbedder.from_pretrained("PE-Core-B16")


@pytest.mark.parametrize(
    "wrong", [np.zeros((2, 8, 8, 4), np.uint8), np.zeros((8, 8, 3), np.uint8), np.zeros((2, 8, 8, 3))]
)
def test_frames_of_another_kind_are_refused(embedder, wrong):
    with pytest.raises(ValueError, match="frames must be uint8"):
        embedder.embed_frames(wrong)


def test_an_empty_question_is_refused(embedder):
    with pytest.raises(ValueError, match="empty"):
        embedder.embed_question("  ")
