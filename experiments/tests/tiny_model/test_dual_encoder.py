"""The dual encoder learns, is saved and loaded, and the shipped one finds the right event."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from experiments.tiny_model.dual_encoder import (
    DualEncoderSettings,
    contrastive_loss,
    event_labels,
    fits,
    recall_at_1,
    train_and_save,
)
from marc.memory.embedder import TINY_FOLDER, EventEmbedder
from marc.world.questions import ABOUT_ONE_EVENT, KINDS, ask
from marc.world.scenes import sample_video, video_rng


@pytest.mark.skipif(not TINY_FOLDER.is_dir(), reason="the trained dual encoder is not there")
def test_the_shipped_encoder_finds_the_right_event() -> None:
    assert recall_at_1(EventEmbedder.from_pretrained("tiny", device="cpu"), seed=11, videos=60) >= 0.95


def test_a_few_steps_give_a_folder_that_loads(tmp_path: Path) -> None:
    recall = train_and_save(tmp_path / "clip", DualEncoderSettings(steps=2, videos=4))
    embedder = EventEmbedder.from_pretrained(tmp_path / "clip", device="cpu")
    assert 0 <= recall <= 1 and embedder.image_size == 28 and embedder.token_limit == 32
    assert not embedder.embed_question("What colour is the object in the striped scene?").truncated


def test_the_loss_is_the_cross_entropy_with_its_true_pairs() -> None:
    """With one match each it is CLIP's loss."""
    generator = torch.Generator().manual_seed(0)
    image, text = torch.randn(5, 8, generator=generator), torch.randn(5, 8, generator=generator)
    scale = torch.tensor(3.0)
    logits = scale * F.normalize(text, dim=-1) @ F.normalize(image, dim=-1).T
    target = torch.arange(5)
    clip = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
    torch.testing.assert_close(contrastive_loss(image, text, torch.eye(5) > 0, scale), clip)


def test_a_question_fits_the_events_that_look_as_it_says() -> None:
    assert set(ABOUT_ONE_EVENT) < set(KINDS)
    videos = [sample_video("easy", "train", 0, index) for index in range(40)]
    labels = event_labels(videos)
    assert len(labels) == sum(len(video.events) for video in videos)
    first = 0
    for index, video in enumerate(videos):
        for kind in ABOUT_ONE_EVENT:
            question = ask(video, kind, video_rng("easy", "train", 1, index))
            if question is not None and question.event is not None:
                own = torch.arange(first, first + len(video.events))
                chosen = fits(question, labels, first + question.event)
                assert chosen[own].nonzero().flatten().tolist() == [question.event]
        first += len(video.events)
