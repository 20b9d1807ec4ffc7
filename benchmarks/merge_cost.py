"""What merging temporal grids costs: its time on this device as a multiple of reading the tokens once.

    python -m benchmarks.merge_cost [--grids 32] [--tokens 256] [--width 2048] [--device cpu]

prints the table of docs/compression.md. Reading means `Tensor.sum`, which touches every number once.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from marc.compression.config import CompressionConfig
from marc.compression.merge import compress

SETTINGS = {
    "frames, as published": CompressionConfig(layout="frames"),
    "frames, one window": CompressionConfig(layout="frames", window=None),
    "events": CompressionConfig(layout="events"),
    "events, weighted mean": CompressionConfig(layout="events", merge="weighted"),
}


def main() -> None:
    """Prints one row per setting."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--grids", "--frames", type=int, default=32, help="temporal grids")
    parser.add_argument("--tokens", type=int, default=256, help="tokens of each")
    parser.add_argument("--width", type=int, default=2048, help="channels")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    tokens = torch.randn(arguments.grids, arguments.tokens, arguments.width, device=arguments.device)
    events = [4 * grid // arguments.grids for grid in range(arguments.grids)]
    read = _median_seconds(lambda: tokens.sum(), arguments.repeats, arguments.device)
    print(f"reading {tokens.numel() * 4 / 2**20:.0f} MiB once: {read * 1000:.1f} ms")
    print("| layout | ms | reads |\n|---|---|---|")
    for name, config in SETTINGS.items():

        def run(config: CompressionConfig = config) -> object:
            return compress(tokens, config, events=events)

        seconds = _median_seconds(run, arguments.repeats, arguments.device)
        print(f"| {name} | {seconds * 1000:.1f} | {seconds / read:.1f} |")


def _median_seconds(run: Callable[[], object], repeats: int, device: str) -> float:
    run()
    durations = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        if torch.device(device).type == "cuda":
            torch.cuda.synchronize()
        durations.append(time.perf_counter() - start)
    return statistics.median(durations)


if __name__ == "__main__":
    main()
