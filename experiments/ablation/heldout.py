"""Held-out videos as the memory knows them: files, events, what is retrieved for a question.

The videos are written as H.264 files, cut by the real segmenter (TransNetV2) and embedded by the shipped dual
encoder, once; `marc.memory` keeps both on disk. Rows about them carry the cuts that were found. What is retrieved for
a question is what `marc.inference.selectors.RetrievingSelector` selects from the file.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from experiments.ablation.evaluation import STYLE, EvaluationSet, right_answer, selected_frames, whole_videos
from experiments.ablation.rows import questions_about, rows_about
from experiments.ablation.settings import BUDGETS, AblationSettings, Condition
from marc.compression.config import CompressionConfig
from marc.data.prompts import render_question
from marc.data.rows import TrainingRow
from marc.inference.assistant import VideoAssistant
from marc.inference.hf import HFBackend
from marc.inference.query import Query
from marc.inference.selectors import FrameRequest, RetrievingSelector
from marc.inference.stages import StageClock
from marc.inference.video_input import VideoInput
from marc.memory.embedder import EventEmbedder
from marc.memory.index import remember
from marc.memory.options import MemoryOptions, RetrievalOptions
from marc.memory.store import VideoMemory
from marc.training.reader import VisualReader
from marc.video import probe
from marc.video.options import FrameOptions
from marc.world.export import FileOptions, cuts_in_seconds, export_world
from marc.world.frames import WorldFrames
from marc.world.options import WorldOptions
from marc.world.scenes import WorldVideo, sample_video

EMBEDDER = "tiny"
CUT_TOLERANCE = 0.1
"""Seconds by which a found cut may be off."""
CELLS = 4
"""Visual tokens of one temporal grid."""
FILES = FileOptions(hold=4, fps=8.0)
"""Half a second for each frame, as by default, but fewer video frames for the segmenter to read."""


@dataclass(frozen=True)
class HeldOut:
    """Held-out videos.

    Attributes:
        folder: Holds files and memories.
        segmenter: What cut the videos.
        embedder: What embedded their events.
        videos: V videos.
        files: Of each.
        memories: Of each.
        rows: The same number of questions about each, video by video, with the cuts that were found.
        kinds: Of these questions.
    """

    folder: Path
    segmenter: str
    embedder: EventEmbedder
    videos: list[WorldVideo]
    files: list[Path]
    memories: list[VideoMemory]
    rows: list[TrainingRow]
    kinds: list[str]

    @property
    def questions(self) -> int:
        """Questions about each video."""
        return len(self.rows) // len(self.videos)

    def retrieval(self, k: int) -> RetrievalOptions:
        """How k events of a video are retrieved."""
        return RetrievalOptions(k=k, embedder=EMBEDDER, folder=str(self.folder / "memory"))


def prepare_heldout(folder: Path, settings: AblationSettings) -> HeldOut:
    """Writes, cuts and embeds the videos that are not there yet; a killed run goes on.

    Args:
        folder: Receives the files and the memories.
        settings: Which videos, and what cuts them.
    """
    seed, count = settings.test_seed, settings.test_questions
    videos = [sample_video("easy", "test", seed, index) for index in range(settings.test_videos)]
    export_world(folder, WorldOptions(seed=seed, videos=len(videos), questions=count), options=FILES)
    files = [folder / "videos" / f"{video.name}.mp4" for video in videos]
    embedder, options = EventEmbedder.from_pretrained(EMBEDDER), MemoryOptions(segmenter=settings.segmenter)
    memories = [
        remember(file, embedder, options, folder=folder / "memory")
        for file in tqdm(files, desc="memory", unit="video", delay=5)
    ]
    rows, kinds = [], []
    for index, (video, memory) in enumerate(zip(videos, memories, strict=True)):
        questions = questions_about(video, "test", seed, index, count)
        rows += rows_about(video, [event.start for event in memory.events[1:]], questions, index * count)
        kinds += [question.kind for question in questions]
    return HeldOut(folder, settings.segmenter, embedder, videos, files, memories, rows, kinds)


def found_cuts(heldout: HeldOut) -> tuple[int, int, int]:
    """Cuts of the videos, how many of them the memory's events begin at, and events that begin elsewhere."""
    true, hits, others = 0, 0, 0
    for video, memory in zip(heldout.videos, heldout.memories, strict=True):
        cuts = np.array(cuts_in_seconds(video))
        starts = np.array([event.start for event in memory.events[1:]])
        close = np.abs(cuts[:, None] - starts) <= CUT_TOLERANCE
        true, hits, others = true + len(cuts), hits + int(close.any(1).sum()), others + int((~close.any(0)).sum())
    return true, hits, others


def show_heldout(model: HFBackend, heldout: HeldOut, condition: Condition) -> EvaluationSet:
    """The held-out questions under a condition, encoded by a model's tower."""
    compression = BUDGETS[condition.budget]
    if condition.k is None:
        reader = VisualReader(model.processor, WorldFrames())
        return EvaluationSet(heldout.rows, whole_videos(model, reader, heldout.rows, compression))
    return EvaluationSet(heldout.rows, _retrieved(model, heldout, condition.k, compression))


def _retrieved(model: HFBackend, heldout: HeldOut, k: int, compression: CompressionConfig) -> list[VideoInput]:
    """What the assistant would show for each question; questions that want the same of a video share it."""
    selector = RetrievingSelector(
        lambda: heldout.embedder, MemoryOptions(segmenter=heldout.segmenter), heldout.retrieval(k)
    )
    shown = []
    for index, (video, file) in enumerate(zip(heldout.videos, heldout.files, strict=True)):
        info, known = probe(file), dict[tuple[object, ...], VideoInput]()
        for row in heldout.rows[index * heldout.questions : (index + 1) * heldout.questions]:
            selection = selector.select(
                FrameRequest(info, row.problem, FrameOptions(), compression, CELLS, 0, StageClock())
            )
            key = (selection.seconds.tobytes(), selection.grid_events, selection.shares)
            if key not in known:
                known[key] = selected_frames(model.processor, video, selection, compression)
            shown.append(known[key])
        model.encode(list(known.values()))
    return shown


def agreement(
    model_name: str, heldout: HeldOut, condition: Condition, right: NDArray[np.bool_], *, videos: int
) -> float:
    """Part of the questions about the first files on which `VideoAssistant` and the measurement agree.

    Args:
        model_name: The model that was measured.
        heldout: What it was asked about.
        condition: With retrieval.
        right: What was measured.
        videos: How many files to ask about.
    """
    assert condition.k is not None
    assistant = VideoAssistant.from_pretrained(
        model_name,
        compression=BUDGETS[condition.budget].to_dict(),
        memory=MemoryOptions(segmenter=heldout.segmenter),
        retrieval=heldout.retrieval(condition.k),
        device="cpu",
    )
    same, count = [], heldout.questions
    for index, file in enumerate(heldout.files[:videos]):
        rows = heldout.rows[index * count : (index + 1) * count]
        answers = assistant.ask_batch([Query(file, row.problem, _text(row)) for row in rows])
        for answer, row, measured in zip(answers, rows, right[index * count :], strict=False):
            same.append((answer.answer == right_answer(row)) == bool(measured))
    return sum(same) / len(same)


def _text(row: TrainingRow) -> str:
    return render_question(row.problem, problem_type=row.problem_type, options=row.options, style=STYLE)
