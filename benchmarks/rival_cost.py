"""What the rules of `marc.compression.rivals` cost on one thread, beside this package's own layouts.

    python -m benchmarks.rival_cost [--grids 32] [--size 8 16] [--width 2048] [--budget 128]

prints a table: processor time, by how much memory rose in between, and the operations of the prefill of what is kept.
The video is four scenes of random cells, which change by noise from grid to grid, in float32, as the tower of a 3B
model gives it; attention and keys are random. Some rules want the attention of the tower's last block and its keys:
what it takes to read them at the 3B's shape is a row of its own, and to be added. ToMe merges inside the tower, which
does less then; the table has what is left to do behind it. The rest of the tower is the same for all.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache

import torch

from benchmarks.architectures import ARCHITECTURES, build_config
from benchmarks.counters import WorkCounter, count_language, on_meta
from benchmarks.flops import TEXT_TOKENS
from benchmarks.merge_cost import SETTINGS
from benchmarks.peak_memory import peak_bytes_above
from marc.compression.config import CompressionConfig
from marc.compression.merge import compress
from marc.compression.rivals.rule import RULES, EncodedVideo
from marc.model.qwen2_5_vl.merging_cells import CellMergingTower, tower_that_merges
from marc.model.qwen2_5_vl.vision import RecordingAttention

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
    parser.add_argument("--tower-width", type=int, default=1280, help="channels of the tower, for tome's part of it")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print("| rule | tokens | processor ms | MiB | prefill, TFLOP | reads attention |\n|---|---|---|---|---|---|")
    reading = Cost.of(_reading(arguments.grids, arguments.size), arguments.repeats)
    print(f"| reading the attention | | {reading} | | |", flush=True)
    video = scenes(arguments.grids, tuple(arguments.size), arguments.width, arguments.noise)
    runs = {name: _rule(name, video, arguments.budget) for name in RULES}
    for name, config in SETTINGS.items():
        own = replace(config, visual_tokens=arguments.budget) if config.layout == "events" else config
        runs[f"ours: {name}"] = _layout(own, video)
    for name, run in runs.items():
        tokens = len(run())
        wants = "yes" if name in RULES and RULES[name].wants_more else ""
        cost = Cost.of(run, arguments.repeats)
        print(f"| {name} | {tokens} | {cost} | {_prefill(tokens):.2f} | {wants} |", flush=True)
    left = -(-arguments.budget // arguments.grids)
    part = merging_part(tuple(arguments.size), left, arguments.tower_width)
    print(f"\nA tower in which tome leaves {left} cells of a grid does {part:.2f} of the stock tower's operations.")


@dataclass(frozen=True)
class Cost:
    """Of one piece of work.

    Attributes:
        seconds: Median of the processor time.
        bytes: By which memory rose in between; ``None`` where the system does not say.
    """

    seconds: float
    bytes: int | None

    @classmethod
    def of(cls, run: Callable[[], torch.Tensor], repeats: int) -> Cost:
        """Measured, after a first time that does not count."""
        run()
        durations = []
        for _ in range(repeats):
            start = time.process_time()
            run()
            durations.append(time.process_time() - start)
        return cls(statistics.median(durations), peak_bytes_above(run, torch.device("cpu")))

    def __str__(self) -> str:
        memory = "?" if self.bytes is None else f"{self.bytes / 2**20:.0f}"
        return f"{self.seconds * 1000:.0f} | {memory}"


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


@cache
def _prefill(tokens: int) -> float:
    """TFLOP in which the 3B's language model reads so many visual tokens and a question."""
    architecture = ARCHITECTURES["3b"]
    config = build_config(architecture, architecture.build_tokenizer(), None)
    work, _ = count_language(on_meta(architecture.stock_model, config, torch.bfloat16), tokens + TEXT_TOKENS)
    return work.flops / 1e12


def merging_part(size: tuple[int, int], left: int, width: int) -> float:
    """Which part of the stock tower's operations is left where ToMe merges the cells of a grid inside it.

    Args:
        size: Height and width of the grid in cells.
        left: Cells that the last block leaves.
        width: Channels of the tower, which hardly change it; a multiple of those of a head.
    """
    architecture = ARCHITECTURES["3b"]
    config = build_config(architecture, architecture.build_tokenizer(), None).vision_config
    heads, inner = (
        config.num_heads * width // config.hidden_size,
        config.intermediate_size * width // config.hidden_size,
    )
    config.num_heads, config.intermediate_size, config.hidden_size = heads, inner, width
    tower = CellMergingTower(config).eval()
    height, across = (side * architecture.merge for side in size)
    pixels = torch.randn(height * across, config.in_channels * config.temporal_patch_size * config.patch_size**2)
    grid = torch.tensor([[1, height, across]])

    def flops(cells: int) -> float:
        with torch.no_grad(), WorkCounter() as counter:
            tower_that_merges(tower, cells)(pixels, grid)
        return counter.work.flops

    return flops(left) / flops(size[0] * size[1])  # where all are left, it is the stock tower


def _reading(grids: int, size: Sequence[int]) -> Callable[[], torch.Tensor]:
    """Has the 3B's last block of the tower say what it attends to; its queries and keys are there anyway."""
    architecture = ARCHITECTURES["3b"]
    vision = build_config(architecture, architecture.build_tokenizer(), None).vision_config
    attention = RecordingAttention(vision)
    patches = size[0] * size[1] * architecture.merge**2
    projected = torch.randn(grids * patches, 3 * vision.hidden_size)
    angles = torch.randn(len(projected), vision.hidden_size // vision.num_heads)
    starts = torch.arange(0, len(projected) + 1, patches)

    def read() -> torch.Tensor:
        attention.record(projected, starts, (angles.cos(), angles.sin()))
        return attention.received

    return read


if __name__ == "__main__":
    main()
