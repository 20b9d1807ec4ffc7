"""What the vision tower and the prefill have to compute for 64 frames, by where they are merged.

    python -m benchmarks.flops [--model 3b]

prints the table of docs/efficiency.md. Nothing is computed: operations are counted on shapes alone
(`benchmarks.counters`), every temporal grid for itself.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch

from benchmarks.architectures import ARCHITECTURES, Architecture, build_config, build_processor
from benchmarks.counters import count_language, count_vision, on_meta
from marc.compression import CompressionConfig
from marc.types import VISION_MARKS

GRIDS = 32
TEXT_TOKENS = 120
SECONDS = [2.0 * grid for grid in range(GRIDS)]


def main() -> None:
    """Prints one row per place of the merge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=ARCHITECTURES, default="3b")
    architecture = ARCHITECTURES[parser.parse_args().model]
    print("| TFLOP | tower + merge | prefill | both | less |\n|---|---|---|---|---|")
    most = None
    for title, compression in merges(architecture.depth).items():
        tower, prefill = (flops / 1e12 for flops in count(architecture, compression))
        most = most or tower + prefill
        print(f"| {title} | {tower:.3g} | {prefill:.3g} | {tower + prefill:.3g} | {most / (tower + prefill):.1f}x |")


def merges(depth: int) -> dict[str, CompressionConfig | None]:
    """What is compared, by title.

    Args:
        depth: Blocks of the tower.
    """
    quarter, eighth = depth // 4, depth // 8
    return {
        "every token": None,
        "merged after the tower to one grid": CompressionConfig("frames", duplicates=None),
        f"after block {quarter} of {depth} to 4 grids, after the tower to one": CompressionConfig(
            "frames", tower_layer=((quarter, 4),), duplicates=None
        ),
        f"after block {quarter} to one": CompressionConfig("frames", tower_layer=quarter, duplicates=None),
        f"after block {eighth} to one": CompressionConfig("frames", tower_layer=eighth, duplicates=None),
    }


def count(architecture: Architecture, compression: CompressionConfig | None) -> tuple[float, float]:
    """Operations of tower and merge, and of the prefill with `TEXT_TOKENS` beside the video's in the prompt."""
    tokenizer = architecture.build_tokenizer()
    model_class = architecture.stock_model if compression is None else architecture.our_model
    model = on_meta(model_class, build_config(architecture, tokenizer, compression), torch.bfloat16)
    vision, _ = count_vision(model, (GRIDS, *architecture.patches))
    budget = compression or CompressionConfig(target_frames=None)
    processor: Any = build_processor(architecture, tokenizer, budget)
    plan = processor.plan((GRIDS, *architecture.patches))
    video = processor.prompt_tokens(plan, SECONDS) - VISION_MARKS
    prefill, _ = count_language(model, video + TEXT_TOKENS)
    return vision.flops, prefill.flops


if __name__ == "__main__":
    main()
