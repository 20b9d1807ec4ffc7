from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from marc.memory import keyframes as module
from marc.memory.keyframes import KeyframeCollector
from marc.types import Event, Frames
from marc.video import read_to, write_video

FPS = 5


class MeanColour:
    image_size = 64

    def __init__(self) -> None:
        self.batches: list[int] = []

    def embed_frames(self, frames_THWC: np.ndarray) -> np.ndarray:
        self.batches.append(len(frames_THWC))
        means = frames_THWC.reshape(len(frames_THWC), -1, 3).mean(axis=1)
        return (means / np.linalg.norm(means, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def keyframes() -> KeyframeCollector:
    return KeyframeCollector(MeanColour(), interval=1.0, thumbnail_width=20)


@pytest.fixture
def red_then_blue(tmp_path: Path) -> Path:
    """Ten seconds, red for the first six."""
    frames = np.zeros((10 * FPS, 48, 64, 3), np.uint8)
    frames[: 6 * FPS, ..., 0] = frames[6 * FPS :, ..., 2] = 200
    write_video(tmp_path / "clip.mp4", frames, fps=FPS)
    return tmp_path / "clip.mp4"


def test_keyframes_are_taken_while_the_video_is_read(keyframes: KeyframeCollector, red_then_blue: Path, monkeypatch):
    monkeypatch.setattr(module, "read_frames", lambda *_, **__: pytest.fail("the video was decoded twice"))
    read_to(red_then_blue, [keyframes])
    assert len(keyframes) == 10
    np.testing.assert_allclose(
        keyframes.descriptors.seconds, np.arange(10) + 0.6, atol=1e-6
    )  # frames shown from 0.5 on
    events = [Event(0, 6), Event(6, 10)]
    keyframes.complete(red_then_blue, events)
    vectors, thumbnails = keyframes.describe(events)
    assert vectors.argmax(axis=1).tolist() == [0, 2]
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-6)
    means = [np.asarray(Image.open(io.BytesIO(picture))).mean(axis=(0, 1)).argmax() for picture in thumbnails]
    assert means == [0, 2]


def test_events_that_no_keyframe_fell_into_get_their_own(keyframes: KeyframeCollector, red_then_blue: Path):
    grey = np.full((1, 48, 64, 3), 90, np.uint8)
    for second in (0.5, 9.0):
        keyframes.consume(Frames(grey, np.array([second]), "grey"))
    keyframes.complete(red_then_blue, [Event(0, 5.9), Event(5.9, 6.0), Event(6.0, 8.2), Event(8.2, 10)])
    np.testing.assert_allclose(keyframes.descriptors.seconds, [0.5, 5.95, 7.1, 9.0])


def test_an_event_is_the_mean_of_its_keyframes(keyframes: KeyframeCollector):
    colours = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255]], np.uint8)
    keyframes.consume(Frames(np.tile(colours[:, None, None], (1, 16, 16, 1)), np.array([1.0, 2.0, 3.0]), "made"))
    vectors, _ = keyframes.describe([Event(0.5, 2.5), Event(2.5, 4)])
    np.testing.assert_allclose(vectors, [[1, 0, 0], [0, 0, 1]], atol=0.01)
    vectors, _ = keyframes.describe([Event(0.5, 4)])
    np.testing.assert_allclose(vectors, [[0.5**0.5, 0, 0.5**0.5]], atol=0.01)


def test_of_two_keyframes_of_an_event_one_is_embedded(keyframes: KeyframeCollector):
    shades = np.arange(1, 25, dtype=np.uint8)[:, None, None, None] * 10
    keyframes.consume(Frames(np.tile(shades, (1, 16, 16, 3)), np.arange(24) + 0.5, "made"))
    keyframes.describe([Event(0, 1), Event(1, 4), Event(4, 12), Event(12, 24)])
    embedded = [round(float(keyframes._pictures[row].mean() / 10)) - 1 for row in keyframes._places]
    assert embedded == [0, 1, 3, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22], "evenly spread over each event, at least one"
    assert keyframes._embedder.batches == [8, 5]


def test_where_a_long_shot_is_to_be_split_all_are_embedded_and_stand_for_its_events(keyframes: KeyframeCollector):
    colours = np.zeros((12, 16, 16, 3), np.uint8)
    colours[:, 0], colours[:6, ..., 0], colours[6:, ..., 1] = np.arange(12)[:, None, None], 200, 200
    keyframes.consume(Frames(colours, np.arange(12) + 0.5, "made"))
    descriptors = keyframes.descriptors_in([Event(4, 8)])
    np.testing.assert_allclose(descriptors.seconds, np.arange(4, 8) + 0.5)
    assert descriptors.vectors.argmax(axis=1).tolist() == [0, 0, 1, 1]
    assert keyframes._members(Event(4, 8)).tolist() == [4, 5, 6, 7]
    assert len(keyframes._members(Event(0, 4))) == 2
    assert len(keyframes.descriptors_in([])) == 0
    assert sum(keyframes._embedder.batches) == 4


def test_a_picture_that_stays_is_embedded_once(keyframes: KeyframeCollector):
    colours = np.array([[255, 0, 0], [255, 0, 0], [0, 255, 0], [255, 0, 0]], np.uint8)
    for second, colour in enumerate(colours):
        keyframes.consume(Frames(np.tile(colour, (1, 16, 16, 1)), np.array([second + 0.5]), "made"))
    vectors, thumbnails = keyframes.describe([Event(0, 1), Event(1, 2), Event(2, 3), Event(3, 4)])
    assert vectors.argmax(axis=1).tolist() == [0, 0, 1, 0]
    assert thumbnails[0] == thumbnails[1] == thumbnails[3] != thumbnails[2]
    assert keyframes.descriptors.vectors.argmax(axis=1).tolist() == [0, 0, 1, 0]
    assert sum(keyframes._embedder.batches) == 3, "the second is the first, the fourth is embedded again"


def test_the_directions_of_different_keyframes_are_kept(keyframes: KeyframeCollector):
    colours = [(200, 0, 0), (200, 0, 0), (0, 200, 0), (0, 0, 200)]
    rgb = np.stack([np.full((48, 64, 3), colour, np.uint8) for colour in colours])
    keyframes.consume(Frames(rgb, np.arange(4.0), "a video"))
    first, second = keyframes.looks([Event(0, 3), Event(3, 4)])
    assert first.dtype == np.int8
    assert first.tolist() == [[127, 0, 0], [0, 127, 0]]
    np.testing.assert_allclose(second, [[0, 0, 127]], atol=1)


def test_of_many_keyframes_some_are_kept(keyframes: KeyframeCollector):
    rgb = np.stack([np.full((48, 64, 3), (200, shade, 0), np.uint8) for shade in range(0, 200, 10)])
    keyframes.consume(Frames(rgb, np.arange(20.0), "a video"))
    (looks,) = keyframes.looks([Event(0, 20)])
    assert looks.shape == (module.MOST_LOOKS, 3)
    assert (np.diff(looks[:, 1]) > 0).all() and looks[0, 1] < 20 and looks[-1, 1] > 100
