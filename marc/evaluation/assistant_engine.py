"""The engine behind the runner: `marc.inference.assistant.VideoAssistant`, set up as one of the named methods."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, fields, replace
from functools import cached_property
from typing import Any

from marc.data.prompts import BARE_STYLE
from marc.evaluation.methods import Method
from marc.evaluation.options import EngineOptions
from marc.evaluation.samples import Sample
from marc.inference.assistant import VideoAssistant
from marc.inference.backend import Backend
from marc.inference.query import Query
from marc.inference.selectors import RandomSelector, RetrievingSelector
from marc.model.config import CompressedConfig
from marc.model.family import family_of
from marc.types import FRAMES_PER_GRID, Answer, Frames, GenerationOptions
from marc.video.frame_folders import read_frame_folder


class AssistantEngine:
    """Answers samples with a `VideoAssistant`.

    Args:
        method: How visual tokens are spent.
        options: What the assistant is made from.
    """

    def __init__(self, method: Method, options: EngineOptions):
        self.method, self.options = method, options
        model = options.model
        frames = replace(options.frames, max_frames=min(options.frames.max_frames, method.frames))
        self.assistant = VideoAssistant.from_pretrained(
            model.name,
            device=model.device,
            dtype=model.dtype,
            attn_implementation=model.attn_implementation,
            backend=model.backend,
            frames=frames,
            compression={**options.compression, **method.compression},
            memory=options.memory if method.memory else None,
            retrieval=options.retrieval,
            subtitles=options.subtitles,
        )
        self._retriever = selector if isinstance(selector := self.assistant.selector, RetrievingSelector) else None
        if method.choice == "random":
            self.assistant.selector = RandomSelector(self._retriever)
        if method.frame_pixels == "one frame":
            self.assistant.frames = replace(frames, min_pixels=None, max_pixels=_one_frames_pixels(self.assistant))

    def answer(self, samples: Sequence[Sample], generation: GenerationOptions) -> list[Answer]:
        """One answer per sample; see `marc.evaluation.engine.Engine`."""
        for sample in samples:
            if sample.data_type not in ("video", "frame"):
                raise ValueError(f"{sample.path}: a {sample.data_type}; only questions about videos are asked")
        self.assistant.generation = generation
        return self.assistant.ask_batch(
            [
                Query(self._footage(one), one.question, one.prompt, bare_prompt=one.question_in(BARE_STYLE))
                for one in samples
            ]
        )

    def _footage(self, sample: Sample) -> str | Frames:
        """The video's file, or the frames of a folder of them, which are shown as they are."""
        if sample.data_type == "video":
            return sample.path
        frames = self.assistant.frames
        return read_frame_folder(
            sample.path, max_frames=frames.max_frames, timeout=frames.timeout, **self.assistant.pixel_limits
        )

    def card(self) -> dict[str, Any]:
        """Model, checkpoint hash, compression, frames and memory."""
        return {
            "model": self.options.model.name,
            "family": family_of(self._engine.config).title,
            "checkpoint": self._checkpoint,
            "reading": self._reading,
            "compression": asdict(self._engine.compression),
            "frames": {name: value for name, value in asdict(self.assistant.frames).items() if name != "timeout"},
            "dtype": str(self._engine.dtype).removeprefix("torch."),
            "attention": self.options.model.attn_implementation,
            "memory": self._memory_card(),
            **({} if self.options.model.backend == "hf" else {"backend": self.options.model.backend}),
            **({} if self.options.subtitles.choice == "none" else {"subtitles": asdict(self.options.subtitles)}),
        }

    @property
    def _engine(self) -> Backend:
        return self.assistant.backend

    @property
    def _reading(self) -> dict[str, Any]:
        """What else of its configuration says how a prompt is read: the fields that its family adds."""
        config, stock = self._engine.config, family_of(self._engine.config).stock.load("config")
        known = {field.name for each in (stock, CompressedConfig) for field in fields(each)}
        return {field.name: getattr(config, field.name) for field in fields(config) if field.name not in known}

    @cached_property
    def _checkpoint(self) -> str:
        return self._engine.fingerprint()[:16]

    def _memory_card(self) -> dict[str, Any] | None:
        if self._retriever is None:
            return None
        identity, retrieval = self._retriever.embedder.identity, self.options.retrieval
        scope = {} if retrieval.scope == "moments" else {"scope": retrieval.scope}
        return {"embedder": identity, "k": retrieval.k, **scope, **asdict(self.options.memory)}


def _one_frames_pixels(assistant: VideoAssistant) -> int:
    """Pixels per frame at which all frames together cost what one grid does, but at least one token each."""
    limits = assistant.pixel_limits
    grids = assistant.frames.max_frames // FRAMES_PER_GRID
    return max(limits["max_pixels"] // grids, limits["factor"] ** 2)
