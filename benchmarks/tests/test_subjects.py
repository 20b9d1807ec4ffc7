"""Every subject reads what its setting says, and one that reads stock's frames knows to which event each belongs."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.accuracy import assistant_in
from benchmarks.subjects import SameFramesAssistant, evenly, grid_events, settings, subject_class
from marc.compression.plan import event_lengths, plan_video
from marc.inference.assistant import FrameOptions, VideoAssistant
from marc.model.tiny import build_tiny
from marc.types import Event, VideoInfo

EVENTS = (Event(0.0, 4.0), Event(4.0, 5.0), Event(5.0, 8.0))
INFO = VideoInfo("clip.mp4", 64, 32, duration=8.0, fps=25.0, frame_count=200, codec="h264")


def test_a_grid_belongs_to_the_event_in_which_it_begins():
    seconds = np.array([0.0, 1.0, 3.9, 4.0, 4.0, 4.5, 4.9, 5.0, 5.0, 6.0, 7.9, 7.9])
    assert grid_events(EVENTS, seconds).tolist() == [0, 0, 1, 1, 2, 2]


def test_frames_are_those_of_the_whole_video():
    seconds = evenly(INFO, FrameOptions(fps=1.0, max_frames=64))
    assert len(seconds) == 8
    assert seconds[0] == 0
    assert seconds[-1] == pytest.approx(199 / 25)
    assert event_lengths(grid_events(EVENTS, seconds).tolist(), 4) == [2, 1, 1], "begin at 0, 2.3, 4.6, 6.8 s"


@pytest.mark.parametrize("depth", [2, 8, 32])
def test_settings_fit_towers_of_any_depth(depth: int):
    for setting in settings(depth):
        if setting.compression is not None:
            plan = plan_video(8, (4, 4), setting.compression, events=[0] * 3 + [1] * 5)
            assert plan.tokens <= 16
            assert all(0 < layer < depth for layer, _ in plan.tower)


def test_only_ours_reads_other_frames_or_skips_near_duplicates():
    classes = {setting.name: subject_class(setting) for setting in settings(8)}
    same = dict.fromkeys(("paper", "events", "schedule", "inside"), SameFramesAssistant)
    assert classes == {"stock": VideoAssistant, **same, "retrieved": VideoAssistant}
    duplicates = {setting.name: setting.compression.duplicates for setting in settings(8) if setting.compression}
    assert duplicates == {"paper": None, "events": None, "schedule": None, "inside": 0.1, "retrieved": 0.1}


def test_accuracy_and_speed_are_of_the_same_settings(tmp_path: Path):
    loaded = build_tiny()
    for setting in settings(2):
        assistant = assistant_in(setting, loaded, object(), tmp_path)
        assert assistant.memory == assistant.model.compression.enabled == (setting.name != "stock")
        if setting.compression is not None:
            assert assistant.model.compression == assistant.processor.compression == setting.compression
        assert assistant.k == (1 if setting.frames == "retrieved" else 3)
