"""What `CompressionConfig.tower_chunk` does to the memory and the time of the vision tower.

    python -m benchmarks.tower_chunks [--device cpu]

prints tables as in docs/compression.md, for blocks of the 3B's tower with random weights on random pixels. One grid is
encoded before anything is measured.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from math import prod

import torch
from torch import Tensor
from transformers import PreTrainedModel

from benchmarks.architectures import ARCHITECTURES, Architecture, build_config
from benchmarks.peak_memory import peak_bytes_above
from marc.compression.config import CompressionConfig
from marc.compression.plan import plan_video
from marc.model.qwen2_5_vl.vision import tower_part
from marc.model.segment_attention import SEGMENT_ATTENTION
from marc.model.tiny import build_tokenizer
from marc.model.tower import MergingTower

PATCHES = (16, 32)
"""Height and width of a grid of 128 tokens."""


@torch.no_grad()
def main() -> None:
    """Prints one row per number of grids and chunk."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--blocks", type=int, default=2)
    parser.add_argument("--grids", type=int, nargs="+", default=[16, 32])
    parser.add_argument("--chunks", type=int, nargs="+", default=[0, 8192, 2048], help="patches; 0: everything")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    tower = build_tower(ARCHITECTURES["3b"], arguments.blocks, device)
    measure(tower, torch.randn(prod(PATCHES), 1176, device=device), 1, None)
    print("| grids | chunk | peak above the start | seconds a grid |\n|---|---|---|---|")
    for grids in arguments.grids:
        pixels = torch.randn(grids * prod(PATCHES), 1176, device=device)
        for chunk in arguments.chunks:
            peak, seconds = measure(tower, pixels, grids, chunk or None)
            shown = "unknown" if peak is None else f"{peak / 2**20:.0f} MiB"
            print(f"| {grids} | {chunk or 'everything'} | {shown} | {seconds / grids:.3f} |", flush=True)


def build_tower(architecture: Architecture, blocks: int, device: torch.device) -> PreTrainedModel:
    """The first blocks of a tower and a last one that sees whole pictures, with random weights."""
    sizes = architecture.vision | {"depth": blocks, "fullatt_block_indexes": [blocks - 1]}
    config = build_config(replace(architecture, vision=sizes), build_tokenizer()).vision_config
    make = architecture.family.stock.load("tower")
    tower: PreTrainedModel = make._from_config(
        config, dtype=torch.bfloat16 if device.type == "cuda" else torch.float32
    )
    tower.config._attn_implementation = SEGMENT_ATTENTION
    return tower.to(device).eval()


def measure(tower: PreTrainedModel, pixels: Tensor, grids: int, chunk: int | None) -> tuple[int | None, float]:
    """Encodes once.

    Returns:
        Bytes by which memory rose, and seconds: of the processor on a CPU, else of the clock on the wall.
    """
    on_gpu = pixels.device.type == "cuda"
    clock = time.perf_counter if on_gpu else time.process_time
    plan = plan_video(grids, (PATCHES[0] // 2, PATCHES[1] // 2), CompressionConfig())
    times = []

    def encode() -> None:
        times.append(clock())
        MergingTower(tower, tower_part, chunk)(pixels, [(grids, *PATCHES)], [plan])
        if on_gpu:
            torch.cuda.synchronize(pixels.device)
        times.append(clock())

    peak = peak_bytes_above(encode, pixels.device)
    return peak, times[1] - times[0]


if __name__ == "__main__":
    main()
