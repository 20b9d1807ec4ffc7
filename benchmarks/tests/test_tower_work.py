"""The commands behind the tables of docs/compression.md, at small size."""

from math import prod
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import flops, tower_chunks
from benchmarks.architectures import ARCHITECTURES
from benchmarks.still_clips import FPS, FRAMES, pixels_as_read, slides
from marc.compression.duplicates import distinct_grids
from marc.video import write_video


def test_a_slide_is_encoded_once_after_a_codec(tmp_path):
    pictures = np.stack(list(slides(np.random.default_rng(0)))).astype(np.uint8)
    assert len(pictures) == FRAMES
    write_video(tmp_path / "slides.mp4", pictures, fps=FPS)
    numbers = distinct_grids(pixels_as_read(tmp_path / "slides.mp4"), 0.1)
    assert numbers == [slide for slide in range(4) for _ in range(4)]


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peaks of the resident set are Linux's")
def test_chunks_keep_the_peak_low():
    tower = tower_chunks.build_tower(ARCHITECTURES["scaled"], 1, torch.device("cpu"))
    pixels = torch.randn(32 * prod(tower_chunks.PATCHES), 1176)
    with torch.no_grad():
        tower_chunks.measure(tower, pixels, 32, None)
        whole, chunked = (tower_chunks.measure(tower, pixels, 32, chunk)[0] for chunk in (None, 1024))
    assert chunked < whole / 2


@pytest.mark.parametrize("name", ["scaled", "scaled-qwen3-vl"])
def test_an_earlier_merge_leaves_less_to_compute(name: str):
    architecture = ARCHITECTURES[name]
    counts = [flops.count(architecture, compression) for compression in flops.merges(architecture.depth).values()]
    towers, prefills = zip(*counts, strict=True)
    assert sorted(map(sum, counts), reverse=True) == list(map(sum, counts))
    assert towers[0] <= towers[1], "merging afterwards saves nothing in the tower"
    assert len(set(prefills)) == 2, "every token, or those of one frame"
