"""Segments, layouts and batches of the language model's training."""

import numpy as np
import pytest
import torch

from experiments.tiny_model.bank import FeatureBank
from experiments.tiny_model.batches import STORIES, World, lay_out, loss_names, make_segments
from experiments.tiny_model.packed_questions import AskedVideos
from experiments.tiny_model.recipe import Phase
from marc.world.scenes import sample_video


@pytest.fixture(scope="module")
def world() -> World:
    bank = FeatureBank(torch.randn(768, 2, 8, 4, 128, generator=torch.Generator().manual_seed(0)))
    return World(bank, seed=0, videos=4, questions=3)


def names(asked: AskedVideos) -> set[str]:
    return set(loss_names(asked))


def test_segments_keep_the_cuts() -> None:
    rng = np.random.default_rng(0)
    for index in range(50):
        video = sample_video("easy", "train", 0, index)
        lengths = make_segments(video, rng, 4)
        assert len(lengths) == 4 and sum(lengths) == 32 and min(lengths) >= 1
        cuts = set(np.cumsum([event.grids for event in video.events]))
        assert cuts <= set(np.cumsum(lengths))


@pytest.mark.parametrize(("layout", "tokens"), [("full", 128), ("pooled-4", 32), ("blank", 1)])
def test_layouts_have_their_number_of_tokens(world: World, layout: str, tokens: int) -> None:
    videos = [sample_video("easy", "train", 0, index) for index in range(4)]
    shown = lay_out(world.bank, videos, layout, np.random.default_rng(0), noisy=False)
    assert [video.features.shape for video in shown] == [(tokens, 128)] * 4
    assert [video.positions.shape for video in shown] == [(tokens, 3)] * 4


@pytest.mark.parametrize("noisy", [False, True])
def test_the_event_layout_keeps_to_its_budget(world: World, noisy: bool) -> None:
    videos = [sample_video("easy", "train", 0, index) for index in range(20)]
    shown = lay_out(world.bank, videos, "events", np.random.default_rng(1), noisy=noisy)
    counts = [len(video.features) for video in shown]
    assert max(counts) <= 4 and all(count >= len(video.events) for count, video in zip(counts, videos, strict=True))


def test_a_batch_follows_from_its_number(world: World) -> None:
    phase = Phase(9, {"events": 0.5, "full": 0.5}, {"short": 1.0}, stories=0.3, choices=0.5)
    for step in range(6):
        one, two = world.batch(step, phase, {}), world.batch(step, phase, {})
        assert (one.questions, one.style, one.jump) == (two.questions, two.style, two.jump)
        for mine, other in zip(one.shown, two.shown, strict=True):
            assert torch.equal(mine.features, other.features) and torch.equal(mine.positions, other.positions)


def test_steps_ask_what_the_phase_says(world: World) -> None:
    told = Phase(9, {"events": 1.0}, {"plain": 1.0}, stories=1.0)
    assert names(world.batch(0, told, {})) <= set(STORIES)
    chosen = Phase(9, {"events": 1.0}, {"plain": 1.0}, choices=1.0, kinds=("colour", "shape"))
    assert names(world.batch(0, chosen, {})) == {"colour (choice)", "shape (choice)"}
    assert names(world.batch(0, chosen, {"colour (choice)": 0.0})) == {"shape (choice)"}
