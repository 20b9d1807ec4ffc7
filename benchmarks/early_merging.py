"""What merging inside the vision tower costs in right answers and saves in time, by the block after which grids merge.

    python -m benchmarks.early_merging MODEL [MODEL ...] --place none --place 1 --place 2

prints a row for each model of the micro-world and each place (`tower_layer`): right answers in the event layout (or at
another budget, such as `--layout events:4`) with the true events, how far that is from the first place of the same
model (paired by question, 95 % over videos), and how many times fewer operations the vision tower and its merge take
than with every token, alone and together with the prefill of a question. Operations are counted while they run: at
these models' size, time is that of starting them.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from dataclasses import replace

from benchmarks.counters import WorkCounter
from marc.evaluation.statistics import compare_paired
from marc.evaluation.tables import interval
from marc.inference.hf import HFBackend
from marc.inference.prompts import Prompt
from marc.model.loading import load_model
from marc.training.budgets import LayerMix
from marc.types import GenerationOptions
from marc.world.export import video_questions
from marc.world.levels import sample
from marc.world.measure import measure, show
from marc.world.options import WorldOptions
from marc.world.texts import prompt_ids

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
    parser.add_argument("--layout", default="events", help="a budget of the event layout")
    parser.add_argument("--videos", type=int, default=48)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    world = WorldOptions(level=options.level, seed=options.seed, videos=options.videos, questions=24)
    print("| model | merged after block | right, % | against the first | tower | tower + prefill |")
    print("|---|---|---|---|---|---|")
    for name in options.models:
        for row in rows_of(name, options.place, world, options.layout):
            print(f"| {name} | {row}", flush=True)


def rows_of(name: str, places: Sequence[str], world: WorldOptions, layout: str = "events") -> list[str]:
    """The rows of a model, without its name.

    Args:
        name: Of the model.
        places: Values of ``tower_layer``.
        world: Which videos and questions.
        layout: A budget of the event layout.
    """
    backend = HFBackend(*load_model(name, device="cpu", layout="events"))
    own, mix = backend.compression, LayerMix(dict.fromkeys(places, 1.0))
    compressions = [replace(mix.at(place, own), duplicates=None) for place in places]
    whole = _operations(backend, world, "full")
    right, operations = [], []
    for compression in compressions:
        backend.compression = compression
        measured = measure(backend.model, backend.processor, world, layout=layout)
        right.append([float(each.correct) for each in measured])
        operations.append(_operations(backend, world, layout))
    videos = [number // world.questions for number in range(len(right[0]))]
    rows = []
    for place, scores, count in zip(places, right, operations, strict=True):
        against = interval(compare_paired(right[0], scores, videos).difference, signed=True, digits=1)
        fewer = " | ".join(f"{every / own:.1f}x" for every, own in zip(whole, count, strict=True))
        rows.append(f"{place} | {100 * statistics.mean(scores):.1f} | {against} | {fewer} |")
    return rows


def _operations(backend: HFBackend, world: WorldOptions, layout: str) -> tuple[float, float]:
    """What some test videos take: the tower with its merge, and that with the prefill of a question about each."""
    tower, both = WorkCounter(), WorkCounter()
    for index in range(COUNTED_VIDEOS):
        video = sample(world.level, "test", world.seed, index)
        (question,) = video_questions(video, "test", world.seed, index, 1)
        shown = show(video, layout, backend)
        prompt = Prompt(tuple(prompt_ids(backend.processor, question, backend.config.prompt_style)), (shown,))
        with both:
            with tower:
                backend.encode([shown])
            backend.generate([prompt], GenerationOptions(max_new_tokens=1))
    return tower.work.flops, both.work.flops


if __name__ == "__main__":
    main()
