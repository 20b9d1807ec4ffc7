"""Qwen3-VL-Embedding: the state of a conversation's last token, as transformers' own class has it."""

import numpy as np
import pytest
import torch

SYSTEM = "<|im_start|>system\n{}<|im_end|>\n<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
TO_FIND = "Retrieve images or text relevant to the user's query."
TO_BE_FOUND = "Represent the user's input."
SIZE = {"shortest_edge": 4 * 14**2, "longest_edge": 256 * 14**2}


@pytest.fixture
def clip():
    return np.random.default_rng(0).integers(0, 256, (4, 56, 84, 3), dtype=np.uint8)


@pytest.fixture
def plain(qwen3_vl_folder):
    """The vector of one prompt by transformers alone: no padding, the last token."""
    from transformers import Qwen3VLModel, Qwen3VLProcessor

    model = Qwen3VLModel.from_pretrained(qwen3_vl_folder).eval()
    processor = Qwen3VLProcessor.from_pretrained(qwen3_vl_folder)

    def vector(**parts):
        inputs = processor(**parts, return_tensors="pt")
        inputs.pop("video_metadata", None)
        with torch.no_grad():
            state = model(**inputs).last_hidden_state[0, -1]
        return torch.nn.functional.normalize(state.double(), dim=-1).numpy()

    return vector


def test_questions_are_the_last_tokens_of_their_prompts(qwen3_vl_folder, load, plain):
    questions = ["What is on the last slide?", "a cat"]
    found = load(qwen3_vl_folder).embed_questions(questions)
    for question, embedding in zip(questions, found, strict=True):
        expected = plain(text=[SYSTEM.format(TO_FIND, question)])
        np.testing.assert_allclose(embedding.vector, expected, atol=1e-5)


def test_pictures_are_the_last_tokens_of_theirs(qwen3_vl_folder, load, plain, clip):
    prompt = SYSTEM.format(TO_BE_FOUND, "<|vision_start|><|image_pad|><|vision_end|>")
    expected = [plain(text=[prompt], images=[frame], images_kwargs={"size": SIZE}) for frame in clip]
    np.testing.assert_allclose(load(qwen3_vl_folder).embed_frames(clip), expected, atol=1e-5)


def test_clips_are_read_with_their_times(qwen3_vl_folder, load, plain, clip):
    prompt = SYSTEM.format(TO_BE_FOUND, "<|vision_start|><|video_pad|><|vision_end|>")
    size = {name: 4 * value for name, value in SIZE.items()}
    options = {"do_sample_frames": False, "size": size, "cap_pixels_per_frame": False}
    seconds = np.array([0.5, 1.5, 4.0, 6.0])
    metadata = {"total_num_frames": 4, "fps": 2.0, "frames_indices": [1, 3, 8, 12]}
    expected = plain(text=[prompt], videos=[clip], videos_kwargs={**options, "video_metadata": [metadata]})
    embedder = load(qwen3_vl_folder)
    np.testing.assert_allclose(embedder.embed_events([clip], [seconds])[0], expected, atol=1e-5)
    other = embedder.embed_events([clip], [seconds * 9])[0]
    assert np.abs(other - expected).max() > 1e-4


def test_a_clip_of_one_frame_and_one_of_many_have_vectors(qwen3_vl_folder, load, clip):
    embedder = load(qwen3_vl_folder)
    vectors = embedder.embed_events([clip[:1], clip[:3], clip])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert vectors.shape == (3, embedder.dimension)


def test_a_question_beyond_the_limit_loses_its_end_only(qwen3_vl_folder, load, monkeypatch):
    monkeypatch.setattr("marc.memory.encoders.qwen3_vl.TOKEN_LIMIT", 150)
    embedder = load(qwen3_vl_folder)
    around = embedder.embed_question("a").token_count - 1
    room = 150 - around
    whole, longer = embedder.embed_questions(["x" * room, "x" * room + "yz"])
    assert (whole.token_count, whole.truncated) == (150, False)
    assert (longer.token_count, longer.truncated) == (152, True)
    np.testing.assert_allclose(longer.vector, whole.vector, atol=1e-6)


def test_a_frame_has_no_more_tokens_than_said(qwen3_vl_folder, load):
    assert load(qwen3_vl_folder).image_size == 16 * 14
