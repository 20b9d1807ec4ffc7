"""Videos whose pictures stay for different times: how long they are, what is shown when, and what is sampled."""

from __future__ import annotations

import sys
from ctypes.util import find_library
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from marc.types import VideoInfo
from marc.video import probe, read_frames, sample_times, stream_frames
from marc.video.decoding import open_video

sys.path.insert(0, str(Path(__file__).parent))
from make_videos import LONG_GOP, frame_number, numbered_frames, write_video

sys.path.pop(0)

HELD = np.append(np.arange(60) / 30, 1790 / 30)
"""Two seconds of motion, and one more picture a minute later: what a screen recorder stores."""
X264 = {"codec": "libx264", "options": {"bf": "3"}}
VP9 = {"codec": "libvpx-vp9", "options": {"deadline": "realtime", "cpu-used": "8"}}
FRAGMENTS = {"container_options": {"movflags": "frag_keyframe+empty_moov"}}
SLIDE_SECONDS = np.array([4, 9, 2, 14, 6, 3, 11, 0.5, 8, 12, 3, 7, 10, 6, 4, 9, 2, 5, 13, 7, 3, 8.5, 6, 13])
SLIDES = np.concatenate([[0], np.cumsum(SLIDE_SECONDS)[:-1], [np.sum(SLIDE_SECONDS) - 0.5]])
"""24 slides; the last is stored once more half a second before the end, as encoders do."""


def numbers(rgb_THWC: np.ndarray) -> list[int]:
    return [frame_number(rgb_HWC) for rgb_HWC in rgb_THWC]


def shown(starts: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    """Which picture is shown at each time, by definition."""
    return np.maximum((starts[None] <= np.asarray(seconds)[:, None] + 1e-6).sum(axis=1) - 1, 0)


@pytest.fixture(scope="module")
def slides(tmp_path_factory) -> dict[str, Path]:
    """The same slides, stored once each and at a constant rate of two a second."""
    folder = tmp_path_factory.mktemp("slides")
    pictures = numbered_frames(24)
    once = np.append(np.arange(24), 23)
    write_video(folder / "once.mp4", pictures[once], seconds=SLIDES, options=LONG_GOP)
    write_video(folder / "once.mkv", pictures[once], seconds=SLIDES, options=LONG_GOP)
    write_video(
        folder / "constant.mp4", np.repeat(pictures, (2 * SLIDE_SECONDS).astype(int), axis=0), fps=2, options=LONG_GOP
    )
    return {path.name: path for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("held.mp4", X264),
        ("held.mkv", X264),
        ("held.ts", X264),
        ("held.webm", VP9),
        ("fragments.mp4", X264 | FRAGMENTS),
    ],
)
def test_a_picture_that_is_held_counts_as_long_as_it_stays(tmp_path, name, arguments):
    write_video(tmp_path / name, numbered_frames(61), seconds=HELD, **arguments)
    info = probe(tmp_path / name)
    assert info.duration == pytest.approx(HELD[-1] + 1 / 30, abs=0.035)
    assert (info.frame_count, len(info.starts)) == (61, 61)
    times = sample_times(info)
    assert len(times) == 64
    assert times[-1] < info.duration
    frames = read_frames(tmp_path / name, [1.0, 30.0, 59.0, 59.68])
    assert numbers(frames.rgb) == [30, 59, 59, 60]
    assert set(numbers(read_frames(tmp_path / name).rgb)) == set(range(61)), "all pictures fit, so all are sampled"


def test_a_last_picture_that_stays_is_no_missing_end(tmp_path):
    write_video(tmp_path / "clip.mkv", numbered_frames(4), seconds=[0, 1, 2, 3], last_seconds=20.0)
    assert probe(tmp_path / "clip.mkv").duration == pytest.approx(23.0, abs=0.01)
    assert numbers(read_frames(tmp_path / "clip.mkv", [0.5, 15.0, 22.0]).rgb) == [0, 3, 3]
    assert sum(len(batch) for batch in stream_frames(tmp_path / "clip.mkv", width=84, height=56)) == 4


@pytest.mark.parametrize("name", ["once.mp4", "once.mkv"])
def test_slides_stored_once_are_sampled_like_slides_at_a_constant_rate(slides, name):
    once, constant = probe(slides[name]), probe(slides["constant.mp4"])
    assert once.duration == pytest.approx(constant.duration, abs=0.51)
    assert constant.starts == ()
    times = sample_times(constant, max_frames=32)
    same = read_frames(slides[name], times)
    assert numbers(same.rgb) == numbers(read_frames(slides["constant.mp4"], times).rgb)
    missed = set(range(24)) - set(numbers(same.rgb))
    assert missed, "32 even times do not show the slides that stay for 2 s"
    sampled = read_frames(slides[name], max_frames=32)
    assert len(sampled) == len(times)
    assert set(numbers(sampled.rgb)) == set(range(24))
    np.testing.assert_allclose(
        np.median(np.diff(sample_times(once, max_frames=32))), np.median(np.diff(times)), rtol=0.1
    )


@example(gaps=[0.8999999999999999], fps=1.0, most=2, part=(0.8999999999999999, 1.0))
@given(
    gaps=st.lists(st.floats(0.02, 40), min_size=1, max_size=80),
    fps=st.floats(0.1, 10),
    most=st.integers(2, 100),
    part=st.tuples(st.floats(0, 0.9), st.floats(0.05, 1)),
)
def test_sampling_shows_as_many_pictures_as_fit(gaps, fps, most, part):
    starts = np.cumsum([0, *gaps])
    duration = float(starts[-1]) + 0.1
    info = VideoInfo("video", 64, 64, duration, len(starts) / duration, len(starts), "h264", 0, tuple(starts))
    start = part[0] * duration
    end = start + part[1] * (duration - start)
    times = sample_times(info, fps=fps, max_frames=most, min_frames=2, start=start, end=end)
    wanted = max(2, min(int((end - start) * fps) // 2 * 2, most // 2 * 2))
    assert len(times) == wanted
    assert (np.diff(times) >= 0).all()
    assert start <= times[0]
    assert times[-1] < end
    inside = np.unique(shown(starts, np.append(starts[(starts >= start) & (starts < end)], start)))
    assert len(np.unique(shown(starts, times))) == min(wanted, len(inside))


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    gaps=st.lists(st.integers(1, 3000), min_size=1, max_size=30),
    asked=st.lists(st.floats(-1, 60), min_size=1, max_size=20),
    container=st.sampled_from(["mp4", "mkv"]),
)
def test_the_picture_shown_is_the_last_that_has_started(tmp_path, gaps, asked, container):
    starts = np.cumsum([0, *gaps]) / 1000
    path = tmp_path / f"clip.{container}"
    options = {"g": "7", "bf": "3", "preset": "ultrafast"}
    write_video(path, numbered_frames(len(starts)), seconds=starts, options=options)
    times = np.sort(np.round(asked, 3)) + 5e-4  # the clock of the files has a thousand ticks a second
    with open_video(str(path)) as reader:
        pictures = list(reader.pictures_at(times))
        assert reader.info.duration > starts[-1]
        if container == "mp4":  # Matroska does not say how many there are, and what its packets say may be hidden
            assert reader.info.frame_count == len(starts)
    np.testing.assert_allclose([picture.seconds for picture in pictures], starts[shown(starts, times)], atol=1e-3)


@pytest.mark.parametrize("name", ["held.mp4", "held.mkv"])
def test_torchcodec_gives_the_picture_that_stays(tmp_path, name):
    if not find_library("avutil"):
        pytest.skip("torchcodec needs FFmpeg's shared libraries")
    pytest.importorskip("torchcodec")
    starts = np.cumsum([0, *np.tile([0.04, 0.04, 1.5, 0.3], 15)])
    write_video(tmp_path / name, numbered_frames(len(starts)), seconds=starts, options={"bf": "3"})
    times = np.linspace(0, starts[-1] - 0.1, 119) + 7e-4
    assert numbers(read_frames(tmp_path / name, times).rgb) == shown(starts, times).tolist()
    assert numbers(read_frames(tmp_path / name, times, backend="torchcodec").rgb) == shown(starts, times).tolist()


def test_streams_give_a_picture_that_stays_again_to_whom_asks(slides):
    from marc.video import EveryFrame, SampledFrames, read_to

    class Listener:
        def __init__(self, request) -> None:
            self.request = request
            self.seconds: list[float] = []

        def consume(self, frames) -> None:
            self.seconds += frames.seconds.tolist()

    requests = [EveryFrame(84, 56), EveryFrame(84, 56, takes_held=True), SampledFrames(3.0, 84 * 56)]
    once, constant = ([Listener(request) for request in requests] for _ in range(2))
    read_to(slides["once.mp4"], once)
    read_to(slides["constant.mp4"], constant)
    np.testing.assert_allclose(once[0].seconds, SLIDES, atol=1e-3)
    for uneven, even in list(zip(once, constant, strict=True))[1:]:
        np.testing.assert_allclose(uneven.seconds, even.seconds, atol=2e-3)
