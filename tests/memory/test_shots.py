from __future__ import annotations

import shutil
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from make_videos import write_video as write_clip

from marc.memory import shots as module
from marc.memory.descriptors import Descriptors
from marc.memory.detectors import ShotDetector, Transition, make_detector
from marc.memory.detectors.scenedetect import SceneDetectDetector
from marc.memory.detectors.transnetv2 import TransNetV2Detector
from marc.memory.shots import Shots, find_shots, segment_events
from marc.types import Event, Frames, VideoInfo
from marc.video import EveryFrame, SampledFrames, VideoError, probe, write_video
from marc.video.process import POOL

FPS = 25.0
CUTS = (40, 90)  # first frames of the later shots of `three_shots`
LENGTH = 140


class Listener:
    """Counts the frames that are pushed to it."""

    def __init__(self, request) -> None:
        self.request = request
        self.seconds: list[float] = []

    def consume(self, frames: Frames) -> None:
        self.seconds += frames.seconds.tolist()


class Brightness(ShotDetector):
    """Tells each jump as soon as it is seen, and one more at the end."""

    frame_size = (16, 8)

    def start(self, info) -> None:
        self.before = None
        self.seen = 0

    def process(self, frames):
        self.seen += len(frames)
        assert frames.rgb.shape[1:] == (8, 16, 3)
        for second, level in zip(frames.seconds.tolist(), frames.rgb.mean(axis=(1, 2)), strict=True):
            if self.before and np.abs(level - self.before[1]).max() > 1:
                yield Transition(self.before[0], second, second)
            self.before = second, level

    def finish(self, duration):
        return [Transition(duration - 1, duration - 1, duration - 1)]


@pytest.mark.parametrize("name", ["transnetv2", "scenedetect"])
def test_hard_cuts_are_found_at_their_frames(three_shots: Path, name: str):
    shots = find_shots(three_shots, make_detector(name))
    assert [round(item.start * FPS) for item in shots.transitions] == [cut - 1 for cut in CUTS]
    assert [round(item.end * FPS) for item in shots.transitions] == list(CUTS)
    assert shots.boundaries == [item.end for item in shots.transitions]
    assert shots.duration == pytest.approx(LENGTH / FPS)
    np.testing.assert_allclose(shots.descriptors.seconds, [0, 1, 2, 3, 4, 5], atol=1e-6)


def test_what_stays_the_same_is_left_out_and_cuts_are_found_at_the_same_frames(tmp_path: Path):
    rng = np.random.default_rng(0)
    shots = [rng.integers(30, 220, (18, 32, 3), dtype=np.uint8).repeat(8, axis=0).repeat(8, axis=1) for _ in range(3)]
    write_clip(tmp_path / "clip.mp4", np.repeat(shots, [130, 85, 160], axis=0), 25, options={"g": "25"})
    skimming, every, exact = TransNetV2Detector(), TransNetV2Detector(), TransNetV2Detector(exact=True)
    every.skims = False
    assert (skimming.skims, exact.skims) == (True, False)
    listener = Listener(EveryFrame(48, 27, takes_held=True))
    found = find_shots(tmp_path / "clip.mp4", skimming, [listener])
    expected = find_shots(tmp_path / "clip.mp4", every)
    assert [(each.start, each.end) for each in found.transitions] == [(5.16, 5.2), (8.56, 8.6)]
    assert found.transitions == expected.transitions
    assert found.duration == expected.duration == 15
    assert len(found.descriptors) == len(expected.descriptors)
    assert len(listener.seconds) < 200


def test_a_detector_of_ones_own_is_pushed_every_frame_of_one_video_after_another(three_shots: Path):
    detector = Brightness()
    for _ in range(2):
        found = find_shots(three_shots, detector).boundaries
        assert [round(boundary * FPS) for boundary in found] == [*CUTS, LENGTH - 25]
        assert detector.seen == LENGTH


def test_one_reading_serves_detector_and_consumers_and_tells_how_far_it_is(three_shots: Path, tmp_path, monkeypatch):
    video, jobs = Path(shutil.copy(three_shots, tmp_path / "unknown.mp4")), []
    run = POOL.run
    monkeypatch.setattr(POOL, "run", lambda job, *args: jobs.append(type(job).__name__) or run(job, *args))
    sampled, same = Listener(SampledFrames(2.0, 4000)), Listener(EveryFrame(16, 8))
    told: list[float] = []
    find_shots(video, Brightness(), [sampled, same], progress=told.append)
    assert jobs == ["Probe", "Stream"]
    np.testing.assert_allclose(sampled.seconds, [1.0, 3.0, 5.0], atol=1e-6)
    assert len(same.seconds) == LENGTH
    assert told == sorted(told)
    assert told[-1] == pytest.approx((LENGTH - 1) / LENGTH)


def test_a_detector_that_needs_no_frames_has_nothing_decoded(three_shots: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "read_to", lambda *_, **__: pytest.fail("the video was decoded"))
    listener = Listener(SampledFrames(1.0, 100))
    shots = find_shots(three_shots, make_detector("uniform"), [listener])
    assert (shots.transitions, len(shots.descriptors), listener.seconds) == ((), 0, [])
    assert shots.duration == pytest.approx(LENGTH / FPS)


def test_an_interrupted_reading_stops_the_decoder(three_shots: Path):
    class Interrupted(ShotDetector):
        def process(self, frames):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        find_shots(three_shots, Interrupted())
    assert not any(process.is_busy for process in POOL._all)


def test_a_missing_video_is_named(tmp_path: Path):
    with pytest.raises(VideoError, match="nowhere"):
        find_shots(tmp_path / "nowhere.mp4", SceneDetectDetector())


def test_a_real_clip_has_the_shots_that_one_sees(real_videos: list[Path]):
    clip = {path.name: path for path in real_videos}.get("nasa_13013.mp4")
    if clip is None:
        pytest.skip("the clip nasa_13013.mp4 is not there")
    assert len(find_shots(clip, TransNetV2Detector()).transitions) >= 1


def test_a_video_becomes_events(monkeypatch: pytest.MonkeyPatch):
    seconds = np.arange(0, 45, 1.0)
    steps = Descriptors(seconds, (seconds >= 30)[:, None].astype(np.float64))
    cut, dissolve = Transition(9.96, 10.0, 10.0), Transition(11.0, 12.0, 11.5)
    calls = []

    def found(video, detector, *, progress):
        calls.append((video, detector, progress))
        return Shots((cut, dissolve), 45.0, steps)

    monkeypatch.setattr(module, "find_shots", found)
    detector = Brightness()
    events = segment_events("clip.mp4", segmenter=detector, min_seconds=2, max_seconds=20, progress=print)
    assert events == [Event(0, 10), Event(10, 29.5), Event(29.5, 45)]
    assert calls == [("clip.mp4", detector, print)]


def test_limits_that_contradict_each_other_are_refused():
    with pytest.raises(ValueError, match="twice min_seconds"):
        segment_events("clip.mp4", min_seconds=5, max_seconds=8)
    with pytest.raises(ValueError, match="unknown segmenter 'scenes'"):
        segment_events("clip.mp4", segmenter="scenes")


@pytest.fixture(scope="module")
def slides(tmp_path_factory) -> dict[str, Path]:
    """Five slides over a minute and a half, stored once each and at a constant rate of two a second."""
    folder = tmp_path_factory.mktemp("slides")
    seconds = np.array([12.0, 20.5, 9.0, 30.0, 18.5])
    generator = np.random.default_rng(5)
    slides = np.repeat(generator.integers(0, 256, (5, 6, 8, 3), dtype=np.uint8), 16, axis=1).repeat(16, axis=2)
    write_video(folder / "constant.mp4", np.repeat(slides, (2 * seconds).astype(int), axis=0), fps=2)
    starts = np.concatenate([[0], np.cumsum(seconds)[:-1], [np.sum(seconds) - 0.5]])
    with av.open(str(folder / "once.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=2)
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for slide, start in zip(slides[[0, 1, 2, 3, 4, 4]], starts, strict=True):
            frame = av.VideoFrame.from_ndarray(slide, format="rgb24")
            frame.pts, frame.time_base = round(1000 * start), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return {path.stem: path for path in folder.iterdir()}


@pytest.mark.parametrize("name", ["transnetv2", "scenedetect", "uniform"])
def test_slides_stored_once_are_cut_like_slides_at_a_constant_rate(slides: dict[str, Path], name: str):
    once, constant = (find_shots(slides[each], make_detector(name)) for each in ("once", "constant"))
    assert once.boundaries == pytest.approx(constant.boundaries, abs=2e-3)
    assert once.duration == constant.duration == pytest.approx(90.0)
    if name != "uniform":
        assert once.descriptors.seconds == pytest.approx(constant.descriptors.seconds, abs=2e-3)
    if name == "scenedetect":
        assert once.boundaries == pytest.approx([12.0, 32.5, 41.5, 71.5], abs=2e-3)


def test_pictures_that_stay_for_less_than_fifteen_frames_of_an_average_rate_are_shots(tmp_path: Path):
    detector, found = SceneDetectDetector(), []
    starts = (0.0, 1.0, 2.0, 3.0, 3.04, 60.0)
    detector.start(VideoInfo("made", 64, 48, 61.0, 6 / 61.0, 6, "none", 0, starts))
    generator = np.random.default_rng(0)
    pictures = generator.integers(0, 256, (4, 144, 256, 3), dtype=np.uint8)
    for index in range(40):
        frames = np.repeat(pictures[index // 10][None], 1, axis=0)
        found += detector.process(Frames(frames, np.array([index / 10]), "made"))
    found += detector.finish(4.0)
    assert [item.boundary for item in found] == pytest.approx([1.0, 2.0, 3.0])


def test_an_event_never_ends_after_its_video(tmp_path: Path):
    with av.open(str(tmp_path / "held.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"bf": "3"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for index, start in enumerate([*np.arange(60) / 30, 1790 / 30]):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 4 * index, np.uint8), format="rgb24")
            frame.pts, frame.time_base = round(1000 * start), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    duration = probe(tmp_path / "held.mp4").duration
    assert duration == pytest.approx(59.7, abs=0.035)
    events = segment_events(tmp_path / "held.mp4", segmenter="scenedetect")
    assert events[-1].end == duration
    assert max(event.duration for event in events) <= 20
