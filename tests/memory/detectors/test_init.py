from __future__ import annotations

import subprocess
import sys

import pytest

from marc.memory import detectors
from marc.memory.detectors import (
    ShotDetector,
    check_detector,
    detector_class,
    detector_names,
    make_detector,
    register_detector,
    registered_detectors,
)
from marc.memory.detectors.uniform import UniformDetector


class Mine(ShotDetector):
    pass


@pytest.fixture(autouse=True)
def own_registry(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(detectors, "_REGISTERED", {})


def test_detectors_are_found_by_name_and_by_place():
    assert detector_class("uniform") is UniformDetector
    assert detector_class("marc.memory.detectors.uniform:UniformDetector") is UniformDetector
    assert make_detector("uniform", "cpu").device == "cpu"


def test_a_registered_detector_is_found_by_its_name_and_can_be_handed_on():
    register_detector("mine", Mine)
    register_detector("mine", Mine)
    register_detector("later", "not.there:Yet")
    assert detector_class("mine") is Mine
    assert detector_names()[-2:] == ("mine", "later")
    assert registered_detectors("mine", "uniform") == {"mine": Mine}
    check_detector("later")
    with pytest.raises(ValueError, match="cannot load the segmenter 'later': No module named 'not'"):
        detector_class("later")


@pytest.mark.parametrize("name", ["uniform", "mine", "a:b", ""])
def test_names_that_are_taken_or_look_like_places_are_refused(name: str):
    register_detector("mine", Mine)
    with pytest.raises(ValueError, match=f"{name!r}"):
        register_detector(name, UniformDetector)


@pytest.mark.parametrize(
    ("name", "cause"),
    [
        ("transnet", "transnetv2, scenedetect, uniform, or a class of your own"),
        ("not.there:Mine", "No module named 'not'"),
        ("marc.types:Mine", "has no attribute 'Mine'"),
        ("marc.types:Frames", "must be a subclass of marc.memory.ShotDetector"),
    ],
)
def test_what_is_no_detector_is_named(name: str, cause: str):
    with pytest.raises(ValueError, match=cause):
        check_detector(name)


def test_names_cost_no_library():
    code = "import sys, marc.memory.options; print({'torch', 'av', 'scenedetect', 'PIL'} & set(sys.modules) or 'none')"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "none"
