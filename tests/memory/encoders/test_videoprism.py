"""VideoPrism: clips as transformers' own class sees them, and what becomes of fewer and of more frames."""

import numpy as np
import pytest
import torch

from marc.memory.encoders.videoprism import evenly_chosen


@pytest.fixture
def clips():
    chance = np.random.default_rng(0)
    return [chance.integers(0, 256, (count, 40, 56, 3), dtype=np.uint8) for count in (4, 4)]


def stock(folder):
    from transformers import AutoModel, AutoProcessor

    return AutoModel.from_pretrained(folder).eval(), AutoProcessor.from_pretrained(folder)


def unit(vectors):
    return torch.nn.functional.normalize(vectors.double(), dim=-1).numpy()


def test_clips_equal_a_plain_use_of_transformers(videoprism_folder, load, clips):
    model, processor = stock(videoprism_folder)
    inputs = processor(videos=clips, size={"height": 36, "width": 36}, do_sample_frames=False, return_tensors="pt")
    with torch.no_grad():
        expected = model.get_video_features(**inputs).pooler_output
    embedder = load(videoprism_folder)
    np.testing.assert_allclose(embedder.embed_events(clips), unit(expected[:, 0]), atol=1e-5)
    assert (embedder.clip_frames, embedder.image_size) == (4, 36)


def test_questions_equal_a_plain_use_of_transformers(videoprism_folder, load):
    model, processor = stock(videoprism_folder)
    questions = ["what is on the last slide?", "a red cat"]
    inputs = processor(text=questions, padding="max_length", max_length=12, return_tensors="pt")
    with torch.no_grad():
        expected = model.get_text_features(**inputs).pooler_output
    found = load(videoprism_folder).embed_questions(questions)
    np.testing.assert_allclose(np.stack([each.vector for each in found]), unit(expected), atol=1e-5)
    assert not found[0].truncated
    assert load(videoprism_folder).embed_question("cat " * 12).truncated


def test_the_order_of_frames_matters(videoprism_folder, load, clips):
    forward, backward = load(videoprism_folder).embed_events([clips[0], clips[0][::-1]])
    assert forward @ backward < 0.9999


def test_a_picture_is_a_clip_in_which_nothing_moves(videoprism_folder, load, clips):
    embedder, picture = load(videoprism_folder), clips[0][:1]
    still = embedder.embed_events([picture.repeat(4, axis=0)])
    np.testing.assert_allclose(embedder.embed_frames(picture), still, atol=1e-6)
    np.testing.assert_allclose(embedder.embed_events([picture]), still, atol=1e-6)


def test_more_frames_are_evenly_chosen(videoprism_folder, load):
    embedder = load(videoprism_folder)
    long = np.random.default_rng(1).integers(0, 256, (12, 40, 56, 3), dtype=np.uint8)
    np.testing.assert_allclose(embedder.embed_events([long]), embedder.embed_events([long[[1, 4, 7, 10]]]), atol=1e-6)


@pytest.mark.parametrize(
    ("count", "wanted", "chosen"),
    [(1, 4, [0, 0, 0, 0]), (2, 4, [0, 0, 1, 1]), (4, 4, [0, 1, 2, 3]), (9, 3, [1, 4, 7])],
)
def test_each_chosen_frame_stands_for_an_equal_part(count, wanted, chosen):
    assert evenly_chosen(count, wanted).tolist() == chosen


def test_batches_do_not_change_the_vectors(videoprism_folder, load, clips):
    together, alone = load(videoprism_folder, batch_size=8), load(videoprism_folder, batch_size=1)
    np.testing.assert_allclose(together.embed_events(clips), alone.embed_events(clips), atol=1e-5)
