"""Names of before, which work for one release."""

import importlib
import sys

import pytest


@pytest.mark.parametrize(
    ("module", "names"),
    [
        ("marc.model.compression", "CompressedFrames compress compress_planned frame_similarity merge_weights"),
        ("marc.model.plan", "CompressionConfig VideoPlan Window event_lengths plan_video"),
    ],
)
def test_modules_that_moved_hand_their_names_on(module, names):
    sys.modules.pop(module, None)
    with pytest.warns(DeprecationWarning, match=f"{module} is now marc.compression"):
        moved = importlib.import_module(module)
    assert set(moved.__all__) == set(names.split())
    assert moved.__dict__.keys() >= set(names.split())
