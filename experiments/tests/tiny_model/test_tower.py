"""Grids are cut as the processor cuts videos, and encoded as the model encodes them."""

import numpy as np
import torch
from transformers.video_utils import VideoMetadata

from experiments.tiny_model.initialisation import build_world_model, speak_in_words, word_embeddings
from experiments.tiny_model.recipe import TrainSettings
from experiments.tiny_model.tower import encode_grids, grids_to_patches, pretrain_tower, random_grids
from marc.world.renderer import render_video
from marc.world.scenes import sample_video


def test_patches_and_tokens_are_those_of_processor_and_model() -> None:
    model, processor = build_world_model(TrainSettings())
    frames = render_video(sample_video("easy", "test", 0, 0))
    metadata = VideoMetadata(total_num_frames=64, fps=2.0, frames_indices=list(range(64)))
    video = processor.video_processor(
        [frames.numpy()], video_metadata=[metadata], do_sample_frames=False, return_tensors="pt"
    )
    patches = grids_to_patches(frames.view(32, 2, *frames.shape[1:]).float() / 255)
    torch.testing.assert_close(patches.flatten(0, 1), video["pixel_values_videos"], atol=1e-5, rtol=1e-5)
    with torch.no_grad():
        stock = model.model.visual(video["pixel_values_videos"], grid_thw=video["video_grid_thw"]).pooler_output
        ours = encode_grids(model.model.visual, patches)
    torch.testing.assert_close(ours.flatten(0, 1), stock, atol=1e-4, rtol=1e-4)


def test_grids_show_their_labels() -> None:
    """A still grid has equal frames and an unknown direction; a moving one does not."""
    grids = random_grids(256, torch.Generator().manual_seed(0))
    assert grids.frames.shape == (256, 2, 28, 28, 3)
    change = (grids.frames[:, 0] - grids.frames[:, 1]).abs().flatten(1).amax(1)
    still = grids.labels[:, 3] < 0
    assert 10 < still.sum() < 60
    assert change[~still].min() > 0.15 > change[still].max()


def test_pretraining_learns_and_the_tower_then_speaks_in_words() -> None:
    """After a few steps colours can be told; the tower's tokens then resemble the words for them, at size 1."""
    model, processor = build_world_model(TrainSettings())
    tower, rows = model.model.visual, []
    pretrain_tower(tower, steps=60, batch=32, seed=0, log=rows.append, log_every=10)
    losses = [row["tower/loss"] for row in rows]
    assert losses[-1] < losses[0] < 2.5 and np.isfinite(losses).all()
    assert 0 < speak_in_words(model, processor.tokenizer, seed=0, grids=2048) < 0.9
    grids = random_grids(256, torch.Generator().manual_seed(1))
    tokens = encode_grids(tower, grids_to_patches(grids.frames)).mean(1)
    colours = word_embeddings(model, processor.tokenizer)[1]
    told = (tokens @ colours.T).argmax(-1) == grids.labels[:, 1]
    assert told.float().mean() > 0.6
    assert 0.2 < tokens.square().mean().sqrt() < 0.4
