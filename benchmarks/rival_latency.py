"""How long an answer takes from the file to its first token, by layout and rule, at one budget.

    python -m benchmarks.rival_latency [FILE] [--model tiny] [--part 1/32] [--repeats 5]

Without a file it is a video of the micro-world's level `arena`. Everything is the assistant's: the file is decoded
anew, encoded, reduced and read for each answer. Frames are evenly spread, as no rule but ours knows a memory. Medians
of the wall's clock, after one round that does not count; layouts take turns, so that what else the machine does is
shared.
Peak memory is by how much that of the process, or of the GPU, rose while answering.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.peak_memory import peak_bytes_above
from marc.compression.config import CompressionConfig
from marc.evaluation.arena.options import CONTESTANTS, EVERY_TOKEN, allowed, compression_of
from marc.inference.assistant import VideoAssistant
from marc.inference.backend import Backend
from marc.types import FRAMES_PER_GRID, VISION_MARKS, Answer, GenerationOptions
from marc.world.export import write_sample
from marc.world.options import BLIND

STAGES = ("video_decode", "vision_tower", "compression", "prefill", "total")
"""Of the assistant's clock; the total has all others in it, too."""
NAMES = tuple(name for name in CONTESTANTS if not name.endswith(BLIND))


@dataclass(frozen=True)
class Latency:
    """Of one layout.

    Attributes:
        tokens: Visual tokens that were read.
        seconds: Median of each of `STAGES` until the first token.
        bytes: By which memory rose; ``None`` where the system does not say.
    """

    tokens: int
    seconds: dict[str, float]
    bytes: int | None

    def row(self, name: str, whole: float) -> str:
        """As a line of the table; the last number is a part of what every token takes."""
        stages = " | ".join(f"{1000 * self.seconds[stage]:.0f}" for stage in STAGES)
        memory = "?" if self.bytes is None else f"{self.bytes / 2**20:.0f}"
        return f"| {name} | {self.tokens} | {stages} | {self.seconds['total'] / whole:.2f} | {memory} |"


def main(
    file: Annotated[Path | None, typer.Argument(help="A video; default: one of the micro-world.")] = None,
    model: Annotated[str, typer.Option(help="As of marc ask.")] = "tiny",
    part: Annotated[str, typer.Option(help="Of what every token costs in the prompt.")] = "1/32",
    repeats: Annotated[int, typer.Option(min=1, help="Answers of each.")] = 5,
    question: Annotated[str, typer.Option(help="What is asked.")] = "How many scenes are there?",
) -> None:
    """Print a row for each layout."""
    with nullcontext(None) if file else tempfile.TemporaryDirectory() as folder:
        video = file or Path(str(folder)) / "arena.mp4"
        if file is None:
            write_sample(video, level="arena")
        backend = VideoAssistant.from_pretrained(model, memory=None).backend
        found = latencies(backend, video, question, part, repeats)
    print(f"| layout | tokens | {' | '.join(f'{stage}, ms' for stage in STAGES)} | of every token | MiB |")
    print(f"|---|---|{'---|' * (len(STAGES) + 2)}")
    for name, latency in found.items():
        print(latency.row(name, found[EVERY_TOKEN].seconds["total"]))


def latencies(backend: Backend, video: Path, question: str, part: str, repeats: int) -> dict[str, Latency]:
    """Asks for one token in every layout in turn.

    Args:
        backend: Its compression is left as it was.
        video: The file.
        question: About it.
        part: Of what every token costs in the prompt.
        repeats: Answers of each that count.
    """
    before = backend.compression
    everything = _ask(backend, video, question, compression_of(EVERY_TOKEN, 0, 1, before))
    whole = everything.visual_tokens_before
    cells = whole * FRAMES_PER_GRID // everything.frames
    tokens = int(allowed(part, whole + VISION_MARKS))
    settings = {name: compression_of(name, tokens, cells, before) for name in (EVERY_TOKEN, *NAMES)}
    asks = {name: partial(_ask, backend, video, question, own) for name, own in settings.items()}
    first = {name: ask() for name, ask in asks.items()}
    answers = [{name: ask() for name, ask in asks.items()} for _ in range(repeats)]
    memory = {name: peak_bytes_above(ask, backend.device) for name, ask in asks.items()}
    backend.compression = before
    return {
        name: Latency(first[name].visual_tokens_after, _medians([each[name] for each in answers]), memory[name])
        for name in asks
    }


def _ask(backend: Backend, video: Path, question: str, compression: CompressionConfig) -> Answer:
    backend.compression = compression
    assistant = VideoAssistant(backend, generation=GenerationOptions(max_new_tokens=1))  # keeps no frames of others
    return assistant.ask(video, question)


def _medians(answers: Sequence[Answer]) -> dict[str, float]:
    return {stage: statistics.median(each.seconds.get(stage, 0.0) for each in answers) for stage in STAGES}


if __name__ == "__main__":
    typer.run(main)
