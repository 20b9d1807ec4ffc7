"""What merging inside the vision tower costs in right answers and saves in time, by the block after which grids merge.

    python -m benchmarks.early_merging MODEL [MODEL ...] --place none --place 1 --place 2

prints a row for each model of the micro-world and each place (`tower_layer`): right answers in the event layout with
the true events, how far that is from the first place of the same model (paired by question, 95 % over videos), and how
many times fewer operations the vision tower and its merge take than there. Operations are counted while they run: at
these models' size, time is that of starting them.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from dataclasses import replace

import torch

from benchmarks.counters import WorkCounter
from marc.evaluation.statistics import Estimate, compare_paired
from marc.inference.encoding import encode
from marc.inference.hf import HFBackend
from marc.model.loading import load_model
from marc.training.budgets import LayerMix
from marc.world.levels import sample
from marc.world.measure import measure, show
from marc.world.options import WorldOptions

COUNTED_VIDEOS = 8
"""Test videos on which operations are counted."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the table.

    Args:
        arguments: By default the command line's.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", metavar="MODEL", help='a folder, or "tiny"')
    parser.add_argument(
        "--place", action="append", required=True, help="a value of tower_layer; the first one is the base"
    )
    parser.add_argument("--level", default="easy", choices=("easy", "hard", "arena"))
    parser.add_argument("--videos", type=int, default=48)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    world = WorldOptions(level=options.level, seed=options.seed, videos=options.videos, questions=24)
    print("| model | merged after block | right, % | against the first | fewer operations |\n|---|---|---|---|---|")
    for name in options.models:
        for row in rows_of(name, options.place, world):
            print(f"| {name} | {row}", flush=True)


def rows_of(name: str, places: Sequence[str], world: WorldOptions) -> list[str]:
    """The rows of a model, without its name.

    Args:
        name: Of the model.
        places: Values of ``tower_layer``.
        world: Which videos and questions.
    """
    backend = HFBackend(*load_model(name, device="cpu"))
    own, mix = backend.compression, LayerMix(dict.fromkeys(places, 1.0))
    compressions = [replace(mix.at(place, own), duplicates=None) for place in places]
    right, operations = [], []
    for compression in compressions:
        backend.compression = compression
        measured = measure(backend.model, backend.processor, world, layout="events")
        right.append([float(each.correct) for each in measured])
        operations.append(_operations(backend, world))
    videos = [number // world.questions for number in range(len(right[0]))]
    rows = []
    for place, scores, count in zip(places, right, operations, strict=True):
        against = _points(compare_paired(right[0], scores, videos).difference)
        rows.append(f"{place} | {100 * statistics.mean(scores):.1f} | {against} | {operations[0] / count:.1f}x |")
    return rows


def _operations(backend: HFBackend, world: WorldOptions) -> float:
    """What the tower and the merge of some test videos take."""
    drawn = [sample(world.level, "test", world.seed, index) for index in range(COUNTED_VIDEOS)]
    shown = [show(video, "events", backend) for video in drawn]
    with torch.no_grad(), WorkCounter() as counter:
        for each in shown:
            encode(backend.model, [each])
    return float(counter.get_total_flops())


def _points(difference: Estimate) -> str:
    mean, low, high = (100 * value for value in (difference.mean, difference.low, difference.high))
    return f"{mean:+.1f} [{low:+.1f}, {high:+.1f}]"


if __name__ == "__main__":
    main()
