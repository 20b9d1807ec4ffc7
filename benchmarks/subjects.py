"""What the bench compares: stock transformers, the published setting, and ours, all asked in the same way.

Each subject answers a question about a file and says how long each stage took. Stock transformers is used as its own
documentation does; ours is `marc.inference.assistant.VideoAssistant`, the product itself, on the same weights,
decoder, frame
size, prompt and number of new tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import torch
from transformers import LogitsProcessorList, Qwen2_5_VLForConditionalGeneration
from transformers.video_utils import VideoMetadata

from benchmarks.architectures import Weights
from marc.data.prompts import chat_messages, render_question
from marc.inference.assistant import NEAR_DUPLICATES, FrameOptions, VideoAssistant
from marc.inference.stages import FirstToken, StageClock
from marc.memory.select import FramePlan
from marc.model import CompressionConfig, MarcForConditionalGeneration
from marc.types import FRAMES_PER_GRID, Answer, Event, GenerationOptions, Retrieval, VideoInfo
from marc.video import probe, read_frames, sample_times

if TYPE_CHECKING:
    from marc.memory.embedder import EventEmbedder

STOCK = "stock"
INSIDE = "inside"
PROMPT_STYLE = "short"


@dataclass(frozen=True)
class Setting:
    """One column of the bench.

    Attributes:
        name: Short name.
        title: What it is.
        compression: Options of the compression; ``None`` is stock transformers.
        compiled: Whether decoding is compiled, on a GPU.
        frames: ``"same"`` reads the evenly spread frames that stock reads; ``"retrieved"`` what the memory chooses.
    """

    name: str
    title: str
    compression: CompressionConfig | None = None
    compiled: bool = False
    frames: Literal["same", "retrieved"] = "same"

    @property
    def remembers(self) -> bool:
        """Whether the memory's dual encoder is needed."""
        return self.compression is not None


def settings(depth: int) -> tuple[Setting, ...]:
    """The settings that are compared.

    Args:
        depth: Blocks of the vision tower, of which the inner merges come after a quarter.
    """
    quarter = max(1, depth // 4)
    inside = CompressionConfig("events", tower_layer=quarter, duplicates=NEAR_DUPLICATES)
    return (
        Setting(STOCK, "transformers, every token of 64 frames"),
        Setting("paper", "merged after the tower to one frame", CompressionConfig("frames", duplicates=None)),
        Setting("events", "event layout, merged after the tower", CompressionConfig("events", duplicates=None)),
        Setting(
            "schedule",
            f"merged after block {quarter} of {depth} to 4 frames, after the tower to one",
            CompressionConfig("frames", tower_layer=((quarter, 4),), duplicates=None),
        ),
        Setting(
            INSIDE,
            f"event layout, merged after block {quarter} of {depth}, near-duplicates once, compiled decoding on a GPU",
            inside,
            compiled=True,
        ),
        Setting(
            "retrieved",
            "the same, on the frames that the memory chooses for the question",
            inside,
            compiled=True,
            frames="retrieved",
        ),
    )


@dataclass(frozen=True)
class Task:
    """What every subject is asked to do.

    Attributes:
        video: The file.
        weights: The weights that all share.
        embedder: Of the memory.
        memory_folder: Where the video is remembered.
        frames: Which frames are read, and how large.
        new_tokens: Number of generated tokens.
    """

    video: Path
    weights: Weights
    embedder: EventEmbedder
    memory_folder: Path
    frames: FrameOptions
    new_tokens: int

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.weights.holder.device


class Subject(Protocol):
    """Something that answers questions about the task's video."""

    @property
    def model(self) -> Any:
        """The model."""
        ...

    def restart(self) -> None:
        """Forgets what it has read of the video."""
        ...

    def see(self, question: str) -> None:
        """Runs the vision tower on what it reads for a question, and perhaps more."""
        ...

    def ask(self, question: str) -> Answer:
        """Answers with times by stage."""
        ...


def subject(setting: Setting, task: Task) -> Subject:
    """Builds what a setting describes."""
    if setting.compression is None:
        return StockTransformers(task)
    return Assistant(task, setting, setting.compression)


def subject_class(setting: Setting) -> type[VideoAssistant]:
    """The assistant that reads a setting's frames; without compression it needs no memory for that."""
    return SameFramesAssistant if setting.remembers and setting.frames == "same" else VideoAssistant


@dataclass
class StockTransformers:
    """Transformers' Qwen2.5-VL, which reads every token of every frame for every question."""

    task: Task
    model: Any = field(init=False)
    processor: Any = field(init=False)

    def __post_init__(self) -> None:
        self.model = self.task.weights.model(Qwen2_5_VLForConditionalGeneration)
        self.processor = self.task.weights.processor()

    def restart(self) -> None:
        """It keeps nothing anyway."""

    def see(self, question: str) -> None:
        """Has no way to do that alone."""
        self.ask(question)

    @torch.no_grad()
    def ask(self, question: str) -> Answer:
        """Answers with times by stage."""
        clock = StageClock(self.task.device)
        with clock.stage("total"):
            with clock.stage("probe"):
                info = probe(self.task.video)
            with clock.stage("video_decode"):
                pixels = self.task.weights.architecture.frame_pixels
                times = evenly(info, self.task.frames)
                frames = read_frames(self.task.video, times, min_pixels=pixels, max_pixels=pixels)
            with clock.stage("preprocess"):
                inputs = self.processor(
                    text=[chat(self.processor, question)],
                    videos=[frames.rgb],
                    video_metadata=[VideoMetadata(len(frames), fps=1.0, frames_indices=list(range(len(frames))))],
                    do_sample_frames=False,
                    do_resize=False,
                    return_tensors="pt",
                ).to(self.task.device)
            first, start = FirstToken(clock), clock.now()
            with clock.module("vision_tower", self.model.model.visual):
                tokens = self.model.generate(
                    **inputs,
                    logits_processor=LogitsProcessorList([first]),
                    max_new_tokens=self.task.new_tokens,
                    do_sample=False,
                )
            assert first.reached is not None
            clock.seconds["prefill"] += first.reached - start - clock.seconds["vision_tower"]
            clock.seconds["decode"] += clock.now() - first.reached
            (output,) = self.processor.batch_decode(tokens[:, inputs["input_ids"].shape[1] :])
        visual = int((inputs["input_ids"] == self.model.config.video_token_id).sum())
        return Answer("", output, len(frames), visual, visual, dict(clock.seconds), 0)


@dataclass
class Assistant:
    """The project's assistant in one setting."""

    task: Task
    setting: Setting
    compression: CompressionConfig
    assistant: VideoAssistant = field(init=False)

    def __post_init__(self) -> None:
        weights, compression = self.task.weights, self.compression
        flash = "flash" in (weights.attn_implementation or "")
        static = self.setting.compiled and self.task.device.type == "cuda" and not flash
        self.assistant = subject_class(self.setting)(
            memory_folder=self.task.memory_folder,
            frames=self.task.frames,
            generation=GenerationOptions(max_new_tokens=self.task.new_tokens, static=static),
            prompt_style=PROMPT_STYLE,
            loaded=(weights.model(MarcForConditionalGeneration, compression), weights.processor(compression)),
            loaded_embedder=self.task.embedder,
        )

    def restart(self) -> None:
        """The video stays remembered on disk, and what was compiled stays."""
        self.assistant.forget()

    @property
    def model(self) -> MarcForConditionalGeneration:
        """The model."""
        return self.assistant.model

    def see(self, question: str) -> None:
        """Retrieves, reads and encodes."""
        self.assistant.view(self.task.video, question)

    def ask(self, question: str) -> Answer:
        """Answers with times by stage."""
        return self.assistant.ask(self.task.video, question)


class SameFramesAssistant(VideoAssistant):
    """The assistant, which reads the frames that stock transformers reads; the memory only says to which events."""

    def frame_plan(self, info: VideoInfo, retrieval: Retrieval | None) -> FramePlan:
        """Evenly spread frames."""
        assert retrieval is not None
        seconds = evenly(info, self.frames)
        return FramePlan(seconds, grid_events(retrieval.events, seconds), retrieval.events)


def evenly(info: VideoInfo, frames: FrameOptions) -> np.ndarray:
    """Times of frames spread over the whole video."""
    return sample_times(info, fps=frames.fps, max_frames=frames.max_frames, min_frames=frames.fewest)


def grid_events(events: Sequence[Event], seconds: np.ndarray) -> np.ndarray:
    """The event in which each temporal grid begins, ``int64 [G]``."""
    starts = [event.start for event in events]
    return np.searchsorted(starts, seconds[::FRAMES_PER_GRID], side="right") - 1


def chat(processor: Any, question: str) -> str:
    """The prompt, with one placeholder for the video."""
    text = render_question(question, style=PROMPT_STYLE)
    return processor.apply_chat_template(chat_messages(text), add_generation_prompt=True)
