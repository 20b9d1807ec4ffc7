"""Questions about micro-world videos under one condition, and which of them a model answers right.

Frames are rendered instead of decoded; all else is what `marc ask` does: its plan of the frames, the tower, the
compression, the positions, and one greedy generation in which what prompts begin with is read once.
`experiments.ablation.heldout.agreement` compares the two on files.

Shapes: N questions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from marc.compression.config import CompressionConfig
from marc.data.rows import TrainingRow
from marc.grading import extract_answer
from marc.inference.encoding import encode_once
from marc.inference.hf import HFBackend
from marc.inference.prompts import Prompt
from marc.inference.selectors import Selection
from marc.inference.video_input import VideoInput, VisualPatches, inputs_at
from marc.model import CompressedProcessor
from marc.training.dataset import completion, to_example
from marc.training.inputs import tokenize_prompt
from marc.training.reader import VisualReader, VisualSource
from marc.training.sft import completion_ids
from marc.types import Frames, GenerationOptions
from marc.world.export import FileOptions
from marc.world.renderer import render_video
from marc.world.scenes import WorldVideo

STYLE = "video-r1"
TOGETHER = 384
"""Questions of one generation."""


@dataclass(frozen=True)
class EvaluationSet:
    """Questions under one condition, ready to be asked.

    Attributes:
        rows: N questions with their answers.
        shown: What is shown for each, encoded.
    """

    rows: list[TrainingRow]
    shown: list[VideoInput]

    def right(self, model: HFBackend) -> NDArray[np.bool_]:
        """Which of the questions a model answers exactly right, whatever its reasoning: ``bool [N]``."""
        said = ask(model, self.rows, self.shown)
        same = [extract_answer(text) == right_answer(row) for text, row in zip(said, self.rows, strict=True)]
        return np.array(same, dtype=np.bool_)


def right_answer(row: TrainingRow) -> str:
    """A row's answer without its tags."""
    return extract_answer(row.solution)


def ask(model: HFBackend, rows: Sequence[TrainingRow], shown: Sequence[VideoInput]) -> list[str]:
    """A model's greedy answer to each question.

    Args:
        model: Answers.
        rows: The questions.
        shown: What is shown for each, all at one budget, encoded.
    """
    options = GenerationOptions(max_new_tokens=longest_answer(model.processor, rows))
    said: list[str] = []
    for start in range(0, len(rows), TOGETHER):
        some = slice(start, start + TOGETHER)
        prompts = [prompt(model.processor, row, video) for row, video in zip(rows[some], shown[some], strict=True)]
        said += model.processor.batch_decode(model.generate(prompts, options), skip_special_tokens=True)
    return said


def prompt(processor: CompressedProcessor, row: TrainingRow, video: VideoInput) -> Prompt:
    """A question as training puts it."""
    return Prompt(tuple(tokenize_prompt(processor, to_example(row, "", style=STYLE)["prompt"])), (video,))


def longest_answer(processor: CompressedProcessor, rows: Sequence[TrainingRow]) -> int:
    """One token more than the longest right answer has, with its reasoning."""
    texts = {completion(row, reasoning=True) for row in rows}
    return 1 + max(len(completion_ids(processor, text)) for text in texts)


def whole_videos(
    model: HFBackend, reader: VisualReader, rows: Sequence[TrainingRow], compression: CompressionConfig
) -> list[VideoInput]:
    """The videos of rows as the trainers show them at a budget, encoded."""
    sources = [source(row) for row in rows]
    patches = {each: reader.read(each) for each in dict.fromkeys(sources)}
    shown = [video for (video,) in inputs_at([[patches[each]] for each in sources], model.processor, compression)]
    encode_once(model.model, shown)
    return shown


def source(row: TrainingRow) -> VisualSource:
    """The video that a row names."""
    assert row.path is not None
    return VisualSource("video", row.path, row.cuts)


def selected_frames(
    processor: CompressedProcessor, video: WorldVideo, selection: Selection, compression: CompressionConfig
) -> VideoInput:
    """Some frames of a video as the assistant shows them at a budget, not yet encoded."""
    frames_THWC = render_video(video).numpy()
    numbers = (selection.seconds / FileOptions().seconds_per_frame).astype(int).clip(0, len(frames_THWC) - 1)
    frames = Frames(frames_THWC[numbers], selection.seconds, video.name)
    patches = VisualPatches.of_frames(processor, frames, selection.grid_events)
    return VideoInput.of(patches, processor, compression, shares=selection.shares)
