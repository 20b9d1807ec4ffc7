from __future__ import annotations

import sys
from importlib import metadata

import pytest

from marc.extras import MissingExtraError
from marc.memory.detectors.scenedetect import SceneDetectDetector
from marc.types import VideoInfo

INFO = VideoInfo("made", 64, 48, duration=4.0, fps=25.0, frame_count=100, codec="")


def test_without_the_package_its_extra_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "scenedetect", None)
    with pytest.raises(MissingExtraError, match=r"'\.\[segmenters\]'"):
        SceneDetectDetector().start(INFO)

    def absent(name: str):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", absent)
    with pytest.raises(MissingExtraError, match=r"^scenedetect is not installed.*'\.\[segmenters\]'"):
        SceneDetectDetector.version()
