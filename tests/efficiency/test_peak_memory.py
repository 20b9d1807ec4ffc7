"""The peak of memory that has been given back again is seen; what was there before is not counted."""

import sys

import pytest
import torch

from marc.efficiency.peak_memory import peak_bytes_above

MEGABYTE = 2**20


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can reset the high-water mark")
def test_a_passing_peak_is_seen():
    kept = torch.ones(64 * MEGABYTE, dtype=torch.uint8)

    def work() -> None:
        passing = torch.ones(96 * MEGABYTE, dtype=torch.uint8)
        del passing
        torch.ones(16 * MEGABYTE, dtype=torch.uint8)

    for _ in range(2):
        risen = peak_bytes_above(work, torch.device("cpu"))
        assert risen == pytest.approx(96 * MEGABYTE, abs=8 * MEGABYTE)
    assert kept.sum() == 64 * MEGABYTE
