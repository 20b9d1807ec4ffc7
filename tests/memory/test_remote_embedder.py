"""A worker whose passes are shared, without a cluster: threads ask it as Ray's do."""

import io
import threading
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from marc.memory.embedder import DualEncoder
from marc.memory.pictures import decoded
from marc.memory.remote_embedder import SharedWorker


def jpegs(count, seed, size=(48, 40)):
    shades = np.random.default_rng(seed).integers(0, 256, (count, 5, 6, 3), dtype=np.uint8)
    return [jpeg(Image.fromarray(each).resize(size)) for each in shades]


def jpeg(picture):
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG")
    return buffer.getvalue()


class Gated:
    """An embedder whose first pass lasts until it is let go, and which notes what is embedded together."""

    def __init__(self, embedder):
        self._embedder, self.passes = embedder, []
        self.begun, self.gate = threading.Event(), threading.Event()

    def __getattr__(self, name):
        return getattr(self._embedder, name)

    def embed_frames(self, frames):
        return self.noted(self._embedder.embed_frames, frames)

    def embed_events(self, frames, seconds):
        return self.noted(self._embedder.embed_events, frames, seconds)

    def noted(self, embed, *values):
        self.passes.append(len(values[-1]))
        self.begun.set()
        assert self.gate.wait(30)
        return embed(*values)


def answers_behind_a_pass(worker, embedder, first, *asked):
    """What some get that ask while a first pass runs, each a method and its values: vectors or an error."""
    with ThreadPoolExecutor(1 + len(asked)) as threads:
        running = threads.submit(*first)
        assert embedder.begun.wait(30)
        answers = [threads.submit(*each) for each in asked]
        while len(worker._pictures._waiting + worker._clips._waiting) + sum(map(Future.done, answers)) < len(asked):
            threading.Event().wait(0.001)
        embedder.gate.set()
        assert running.exception(30) is None
        return [answer.exception(30) or answer.result() for answer in answers]


def test_pictures_of_several_videos_are_one_pass_and_each_gets_its_vectors(embedder):
    gated = Gated(embedder)
    worker = SharedWorker(lambda: gated, 16)
    videos = [jpegs(3, 1), jpegs(2, 2, (32, 32)), jpegs(4, 3), [b"no picture"], jpegs(1, 4), jpegs(2, 5)]
    one, *together = (worker.embed_pictures_with_others,) * len(videos)
    together[-1] = worker.embed_pictures
    asked = list(zip(together, videos[1:], strict=True))
    other, joined, error, single, alone = answers_behind_a_pass(worker, gated, (one, videos[0]), *asked)
    assert sorted(gated.passes[1:]) == [2, 2, 5]
    assert "cannot identify image" in str(error)
    for found, video in ((other, videos[1]), (joined, videos[2]), (single, videos[4]), (alone, videos[5])):
        expected = np.concatenate([embedder.embed_frames(decoded(each)[None]) for each in video])
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_clips_of_several_videos_are_one_pass_too(colours):
    clips = Gated(colours.ClipEmbedder())
    worker = SharedWorker(lambda: clips, 8)
    frames = np.random.default_rng(0).integers(0, 256, (7, 2, 8, 8, 3), dtype=np.uint8)
    seconds = [np.arange(2) * 0.5] * 7
    parts = [slice(0, 1), slice(1, 3), slice(3, 6), slice(6, 7)]
    first, *asked = [(worker.embed_events_with_others, list(frames[part]), seconds[part]) for part in parts]
    asked.append((worker.embed_events, list(frames[:2]), seconds[:2]))
    *joined, alone = answers_behind_a_pass(worker, clips, first, *asked)
    assert clips.passes[0] == 1 and sum(clips.passes[1:]) == 8 and max(clips.passes) <= 4, (
        "eight frames are four clips"
    )
    expected = colours.ClipEmbedder().embed_events(list(frames), seconds)
    np.testing.assert_allclose(np.concatenate(joined), expected[1:], atol=1e-6)
    np.testing.assert_allclose(alone, expected[:2], atol=1e-6)


@pytest.mark.parametrize(("most", "passes"), [(3, [3, 3, 2] * 5), (40, [40])])
def test_the_model_sees_as_many_at_once_as_was_asked(embedder, monkeypatch, most, passes):
    gated, encode = Gated(embedder), DualEncoder.encode_frames
    monkeypatch.setattr(embedder, "batch_size", 32)
    monkeypatch.setattr(DualEncoder, "encode_frames", lambda model, frames: gated.noted(encode, model, frames))
    worker = SharedWorker(lambda: embedder, most)
    asked = [(worker.embed_pictures_with_others, jpegs(8, seed)) for seed in range(5)]
    answers_behind_a_pass(worker, gated, (worker.embed_pictures_with_others, jpegs(1, 9)), *asked)
    assert gated.passes[1:] == passes
