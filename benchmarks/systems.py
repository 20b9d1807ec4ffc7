"""What the bench compares: stock transformers, the published setting, and ours, all asked in the same way.

Each system answers a question about a file and says how long each stage took. Stock transformers is used as its own
documentation does; ours is `marc.inference.assistant.VideoAssistant`, the product itself. All have the same weights,
decoder, frame size, prompt and number of new tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import torch
from transformers import LogitsProcessorList
from transformers.video_utils import VideoMetadata

from benchmarks.architectures import Weights
from marc.compression.config import NEAR_DUPLICATES, CompressionConfig, override_compression
from marc.data.prompts import chat_messages, render_question
from marc.inference.assistant import VideoAssistant
from marc.inference.hf import HFBackend
from marc.inference.selectors import FrameRequest, FrameSelector, RetrievingSelector, Selection, UniformSelector
from marc.inference.stages import FirstToken, StageClock
from marc.memory.options import MemoryOptions, RetrievalOptions
from marc.model import CompressedVLM
from marc.types import FRAMES_PER_GRID, Answer, Event, GenerationOptions, VideoInfo
from marc.video import probe, read_frames, sample_times
from marc.video.options import FrameOptions

if TYPE_CHECKING:
    from marc.memory.embedder import EventEmbedder

STOCK = "stock"
INSIDE = "inside"
OWN = "own"
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

    def selector(self, embedder: EventEmbedder, retrieval: RetrievalOptions) -> FrameSelector:
        """What chooses the frames.

        Args:
            embedder: Of the memory.
            retrieval: How many events are retrieved, and where videos are remembered.
        """
        if not self.remembers:
            return UniformSelector()
        memory = RetrievingSelector(lambda: embedder, MemoryOptions(), retrieval)
        return memory if self.frames == "retrieved" else SameFramesSelector(memory)


def settings(depth: int, own: Mapping[str, Any] | None = None) -> tuple[Setting, ...]:
    """The settings that are compared.

    Args:
        depth: Blocks of the vision tower, of which the inner merges come after a quarter.
        own: Options of the compression, by which one more setting differs from ``"inside"``.

    Raises:
        ValueError: If one of these is wrong.
    """
    quarter = max(1, depth // 4)
    inside = CompressionConfig("events", tower_layer=quarter, duplicates=NEAR_DUPLICATES)
    asked = ", ".join(f"{name} {value}" for name, value in (own or {}).items())
    return (
        Setting(STOCK, "transformers, every token of all frames"),
        Setting("paper", "merged after the tower to one grid", CompressionConfig("frames", duplicates=None)),
        Setting("events", "event layout, merged after the tower", CompressionConfig("events", duplicates=None)),
        Setting(
            "schedule",
            f"merged after block {quarter} of {depth} to 4 grids, after the tower to one",
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
        *([Setting(OWN, f"as inside, with {asked}", override_compression(inside, own), compiled=True)] if own else []),
    )


@dataclass(frozen=True)
class Workload:
    """What every system is asked to do.

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


class System(Protocol):
    """Something that answers questions about the workload's video."""

    @property
    def model(self) -> Any:
        """The model."""
        ...

    def forget(self) -> None:
        """Drops what it has read of the video."""
        ...

    def encode(self, question: str) -> None:
        """Runs the vision tower on what it reads for a question, and perhaps more."""
        ...

    def ask(self, question: str) -> Answer:
        """Answers with times by stage."""
        ...


def build_system(setting: Setting, workload: Workload) -> System:
    """Builds what a setting describes."""
    return StockTransformers(workload) if setting.compression is None else Ours(workload, setting)


@dataclass
class StockTransformers:
    """Transformers' own model, which reads every token of every frame for every question."""

    workload: Workload
    model: Any = field(init=False)
    processor: Any = field(init=False)

    def __post_init__(self) -> None:
        self.model = self.workload.weights.model(self.workload.weights.architecture.stock_model)
        self.processor = self.workload.weights.processor()

    def forget(self) -> None:
        """It keeps nothing anyway."""

    def encode(self, question: str) -> None:
        """Has no way to do that alone."""
        self.ask(question)

    @torch.no_grad()
    def ask(self, question: str) -> Answer:
        """Answers with times by stage."""
        clock = StageClock(self.workload.device)
        with clock.stage("total"):
            inputs, frames = self._read(question, clock)
            first, start = FirstToken(clock), clock.now()
            with clock.module("vision_tower", self.model.model.visual):
                tokens = self.model.generate(
                    **inputs,
                    logits_processor=LogitsProcessorList([first]),
                    max_new_tokens=self.workload.new_tokens,
                    do_sample=False,
                )
            assert first.reached is not None
            clock.seconds["prefill"] += first.reached - start - clock.seconds["vision_tower"]
            clock.seconds["decode"] += clock.now() - first.reached
            (output,) = self.processor.batch_decode(tokens[:, inputs["input_ids"].shape[1] :])
        visual = int((inputs["input_ids"] == self.model.config.video_token_id).sum())
        config, ids = self.model.config, inputs["input_ids"][0]
        marks = ((ids == config.vision_start_token_id) | (ids == config.vision_end_token_id)).nonzero()
        prompt = int(marks[-1] - marks[0]) + 1
        return Answer("", output, frames, visual, visual, prompt, prompt, dict(clock.seconds), 0)

    def _read(self, question: str, clock: StageClock) -> tuple[Any, int]:
        """The model's inputs and the number of frames."""
        video, architecture = self.workload.video, self.workload.weights.architecture
        pixels, factor = architecture.frame_pixels, architecture.factor
        with clock.stage("probe"):
            info = probe(video)
        with clock.stage("video_decode"):
            times = evenly(info, self.workload.frames)
            frames = read_frames(video, times, factor=factor, min_pixels=pixels, max_pixels=pixels)
        with clock.stage("preprocess"):
            inputs = self.processor(
                text=[chat(self.processor, question)],
                videos=[frames.rgb],
                video_metadata=[VideoMetadata(len(frames), fps=1.0, frames_indices=list(range(len(frames))))],
                do_sample_frames=False,
                do_resize=False,
                return_tensors="pt",
            ).to(self.workload.device)
        return inputs, len(frames)


@dataclass
class Ours:
    """The project's assistant in one setting."""

    workload: Workload
    setting: Setting
    model: CompressedVLM = field(init=False)
    assistant: VideoAssistant = field(init=False)

    def __post_init__(self) -> None:
        weights, compression = self.workload.weights, self.setting.compression
        self.model = weights.model(weights.architecture.our_model, compression)
        backend = HFBackend(self.model, weights.processor(compression))
        static = self.setting.compiled and self.workload.device.type == "cuda" and "static" not in backend.cannot
        self.assistant = VideoAssistant(
            backend,
            self.setting.selector(self.workload.embedder, RetrievalOptions(folder=str(self.workload.memory_folder))),
            frames=self.workload.frames,
            generation=GenerationOptions(max_new_tokens=self.workload.new_tokens, static=static),
            prompt_style=PROMPT_STYLE,
        )

    def forget(self) -> None:
        """The video stays remembered on disk, and what was compiled stays."""
        self.assistant.forget()

    def encode(self, question: str) -> None:
        """Retrieves, reads and encodes."""
        self.assistant.view(self.workload.video, question)

    def ask(self, question: str) -> Answer:
        """Answers with times by stage."""
        return self.assistant.ask(self.workload.video, question)


@dataclass(frozen=True)
class SameFramesSelector:
    """The frames that stock transformers reads; the memory only says to which event each belongs.

    Attributes:
        memory: Finds the events.
    """

    memory: RetrievingSelector

    def select(self, request: FrameRequest) -> Selection:
        """See `marc.inference.selectors.FrameSelector`."""
        retrieval = self.memory.retrieve(request)
        seconds = evenly(request.info, request.frames)
        return Selection(seconds, tuple(grid_events(retrieval.events, seconds).tolist()), None, retrieval)


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
