"""A coarse memory: what key frames alone tell, found without reading the rest."""

from fractions import Fraction
from itertools import pairwise

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marc.memory import coarse
from marc.memory.coarse import CoarseMemory, at_key_frames, coarse_memory, nearest
from marc.memory.descriptors import Descriptors
from marc.memory.events import cut_into_events
from marc.memory.options import MemoryOptions
from marc.types import Event
from marc.video import key_frame_seconds, read_frames

FPS = 10


def write_scenes(path, lengths, *, key_every=20, codec="libx264", options=None, rate=FPS):
    """Still scenes of so many seconds, each of its own random blocks."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, options={"g": str(key_every), **(options or {})})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for seed, length in enumerate(lengths):
            blocks = np.random.default_rng(seed).integers(30, 220, (6, 8, 3), dtype=np.uint8)
            picture = av.VideoFrame.from_ndarray(blocks.repeat(8, 0).repeat(8, 1), format="rgb24")
            for _ in range(round(length * rate)):
                picture.pts = None
                container.mux(stream.encode(picture))
        container.mux(stream.encode())
    return path


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Scenes that begin at 0, 12, 40 and 47 s of 70; a key frame every 2 s and where a scene begins."""
    return write_scenes(tmp_path_factory.mktemp("scenes") / "scenes.mp4", [12, 28, 7, 23])


def test_scenes_that_encoders_put_key_frames_at_are_events(scenes, embedder):
    found = coarse_memory(scenes, embedder, MemoryOptions(max_event_seconds=30))
    starts = [event.start for event in found.memory.events]
    assert {0.0, 12.0, 40.0, 47.0} <= set(starts)
    assert found.memory.events[-1].end == pytest.approx(70.0)
    assert len(found.memory.thumbnails) == len(starts) == len(found.memory.embeddings)
    assert set(starts) <= set(found.key_frames.tolist())


def test_a_memory_tells_its_events_apart_as_the_embedder_does(scenes, embedder):
    found = coarse_memory(scenes, embedder, MemoryOptions(max_event_seconds=30)).memory
    for event, vector in zip(found.events, found.embeddings, strict=True):
        shown = embedder.embed_frames(
            read_frames(scenes, [event.middle], min_pixels=1, max_pixels=2 * 32**2, factor=2).rgb
        )
        assert float(shown[0] @ vector) > 0.99


@pytest.mark.parametrize("rate", [Fraction(24000, 1001), Fraction(30000, 1001), 24, 30, 60])
def test_every_event_has_a_picture_at_rates_whose_times_are_rounded(tmp_path, embedder, rate):
    path = write_scenes(tmp_path / "clip.mp4", [3] * 30, key_every=round(2 * rate), rate=rate)
    memory = coarse_memory(path, embedder, MemoryOptions(max_event_seconds=4)).memory
    assert len(memory.events) == len(memory.embeddings) > 15


def test_a_file_that_does_not_tell_its_key_frames_has_no_coarse_memory(tmp_path, embedder):
    assert coarse_memory(write_scenes(tmp_path / "clip.h264", [5]), embedder, MemoryOptions()) is None


def test_only_key_frames_are_read(scenes, embedder, monkeypatch):
    asked = []
    monkeypatch.setattr(
        coarse,
        "read_frames",
        lambda video, times, **limits: asked.append(times) or read_frames(video, times, **limits),
    )
    found = coarse_memory(scenes, embedder, MemoryOptions())
    (times,) = asked
    assert set(times.tolist()) <= set(found.key_frames.tolist())
    assert len(times) <= coarse.PICTURES


@pytest.mark.parametrize("key_every", [20, 200])
def test_a_video_of_few_key_frames_is_not_known_by_them(tmp_path, embedder, key_every, monkeypatch):
    monkeypatch.setattr(coarse, "FARTHEST", 15.0)
    options = {"x264-params": "scenecut=0"}
    path = write_scenes(tmp_path / "few.mp4", [35], key_every=key_every, options=options)
    assert (coarse_memory(path, embedder, MemoryOptions()) is None) == (key_every == 200)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts", ".webm"])
def test_key_frames_are_where_they_were_put(tmp_path, suffix):
    codec, options = (
        ("libvpx", {"deadline": "realtime"}) if suffix == ".webm" else ("libx264", {"x264-params": "scenecut=0"})
    )
    path = write_scenes(tmp_path / f"clip{suffix}", [7], codec=codec, options=options | {"keyint_min": "20"})
    assert key_frame_seconds(path) == pytest.approx([0.0, 2.0, 4.0, 6.0], abs=2e-3)


def test_a_raw_stream_states_no_times(tmp_path):
    assert len(key_frame_seconds(write_scenes(tmp_path / "raw.h264", [3]))) == 0


TIMES = st.lists(st.floats(0, 100, allow_nan=False), min_size=1, max_size=30).map(
    lambda times: np.unique([0.0, *times])
)


@given(TIMES, st.lists(st.floats(0, 120), min_size=1, max_size=20))
def test_the_nearest_is_nearest(keys, times):
    found = nearest(keys, np.array(times))
    assert np.abs(found - times) == pytest.approx(np.abs(keys[:, None] - np.array(times)).min(axis=0))


@given(TIMES, st.lists(st.floats(0, 120), min_size=1, max_size=20).map(sorted), st.floats(0, 60))
def test_moved_frames_stay_in_order_and_behind_the_start(keys, times, start):
    wanted = np.array([max(time, start) for time in times])
    found = CoarseMemory(memory=None, key_frames=keys).moved(wanted, start)
    assert (np.diff(found) >= 0).all() and (found >= start).all() and (found <= wanted).all()
    is_key = np.isin(found, keys)
    between = [not ((keys >= start) & (keys <= time)).any() for time in wanted]
    assert (is_key | between).all()


@given(TIMES, st.integers(0, 2**32 - 1), st.floats(1, 60))
def test_every_event_holds_one_of_the_pictures(keys, seed, longest):
    generator = np.random.default_rng(seed)
    duration = float(keys[-1] + 1 + generator.random())
    pictures = np.unique(nearest(keys, duration * (np.arange(coarse.PICTURES) + 0.5) / coarse.PICTURES))
    longest = max(longest, 2 * float(np.diff(pictures, prepend=0.0, append=duration).max()))
    descriptors = Descriptors(pictures, generator.normal(size=(len(pictures), 4)))
    cut = cut_into_events([], duration, descriptors, min_seconds=0.4, max_seconds=longest)
    events = at_key_frames(cut, keys)
    assert events[0].start == 0 and events[-1].end == duration
    assert all(one.end == other.start for one, other in pairwise(events))
    for event in events:
        assert ((pictures >= event.start) & (pictures < event.end)).any(), event
        assert event.start == 0 or event.start in keys
    assert Event(0.0, duration).duration == pytest.approx(sum(event.duration for event in events))
