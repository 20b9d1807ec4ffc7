"""Every system reads what its setting says, and one that reads stock's frames knows to which event each belongs."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from benchmarks.accuracy import assistant_in
from benchmarks.systems import INSIDE, SameFramesSelector, evenly, grid_events, settings
from marc.compression.plan import event_lengths, plan_video
from marc.inference.hf import HFBackend
from marc.inference.selectors import RetrievingSelector, UniformSelector
from marc.memory.options import RetrievalOptions
from marc.model.tiny import build_tiny
from marc.types import Event, VideoInfo
from marc.video.options import FrameOptions

EVENTS = (Event(0.0, 4.0), Event(4.0, 5.0), Event(5.0, 8.0))
INFO = VideoInfo("clip.mp4", 64, 32, duration=8.0, fps=25.0, frame_count=200, codec="h264")
EMBEDDER: Any = SimpleNamespace(device="cpu")


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
    kinds = {setting.name: type(setting.selector(EMBEDDER, RetrievalOptions())) for setting in settings(8)}
    same = dict.fromkeys(("paper", "events", "schedule", "inside"), SameFramesSelector)
    assert kinds == {"stock": UniformSelector, **same, "retrieved": RetrievingSelector}
    duplicates = {setting.name: setting.compression.duplicates for setting in settings(8) if setting.compression}
    assert duplicates == {"paper": None, "events": None, "schedule": None, "inside": 0.1, "retrieved": 0.1}


def test_a_setting_of_ones_own_differs_from_inside_in_what_was_asked_for():
    settled = {setting.name: setting for setting in settings(8, {"merge": "weighted", "budget": "frames:2"})}
    own, inside = settled["own"].compression, settled[INSIDE].compression
    assert own is not None
    assert (own.merge, own.layout, own.target_frames) == ("weighted", "frames", 2)
    assert inside is not None
    assert (own.tower_layer, own.duplicates) == (inside.tower_layer, inside.duplicates)
    assert settled["own"].title == "as inside, with merge weighted, budget frames:2"
    with pytest.raises(ValueError, match="unknown compression option colour"):
        settings(8, {"colour": "red"})


def test_accuracy_and_speed_are_of_the_same_settings(tmp_path: Path):
    backend = HFBackend(*build_tiny())
    for setting in settings(2):
        assistant = assistant_in(setting, backend, EMBEDDER, tmp_path)
        assert backend.compression.enabled == (setting.name != "stock")
        if setting.compression is not None:
            assert backend.model.compression == backend.processor.compression == setting.compression
        chosen = getattr(assistant.selector, "memory", assistant.selector)
        assert isinstance(chosen, RetrievingSelector) == setting.remembers
        if isinstance(chosen, RetrievingSelector):
            assert chosen.retrieval == RetrievalOptions(1 if setting.frames == "retrieved" else 3, None, str(tmp_path))
