"""TransNetV2 on a source that does not end: it says what it finds soon, and keeps nothing of what lies behind."""

import numpy as np
import pytest

from marc.memory.detectors.windows import RunJoiner
from marc.memory.live.detection import LONGEST_DELAY, LiveTransNetV2Detector, SteadyRate, _TransitionFinder
from marc.types import Frames, VideoInfo

INFO = VideoInfo("camera", 48, 27, 1.0, 25.0, 25, "")


def shots(*lengths: int) -> np.ndarray:
    """Still shots of coarse random blocks ``[T, 27, 48, 3]``."""
    pictures = []
    for seed, length in enumerate(lengths):
        blocks = np.random.default_rng(seed).integers(30, 220, (9, 16, 3), dtype=np.uint8)
        pictures.append(np.repeat(blocks.repeat(3, axis=0).repeat(3, axis=1)[None], length, axis=0))
    return np.concatenate(pictures)


def pushed(detector, rgb, fps, batch=4):
    """Transitions, each with the time at which it was returned."""
    detector.start(INFO)
    found = []
    for first in range(0, len(rgb), batch):
        some = rgb[first : first + batch]
        seconds = (first + np.arange(len(some))) / fps
        found += [(each, float(seconds[-1])) for each in detector.process(Frames(some, seconds, ""))]
    return found, list(detector.finish(len(rgb) / fps))


def test_cuts_are_found_soon_and_once():
    detector = LiveTransNetV2Detector(device="cpu")
    found, left = pushed(detector, shots(60, 70, 50), 25.0)
    assert [each.boundary for each, _ in found] == pytest.approx([60 / 25, 130 / 25])
    assert all(at - each.boundary <= LONGEST_DELAY for each, at in found)
    assert not left
    assert len(detector._waiting) < 100


@pytest.mark.parametrize(
    ("fps", "longest"), [(19, 40), (20, 48), (24.3, 48), (25, 56), (29.97, 56), (30, 64), (33, 64)]
)
def test_no_score_is_late_at_a_steady_rate(fps: float, longest: int, monkeypatch: pytest.MonkeyPatch):
    """Where every window changes, frame by frame."""
    monkeypatch.setattr(RunJoiner, "_changes", lambda self, window: True)
    detector, waited, lengths = LiveTransNetV2Detector(device="cpu"), [], []
    monkeypatch.setattr(
        detector, "_predict", lambda rgb: lengths.append(len(rgb)) or np.zeros((len(rgb), 2), np.float32)
    )
    detector.start(INFO)
    add = detector._finder.add
    for number in range(200):
        now = number / fps
        detector._finder.add = lambda score, second, is_blank, now=now: (
            waited.append(now - second) or add(score, second, is_blank)
        )
        list(detector.process(Frames(np.zeros((1, 27, 48, 3), np.uint8), np.array([now]), "")))
    assert max(waited) <= LONGEST_DELAY + 1e-6
    assert max(lengths) == longest


def test_a_cut_at_the_end_is_found_at_the_end():
    found, left = pushed(LiveTransNetV2Detector(device="cpu"), shots(60, 12), 25.0)
    assert not found
    assert [each.boundary for each in left] == pytest.approx([60 / 25])


def frames(count, fps):
    return Frames(np.arange(count, dtype=np.uint8)[:, None, None, None].repeat(3, 3), np.arange(count) / fps, "")


@pytest.mark.parametrize(
    ("fps", "shown"),
    [
        (25, [0, 1, 2, 3, 4, 5, 6, 7, 8]),
        (30, [0, 1, 2, 3, 4, 5, 6, 7, 8]),
        (20, [0, 1, 2, 3, 4, 5, 6, 7, 8]),
        (60, [0, 2, 4, 6]),
        (10, [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8]),
        (15, [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8]),
    ],
)
def test_a_source_is_shown_at_a_usual_rate(fps, shown):
    given = SteadyRate().shown(frames(10, fps))
    assert given.rgb[:, 0, 0, 0].tolist() == shown
    assert given.seconds.tolist() == pytest.approx([number / fps for number in shown])


def test_frames_that_come_one_by_one_are_shown_alike():
    together, steady = SteadyRate().shown(frames(30, 13)), SteadyRate()
    one_by_one = [
        second
        for number in range(30)
        for second in steady.shown(
            Frames(frames(30, 13).rgb[number : number + 1], np.array([number / 13]), "")
        ).seconds.tolist()
    ]
    assert one_by_one == together.seconds.tolist()


def found(scores, blank=()):
    finder = _TransitionFinder(0.5)
    return [
        (each.start, each.end, each.boundary)
        for number, score in enumerate(scores)
        for each in finder.add(score, float(number), number in blank)
    ]


def test_runs_of_high_scores_are_transitions():
    assert found([0, 0, 1, 0, 0, 1, 1, 1, 0]) == [(2, 3, 3), (5, 8, 7)]
    assert found([1, 1, 0, 0]) == []


def test_two_finds_with_an_empty_picture_between_are_one_fade():
    scores = [0] * 5 + [1] + [0] * 10 + [1] + [0] * 5
    assert [start for start, _, _ in found(scores)] == [5, 16]
    assert [start for start, _, _ in found(scores, blank={10})] == [5]
