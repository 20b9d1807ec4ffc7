"""Grids are cut as the processor cuts videos, and encoded as the model encodes them."""

import numpy as np
import pytest
import torch
from transformers.video_utils import VideoMetadata

from experiments.tiny_model.families import FAMILIES
from experiments.tiny_model.initialisation import (
    DEEP_SIZE,
    TOKEN_SIZE,
    build_world_model,
    speak_in_words,
    word_embeddings,
)
from experiments.tiny_model.recipe import TrainSettings
from experiments.tiny_model.tower import colours_of, encode_grids, grids_to_patches, pretrain_tower, random_grids
from marc.inference.video_input import at_compression, every_token
from marc.model.streams import features_of_each
from marc.world.renderer import render_video
from marc.world.scenes import sample_video


@pytest.mark.parametrize("family", FAMILIES)
def test_patches_and_tokens_are_those_of_processor_and_model(family: str) -> None:
    model, processor = build_world_model(TrainSettings(family=family))
    frames = render_video(sample_video("easy", "test", 0, 0))
    metadata = VideoMetadata(total_num_frames=64, fps=2.0, frames_indices=list(range(64)))
    video = processor.video_processor(
        [frames.numpy()], video_metadata=[metadata], do_sample_frames=False, return_tensors="pt"
    )
    patches = grids_to_patches(frames.view(32, 2, *frames.shape[1:]).float() / 255, colours_of(processor))
    torch.testing.assert_close(patches.flatten(0, 1), video["pixel_values_videos"], atol=1e-5, rtol=1e-5)
    with torch.no_grad():
        with at_compression(model, every_token(model.compression)):
            theirs = model.model.get_video_features(video["pixel_values_videos"], video["video_grid_thw"])
        ours = encode_grids(model.model.visual, patches)
    torch.testing.assert_close(ours.flatten(0, 1), features_of_each(theirs)[0], atol=1e-4, rtol=1e-4)


def test_grids_show_their_labels() -> None:
    """A still grid has equal frames and an unknown direction; a moving one does not."""
    grids = random_grids(256, torch.Generator().manual_seed(0))
    assert grids.frames.shape == (256, 2, 28, 28, 3)
    change = (grids.frames[:, 0] - grids.frames[:, 1]).abs().flatten(1).amax(1)
    still = grids.labels[:, 3] < 0
    assert 10 < still.sum() < 60
    assert change[~still].min() > 0.15 > change[still].max()


@pytest.mark.parametrize("family", FAMILIES)
def test_pretraining_learns_and_the_tower_then_speaks_in_words(family: str) -> None:
    """After a few steps colours can be told; all streams of its tokens then resemble the words for them, at a size."""
    model, processor = build_world_model(TrainSettings(family=family))
    tower, colours, rows = model.model.visual, colours_of(processor), []
    pretrain_tower(tower, colours, steps=60, batch=32, seed=0, log=rows.append, log_every=10)
    losses = [row["tower/loss"] for row in rows]
    assert losses[-1] < losses[0] < 2.5 and np.isfinite(losses).all()
    unexplained = speak_in_words(model, processor, seed=0, grids=2048)
    sizes = {"qwen2_5_vl": [TOKEN_SIZE], "qwen3_vl": [TOKEN_SIZE, DEEP_SIZE]}[family]
    assert len(unexplained) == len(sizes) and 0 < min(unexplained) <= max(unexplained) < 0.9
    grids = random_grids(256, torch.Generator().manual_seed(1))
    words = word_embeddings(model, processor.tokenizer)[1]
    tokens = encode_grids(tower, grids_to_patches(grids.frames, colours)).mean(1)
    for stream, size in zip(tokens.split(words.shape[1], -1), sizes, strict=True):
        told = (stream @ words.T).argmax(-1) == grids.labels[:, 1]
        assert told.float().mean() > 0.6
        assert 0.7 * size < stream.square().mean().sqrt() < 1.3 * size
