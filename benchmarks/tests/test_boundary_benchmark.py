from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.boundary_benchmark import Outcome, compare, evaluate, read_footage
from benchmarks.synthetic_cuts import FPS, KINDS, make_video
from marc.memory.detectors.transnetv2 import TransNetV2Detector
from marc.video import write_video


@pytest.mark.parametrize(
    ("truth", "hit"),
    [
        ((5, 6), True),
        ((4, 5), True),
        ((3, 4), True),
        ((2, 3), False),
        ((7, 8), True),
        ((8, 9), False),
        ((0, 30), True),
    ],
)
def test_the_tolerance_is_two_frames(truth: tuple[int, int], hit: bool):
    outcome = compare([truth], [(5, 6)])
    assert outcome == (Outcome(hits=1) if hit else Outcome(missed=1, false=1))


def test_a_transition_is_found_once():
    outcome = compare([(10, 40), (100, 101)], [(12, 13), (30, 31), (60, 61), (100, 101)])
    assert outcome == Outcome(hits=2, missed=0, false=2)
    assert outcome.precision == 0.5
    assert outcome.recall == 1
    assert outcome.f1 == pytest.approx(2 / 3)


def test_nothing_to_find_and_nothing_found_is_perfect():
    assert (Outcome().precision, Outcome().recall, Outcome().f1) == (1, 1, 1)


@pytest.mark.parametrize("kind", KINDS)
def test_generated_videos_are_what_their_labels_say(kind: str):
    video = make_video(kind, 0, shots=3)
    again = make_video(kind, 0, shots=3)
    np.testing.assert_array_equal(video.rgb, again.rgb)
    assert video.transitions == again.transitions
    assert not np.array_equal(video.rgb[:20], make_video(kind, 1, shots=3).rgb[:20])
    if kind in ("flash", "motion"):
        assert (video.transitions, video.disturbances) == ((), 3)
        return
    assert len(video.transitions) == 2
    steps = np.abs(np.diff(video.rgb.astype(np.int16), axis=0)).mean(axis=(1, 2, 3))
    for last, first in video.transitions:
        assert (first - last == 1) == (kind == "hard")
        outside = np.concatenate([steps[last - 20 : last], steps[first : first + 20]])
        assert steps[last:first].sum() > 3 * outside.mean(), "something happens in a transition"


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="hard, dissolve, fade, flash, motion"):
        make_video("wipe", 0)


@pytest.mark.parametrize("kind", ["hard", "dissolve", "fade"])
def test_transitions_are_found_in_a_file(kind: str, tmp_path: Path):
    video = make_video(kind, 0, shots=3)
    write_video(tmp_path / "video.mp4", video.rgb, fps=FPS)
    outcomes = evaluate(TransNetV2Detector(device="cpu"), [(tmp_path / "video.mp4", video)])
    assert outcomes == {kind: Outcome(hits=2)}


def test_labels_of_own_footage_are_read_from_a_table(tmp_path):
    labels = tmp_path / "labels.csv"
    labels.write_text("video,last,first\na.mp4,75,76\na.mp4,29,30\nb.mp4,,\n")
    (a, first), (b, second) = read_footage(labels)
    assert (a, b) == (tmp_path / "a.mp4", tmp_path / "b.mp4")
    assert first.transitions == ((29, 30), (75, 76))
    assert second.transitions == ()
    for wrong in ("video,last,first\na.mp4,x,3\n", "name,last\na,3\n", "video,last,first\n"):
        labels.write_text(wrong)
        with pytest.raises(ValueError, match=r"labels\.csv"):
            read_footage(labels)
