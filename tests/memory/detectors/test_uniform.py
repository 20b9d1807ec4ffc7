from __future__ import annotations

import pytest

from marc.memory.detectors.uniform import UniformDetector


def test_boundaries_do_not_touch_the_ends():
    assert [item.boundary for item in UniformDetector(1.4).finish(5.6)] == pytest.approx([1.4, 2.8, 4.2])
    assert UniformDetector(7.0).finish(5.6) == []


def test_wrong_settings_are_refused():
    with pytest.raises(ValueError, match="interval"):
        UniformDetector(0)
