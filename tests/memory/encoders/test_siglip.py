"""SigLIP and SigLIP 2: what transformers' own classes say of the same pictures and texts."""

import numpy as np
import pytest
import torch

QUESTIONS = ["What is on the last slide?", "a red cat"]


@pytest.fixture(params=["siglip_folder", "naflex_folder"])
def folder(request):
    return request.getfixturevalue(request.param)


@pytest.fixture
def pictures():
    return np.random.default_rng(0).integers(0, 256, (3, 40, 56, 3), dtype=np.uint8)


def stock(folder):
    from transformers import AutoModel, AutoProcessor

    return AutoModel.from_pretrained(folder).eval(), AutoProcessor.from_pretrained(folder)


def unit(vectors):
    return torch.nn.functional.normalize(vectors.double(), dim=-1).numpy()


def test_vectors_equal_a_plain_use_of_transformers(folder, load, pictures):
    model, processor = stock(folder)
    lower = [question.lower() for question in QUESTIONS]
    with torch.no_grad():
        shown = model.get_image_features(
            **processor.image_processor(images=list(pictures), return_tensors="pt")
        ).pooler_output
        told = model.get_text_features(
            **processor(text=lower, padding="max_length", max_length=12, return_tensors="pt")
        ).pooler_output
    embedder = load(folder)
    np.testing.assert_allclose(embedder.embed_frames(pictures), unit(shown), atol=1e-5)
    found = np.stack([question.vector for question in embedder.embed_questions(QUESTIONS)])
    np.testing.assert_allclose(found, unit(told), atol=1e-5)
    assert found.shape == (2, embedder.dimension)
    assert embedder.image_size == 32
    assert embedder.clip_frames == 1


def test_a_text_is_read_up_to_the_limit_and_that_is_said(folder, load):
    tokenizer = stock(folder)[1].tokenizer
    texts = ["cat " * count for count in range(1, 14)]
    counts = [len(tokenizer(text).input_ids) for text in texts]
    found = load(folder).embed_questions(texts)
    assert [each.token_count for each in found] == counts
    assert [each.truncated for each in found] == [count > 12 for count in counts]
    assert {each.truncated for each in found} == {True, False}


def test_case_does_not_matter(folder, load):
    one, other = load(folder).embed_questions(["A RED cat", "a red cat"])
    np.testing.assert_array_equal(one.vector, other.vector)


def test_bf16_stays_near_float32_and_takes_half(folder, load, pictures):
    half, whole = load(folder, precision="bf16"), load(folder)
    assert (half.embed_frames(pictures) * whole.embed_frames(pictures)).sum(axis=1).min() > 0.99
    assert half.identity != whole.identity
    assert half.fingerprint == whole.fingerprint
    bytes_of = [sum(weight.nbytes for weight in each.model.parameters()) for each in (half, whole)]
    assert bytes_of[0] == bytes_of[1] / 2
