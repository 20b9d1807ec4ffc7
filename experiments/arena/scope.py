"""Which questions want which frames: retrieved moments, evenly spread frames, or what each question's words say.

Everything between a question and the frames is the assistant's (`marc.inference.selectors`), at one or more budgets in
all ways; only the memory is made here, from the true cuts and the words that the model's own tower says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple, cast, get_args

import numpy as np
import torch

from experiments.arena.retriever import TowerWords
from marc.compression.config import parse_budget
from marc.evaluation.arena.options import allowed
from marc.evaluation.statistics import compare_paired, estimate
from marc.evaluation.tables import interval
from marc.inference.hf import HFBackend
from marc.inference.query import budget_for
from marc.inference.selectors import FrameRequest, RetrievingSelector
from marc.inference.stages import StageClock
from marc.inference.video_input import VideoInput, VisualPatches
from marc.memory.embedder import EventEmbedder
from marc.memory.options import MemoryOptions, RetrievalOptions, Scope
from marc.memory.select import Stretch
from marc.memory.store import VideoMemory
from marc.model.loading import load_model
from marc.types import VISION_MARKS, Event, Frames, VideoInfo
from marc.video.options import FrameOptions
from marc.world.arena.scenes import MOST_GRIDS, ArenaVideo, sample_arena
from marc.world.export import FileOptions, cuts_in_seconds, video_questions
from marc.world.frames import draw_frames
from marc.world.measure import answers_right
from marc.world.questions import WorldQuestion

SCOPES: tuple[Scope, ...] = get_args(Scope)
FRAMES = FrameOptions(fps=2.0, max_frames=2 * MOST_GRIDS)


class Way(NamedTuple):
    """How questions are asked.

    Attributes:
        scope: What a question is taken to be about.
        budget: A part of what every token costs in the prompt, such as ``1/32``, or a budget such as ``auto:64``.
    """

    scope: Scope
    budget: str


def ways_of(scopes: Sequence[Scope], budgets: Sequence[str]) -> dict[str, Way]:
    """Every scope at every budget, by the name of what differs."""
    return {
        scope if len(budgets) == 1 else f"{scope} {budget}": Way(scope, budget)
        for scope in scopes
        for budget in budgets
    }


@dataclass(frozen=True)
class Asked:
    """One question, and whether it was answered right in each of the ways.

    Attributes:
        video: Its number.
        kind: Of the question.
        for_all: Whether its words say that it is about all of the video.
        right: By way.
        tokens: Visual tokens that were read, by way.
    """

    video: int
    kind: str
    for_all: bool
    right: dict[str, bool]
    tokens: dict[str, int]


class TrueCuts(RetrievingSelector):
    """Remembers a video by its true cuts.

    Args:
        embedder: Embeds pictures and questions.
        video: The only one.
        frames: All of it.
    """

    def __init__(self, embedder: EventEmbedder, video: ArenaVideo, frames: Frames) -> None:
        super().__init__(lambda: embedder, MemoryOptions(), RetrievalOptions())
        edges = (0.0, *cuts_in_seconds(video), len(frames.rgb) * FileOptions().seconds_per_frame)
        events = tuple(Event(start, end) for start, end in pairwise(edges))
        step = self.options.seconds_per_frame
        shown = [np.arange(event.start + min(step, event.duration) / 2, event.end, step) for event in events]
        pictures = [frames.rgb[places(seconds)] for seconds in shown]
        self._memory = Stretch(events, embedder.embed_events(pictures))

    def remember(self, video: str | Path) -> VideoMemory:
        """See `RetrievingSelector`."""
        return cast(VideoMemory, self._memory)


def places(seconds: np.ndarray) -> np.ndarray:
    """The world's frames that are shown at some times."""
    return (seconds / FileOptions().seconds_per_frame + 1e-6).astype(int)


@torch.no_grad()
def measure_scopes(
    folder: Path, layout: str, ways: Mapping[str, Way], *, videos: int, questions: int, seed: int
) -> list[Asked]:
    """Asks test videos of the level in every way.

    Args:
        folder: Of the model.
        layout: In which frames are shown; in ``events`` and ``details`` retrieval shares out tokens, in others it
            leaves out events.
        ways: By name, see `ways_of`.
        videos: How many.
        questions: About each.
        seed: Of the videos and questions.
    """
    compression = {"layout": layout}
    backend = HFBackend(*load_model(str(folder), device="cpu", dtype="float32", **compression))
    embedder = EventEmbedder(TowerWords(backend), precision="fp32")
    found: list[Asked] = []
    for index in range(videos):
        video = sample_arena("test", seed, index)
        frames, asked = draw_frames(video), video_questions(video, "test", seed, index, questions)
        memory = TrueCuts(embedder, video, frames)
        by_way = {name: _answered(backend, memory, frames, asked, way) for name, way in ways.items()}
        auto = RetrievalOptions(scope="auto")
        found += [
            Asked(
                index,
                each.kind,
                auto.takes_for_all(each.text),
                {name: answered[place][0] for name, answered in by_way.items()},
                {name: answered[place][1] for name, answered in by_way.items()},
            )
            for place, each in enumerate(asked)
        ]
    return found


def _answered(
    backend: HFBackend, memory: TrueCuts, frames: Frames, asked: Sequence[WorldQuestion], way: Way
) -> list[tuple[bool, int]]:
    """Whether each question is answered right, from how many visual tokens."""
    memory.retrieval = RetrievalOptions(scope=way.scope)
    shown = [_seen(backend, memory, frames, question.text, way.budget) for question in asked]
    backend.encode(shown)
    right = answers_right(backend, backend.config.prompt_style, shown, [[question] for question in asked])
    return list(zip(right, (each.tokens for each in shown), strict=True))


def _seen(backend: HFBackend, memory: TrueCuts, frames: Frames, question: str, budget: str) -> VideoInput:
    """What the model sees of a video for a question."""
    processor, count, (height, width) = backend.processor, len(frames.rgb), frames.rgb.shape[1:3]
    cells = height * width // processor.cell_pixels**2
    if "/" in budget:
        most = int(allowed(budget, count // 2 * cells + VISION_MARKS)) - VISION_MARKS
        compression = replace(backend.compression, visual_tokens=most, target_frames=max(1, most // cells))
    else:
        compression = budget_for(question, parse_budget(budget, backend.compression))
    duration = count * FileOptions().seconds_per_frame
    info = VideoInfo(frames.source, width, height, duration, 1 / FileOptions().seconds_per_frame, count, "none")
    request = FrameRequest(info, question, FRAMES, compression, cells, 0, StageClock())
    selection = memory.select(request)
    read = replace(frames, rgb=frames.rgb[places(selection.seconds)], seconds=selection.seconds)
    patches = VisualPatches.of_frames(processor, read, selection.grid_events)
    return VideoInput.of(patches, processor, compression, shares=selection.shares)


def scope_table(found: Sequence[Asked]) -> str:
    """Accuracy by kind of question and way, in Markdown, with intervals over videos."""
    ways = list(found[0].right)

    def row(name: str, some: Sequence[Asked]) -> str:
        means = " | ".join(f"{100 * np.mean([each.right[way] for each in some]):.1f}" for way in ways)
        for_all = np.mean([each.for_all for each in some])
        return f"| {name} | {len(some)} | {100 * for_all:.0f} | {means} |"

    lines = [
        f"| questions | n | told as about all, % | {' | '.join(ways)} |",
        f"|---|---|---|{'---|' * len(ways)}",
    ]
    lines.append(row("all", found))
    lines += [row(kind, [each for each in found if each.kind == kind]) for kind in sorted({x.kind for x in found})]
    videos = [each.video for each in found]
    scores = {way: [float(each.right[way]) for each in found] for way in ways}
    for way in ways:
        own = estimate(scores[way], videos)
        gain = compare_paired(scores[ways[0]], scores[way], videos).difference
        against = f"; {interval(gain, signed=True, digits=1)} to {ways[0]}"
        tokens = np.mean([each.tokens[way] for each in found])
        lines.append(
            f"\n{way}: {interval(own, digits=1)} % from {tokens:.0f} visual tokens"
            + (against if way != ways[0] else "")
        )
    return "\n".join(lines)
