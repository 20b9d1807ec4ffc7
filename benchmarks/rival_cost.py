"""What the rules of `marc.compression.rivals` cost: processor time on one thread, beside this package's own layouts.

    python -m benchmarks.rival_cost [--grids 32] [--size 8 16] [--width 2048] [--budget 128]

prints a table. The video is four scenes of random cells, which change by noise from grid to grid, in
float32, as the tower of a 3B model gives it; attention and keys are random. Encoding is not part of the time, nor is
reading the tower's attention, which some rules want.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from benchmarks.merge_cost import SETTINGS
from marc.compression.config import CompressionConfig
from marc.compression.merge import compress
from marc.compression.rivals.rule import RULES, EncodedVideo

SCENES = 4
KEY_WIDTH = 80


def main() -> None:
    """Prints one row per rule."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--grids", type=int, default=32, help="temporal grids")
    parser.add_argument("--size", type=int, nargs=2, default=(8, 16), help="height and width of a grid in cells")
    parser.add_argument("--width", type=int, default=2048, help="channels")
    parser.add_argument("--noise", type=float, default=0.5, help="of a cell, beside 1 for its scene")
    parser.add_argument("--budget", type=int, default=128, help="tokens")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    video = scenes(arguments.grids, tuple(arguments.size), arguments.width, arguments.noise)
    runs = {name: _rule(name, video, arguments.budget) for name in RULES}
    runs |= {f"ours: {name}": _layout(config, video) for name, config in SETTINGS.items()}
    print("| rule | tokens | processor ms |\n|---|---|---|")
    for name, run in runs.items():
        tokens, seconds = _measured(run, arguments.repeats)
        print(f"| {name} | {tokens} | {seconds * 1000:.0f} |", flush=True)


def scenes(grids: int, size: tuple[int, int], width: int, noise: float) -> EncodedVideo:
    """A video of `SCENES` scenes, in each of which cells differ by noise from grid to grid."""
    generator = torch.Generator().manual_seed(0)
    cells = size[0] * size[1]
    events = [SCENES * grid // grids for grid in range(grids)]
    tokens = torch.randn(SCENES, cells, width, generator=generator)[events]
    tokens += noise * torch.randn(grids, cells, width, generator=generator)
    attention = torch.randn(grids, cells, generator=generator).softmax(dim=1)
    return EncodedVideo(tokens, size, events, attention, torch.randn(grids, cells, KEY_WIDTH, generator=generator))


def _rule(name: str, video: EncodedVideo, budget: int) -> Callable[[], torch.Tensor]:
    rule = RULES[name]
    grids, cells, _ = video.tokens.shape
    count = rule.count(grids, cells, budget)
    return lambda: rule.keep(video, count).tokens


def _layout(config: CompressionConfig, video: EncodedVideo) -> Callable[[], torch.Tensor]:
    return lambda: compress(video.tokens, config, events=video.events, size=video.size).flat


def _measured(run: Callable[[], torch.Tensor], repeats: int) -> tuple[int, float]:
    """Tokens that come out, and the median of the processor time in seconds."""
    tokens, durations = len(run()), []
    for _ in range(repeats):
        start = time.process_time()
        run()
        durations.append(time.process_time() - start)
    return tokens, statistics.median(durations)


if __name__ == "__main__":
    main()
