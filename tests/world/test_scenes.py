"""The world is drawn from seeds alone, and what is drawn keeps its promises."""

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marc.world.export import to_row, video_questions
from marc.world.renderer import render_video
from marc.world.scenes import LEVELS, sample_video, split_length, video_rng

levels = st.sampled_from(list(LEVELS))
indices = st.integers(0, 10**6)


@given(levels, indices)
@settings(max_examples=60)
def test_a_video_keeps_to_its_level(level: str, index: int) -> None:
    video, limits = sample_video(level, "test", 0, index), LEVELS[level]
    assert limits.min_events <= len(video.events) <= limits.max_events
    assert video.frame_count == 2 * limits.grids == len(video.event_of_frame)
    assert all(event.grids >= limits.min_grids for event in video.events)
    assert len({event.background for event in video.events}) == len(video.events)
    for event in video.events:
        assert 1 <= len({item.name for item in event.objects}) == len(event.objects) <= limits.max_objects


@given(levels, indices)
@settings(max_examples=20)
def test_the_same_number_is_the_same_video(level: str, index: int) -> None:
    assert sample_video(level, "test", 3, index) == sample_video(level, "test", 3, index)


def test_splits_and_seeds_share_no_video() -> None:
    shown = {
        sample_video("easy", split, seed, index).events
        for split in ("train", "validation", "test")
        for seed in range(3)
        for index in range(50)
    }
    assert len(shown) == 3 * 3 * 50


def test_a_known_video_stays_what_it_is() -> None:
    """Published numbers refer to these draws: a change of them is a change of the benchmark."""
    video = sample_video("easy", "test", 0, 0)
    assert [event.background for event in video.events] == ["tiled", "diagonal"]
    assert [item.name for event in video.events for item in event.objects] == ["blue triangle", "red square"]


@given(st.integers(1, 6), st.integers(1, 5), st.integers(0, 40), st.integers(0, 1000))
def test_lengths_add_up(parts: int, shortest: int, slack: int, seed: int) -> None:
    total = parts * shortest + slack
    lengths = split_length(video_rng("easy", "train", seed, 0), total, parts, shortest)
    assert len(lengths) == parts and sum(lengths) == total and min(lengths) >= shortest


@pytest.mark.parametrize(("level", "split", "word"), [("medium", "test", "medium"), ("easy", "dev", "dev")])
def test_unknown_names_are_refused(level: str, split: str, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        sample_video(level, split, 0, 0)


def test_the_older_levels_stay_what_they_are() -> None:
    """Pixels, questions and rows of ten videos, as they were before there were other levels."""
    digest = hashlib.sha256()
    for level in ("easy", "hard"):
        for index in range(5):
            video = sample_video(level, "test", 0, index)
            digest.update(render_video(video).numpy().tobytes())
            for number, question in enumerate(video_questions(video, "test", 0, index, 20)):
                digest.update(repr(to_row(question, video, "p", number)).encode())
    assert digest.hexdigest() == "8ba92dd0e7840980d563b9d86dbee0916a5ec4be1880a899c02028eea84e0229"
