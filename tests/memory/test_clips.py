"""Models of clips see the frames of each event together, at the times of the event, and nothing else."""

import numpy as np
import pytest

from marc.memory import MemoryOptions, remember
from marc.memory.clips import CoarsePictures, embed_clips
from marc.memory.coarse import coarse_memory
from marc.memory.keyframes import KeyframeCollector
from marc.types import Event
from marc.video import read_frames, read_to


class ClipColours:
    """A model of clips of 20 frames whose vectors are mean colours; single frames it refuses."""

    name, device, dimension = "clip colours", "cpu", 3
    image_size, clip_frames = 32, 20

    def __init__(self):
        self.clips = []

    @property
    def identity(self):
        return {"fingerprint": "e" * 64, "precision": "fp32"}

    def embed_events(self, frames_per_event, seconds_per_event):
        self.clips += list(zip(frames_per_event, seconds_per_event, strict=True))
        means = np.stack([frames.reshape(-1, 3).mean(axis=0) for frames in frames_per_event])
        return (means / np.linalg.norm(means, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def video(tmp_path, write_colours):
    return write_colours(tmp_path / "video.mp4", "red", "green", "blue", "red")


def test_each_event_is_a_clip_of_its_own_frames(video):
    events, embedder = [Event(0, 2), Event(2, 5), Event(5, 6), Event(6, 8)], ClipColours()
    vectors = embed_clips(video, events, embedder)
    assert vectors.shape == (4, 3)
    assert vectors.argmax(axis=1).tolist() == [0, 1, 2, 0]
    for event, (frames, seconds) in zip(events, embedder.clips, strict=True):
        assert seconds == pytest.approx((np.arange(20) + 0.5) * event.duration / 20)
        alone = read_frames(video, event.start + seconds, min_pixels=1, max_pixels=2 * 32**2, factor=2)
        np.testing.assert_array_equal(frames, alone.rgb)


def test_keyframes_are_compared_by_coarse_pictures_and_not_embedded(video):
    embedder = ClipColours()
    keyframes = KeyframeCollector(embedder, interval=1.0, thumbnail_width=20)
    read_to(video, [keyframes])
    alike = keyframes.descriptors.vectors @ keyframes.descriptors.vectors.T
    assert alike[0, 1] > 0.999 and alike[0, 6] > 0.999 and alike[0, 2] < 0.9
    assert not embedder.clips
    events = [Event(0, 2), Event(2, 8)]
    keyframes.complete(video, events)
    vectors, thumbnails = keyframes.describe(events)
    assert (len(embedder.clips), vectors.shape, len(thumbnails)) == (2, (2, 3), 2)


def test_a_video_is_remembered_by_its_clips(video, tmp_path):
    memory = remember(video, ClipColours(), MemoryOptions(segmenter="uniform"), folder=tmp_path / "memories")
    expected = embed_clips(video, memory.events, ClipColours())
    np.testing.assert_array_equal(memory.embeddings, expected)


def test_there_is_no_coarse_memory_of_clips(video):
    assert coarse_memory(video, ClipColours(), MemoryOptions(segmenter="uniform")) is None


def test_coarse_pictures_tell_pictures_apart_and_black_is_one():
    frames = np.zeros((3, 24, 32, 3), np.uint8)
    frames[1] = 255
    frames[2, :, :16, 0] = 255
    vectors = CoarsePictures(32).embed_frames(frames)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    alike = vectors @ vectors.T
    assert alike[0, 1] < 0.1 and alike[0, 2] < 0.95 and alike[1, 2] < 0.9
