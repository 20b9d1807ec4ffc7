from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from marc.memory.detectors.shots import (
    FrameStream,
    SceneDetectDetector,
    UniformDetector,
    block_means,
    shot_detector,
)
from marc.memory.detectors.transnetv2 import TransNetV2Detector
from marc.video import VideoError, write_video

FPS = 25.0
CUTS = (40, 90)  # first frames of the later shots of `three_shots`
LENGTH = 140


def picture(seed: int, height: int = 72, width: int = 128) -> np.ndarray:
    """A picture of coarse random blocks."""
    blocks = np.random.default_rng(seed).integers(30, 220, (height // 8, width // 8, 3), dtype=np.uint8)
    return blocks.repeat(8, axis=0).repeat(8, axis=1)


@pytest.fixture(scope="module")
def three_shots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three still shots of 40, 50 and 50 frames."""
    path = tmp_path_factory.mktemp("shots") / "three shots.mp4"
    shots = [np.repeat(picture(seed)[None], n, axis=0) for seed, n in ((1, 40), (2, 50), (3, 50))]
    write_video(path, np.concatenate(shots), fps=FPS)
    return path


@pytest.mark.parametrize("name", ["transnetv2", "scenedetect"])
def test_hard_cuts_are_found_at_their_frames(three_shots: Path, name: str):
    shots = shot_detector(name).detect(three_shots)
    assert [round(item.start * FPS) for item in shots.transitions] == [cut - 1 for cut in CUTS]
    assert [round(item.end * FPS) for item in shots.transitions] == list(CUTS)
    assert [item.boundary for item in shots.transitions] == [item.end for item in shots.transitions]
    assert shots.duration == pytest.approx(LENGTH / FPS)


def test_a_gradual_transition_is_cut_in_the_middle(three_shots: Path, monkeypatch: pytest.MonkeyPatch):
    scores = np.zeros((LENGTH, 2), np.float32)
    scores[40:51, 1] = 0.8

    def given(stream: FrameStream) -> Iterator[np.ndarray]:
        assert sum(map(len, stream)) == LENGTH
        yield scores

    detector = TransNetV2Detector()
    monkeypatch.setattr(detector, "scores", given)
    (item,) = detector.detect(three_shots).transitions
    assert (item.start, item.boundary, item.end) == pytest.approx((40 / FPS, 46 / FPS, 51 / FPS))


def test_uniform_boundaries_do_not_touch_the_ends(three_shots: Path):
    boundaries = [item.boundary for item in UniformDetector(1.4).detect(three_shots).transitions]
    assert boundaries == pytest.approx([1.4, 2.8, 4.2])


def test_signatures_tell_the_shots_apart(three_shots: Path):
    stream = FrameStream(three_shots, width=48, height=27, batch=33)
    assert sum(len(frames) for frames in stream) == LENGTH == len(stream.seconds)
    signatures = stream.signatures
    np.testing.assert_allclose(signatures.seconds, [0, 1, 2, 3, 4, 5], atol=1e-6)
    difference = np.abs(np.diff(signatures.vectors.astype(int), axis=0)).mean(axis=1)
    assert (difference[[1, 3]] > 10).all(), "the cuts lie between seconds 1 and 2, and 3 and 4"
    assert (difference[[0, 2, 4]] < 2).all()


def test_block_means_leave_out_the_rest():
    frames = np.arange(5 * 7, dtype=np.float64).reshape(1, 5, 7, 1)
    np.testing.assert_allclose(block_means(frames, 2, 3)[0, ..., 0], [[4, 6, 8], [18, 20, 22]])


def test_an_interrupted_reader_closes_the_decoder(three_shots: Path, monkeypatch: pytest.MonkeyPatch):
    closed = []

    def stream(*_args: object, **_options: object) -> Iterator[object]:
        try:
            while True:
                yield next(batches)
        finally:
            closed.append(True)

    batches = iter(list(FrameStream(three_shots, width=48, height=27, batch=10)))
    monkeypatch.setattr("marc.memory.detectors.shots.stream_frames", stream)
    detector = TransNetV2Detector()

    def interrupt(_frames: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(detector, "_predict", interrupt)
    with pytest.raises(KeyboardInterrupt):
        detector.detect(three_shots)
    assert closed


def test_a_missing_video_is_named(tmp_path: Path):
    with pytest.raises(VideoError, match="nowhere"):
        SceneDetectDetector().detect(tmp_path / "nowhere.mp4")


def test_wrong_settings_are_refused():
    with pytest.raises(ValueError, match="transnetv2, scenedetect, uniform"):
        shot_detector("transnet")
    with pytest.raises(ValueError, match="interval"):
        UniformDetector(0)


def test_a_real_clip_has_the_shots_that_one_sees(real_videos: list[Path]):
    clip = {path.name: path for path in real_videos}.get("nasa_13013.mp4")
    if clip is None:
        pytest.skip("the clip nasa_13013.mp4 is not there")
    shots = TransNetV2Detector().detect(clip)
    assert len(shots.transitions) >= 1
