"""The engine behind the runner: `marc.inference.assistant.VideoAssistant`, set up as one of the named methods."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from marc.evaluation.engine import Reply
from marc.evaluation.methods import Method
from marc.evaluation.samples import Sample
from marc.inference.assistant import FrameOptions, Inquiry, VideoAssistant
from marc.memory.index import MemoryOptions
from marc.memory.select import FramePlan
from marc.types import FRAMES_PER_GRID, Event, GenerationOptions, Retrieval, VideoInfo


@dataclass
class RandomPlaceAssistant(VideoAssistant):
    """A `VideoAssistant` whose only change is that it reads two frames at a random place of the video, or of what was
    retrieved from it. The place follows from the file's name alone.
    """

    def frame_plan(self, info: VideoInfo, retrieval: Retrieval | None) -> FramePlan:
        """One temporal grid at a random place."""
        stretches = (Event(0.0, info.duration),) if retrieval is None else retrieval.events
        kept = (0,) if retrieval is None else retrieval.kept
        generator = np.random.default_rng(zlib.crc32(Path(info.source).name.encode()))
        event = stretches[int(generator.choice(kept))]
        step = 1.0 / self.frames.fps
        start = event.start + generator.random() * max(0.0, event.duration - step)
        seconds = np.minimum([start, start + step], info.duration)
        return FramePlan(seconds=seconds, grid_events=np.zeros(1, dtype=np.int64), events=(event,), shares=None)


class AssistantEngine:
    """Answers samples with a `VideoAssistant`.

    Args:
        model: ``"tiny"``, a folder or a hub name.
        method: How visual tokens are spent.
        frames: Which frames are read; the method limits their number and size.
        options: Further options of `VideoAssistant`, such as ``device``, ``dtype`` or ``memory_folder``.
    """

    def __init__(self, model: str, method: Method, frames: FrameOptions | None = None, **options: Any):
        self.method = method
        frames = frames or FrameOptions()
        most = min(frames.max_frames, method.frames)
        frames = replace(frames, max_frames=most)
        assistant_class = RandomPlaceAssistant if method.choice == "random" else VideoAssistant
        self.assistant = assistant_class(
            model, memory=method.memory, frames=frames, compression=dict(method.compression), **options
        )
        if method.frame_pixels == "one frame":
            self.assistant.frames = replace(frames, min_pixels=None, max_pixels=_one_frames_pixels(self.assistant))

    def answer(self, samples: Sequence[Sample], generation: GenerationOptions) -> list[Reply]:
        """One reply per sample; see `marc.evaluation.engine.Engine`."""
        for sample in samples:
            if sample.data_type != "video":
                raise ValueError(f"{sample.path}: a {sample.data_type}; only questions about videos are asked")
        self.assistant.generation = generation
        answers = self.assistant.ask_batch([Inquiry(one.path, one.question, one.prompt) for one in samples])
        return [
            Reply(
                output=answer.output,
                frames=answer.frames,
                visual_tokens_before=answer.visual_tokens_before,
                visual_tokens_after=answer.visual_tokens_after,
                seconds=answer.seconds,
                peak_memory_bytes=answer.peak_memory_bytes,
                events=tuple((event.start, event.end) for event in answer.events),
                scores=answer.scores,
            )
            for answer in answers
        ]

    def card(self) -> dict[str, Any]:
        """Model, checkpoint hash, compression, frames and memory."""
        assistant = self.assistant
        return {
            "model": assistant.model_name,
            "checkpoint": self._checkpoint,
            "compression": asdict(assistant.model.compression),
            "frames": {name: value for name, value in asdict(assistant.frames).items() if name != "timeout"},
            "dtype": str(assistant.model.dtype).removeprefix("torch."),
            "attention": assistant.attn_implementation,
            "memory": self._memory_card() if assistant.memory else None,
        }

    @cached_property
    def _checkpoint(self) -> str:
        return checkpoint_hash(self.assistant.model)

    def _memory_card(self) -> dict[str, Any]:
        assistant = self.assistant
        options = assistant.memory_options or MemoryOptions()
        return {"embedder": assistant.embedder.identity, "k": assistant.k, **asdict(options)}


def checkpoint_hash(model: Any) -> str:
    """Identifies weights: SHA-256 over names, shapes, types and bytes of all parameters, the first 16 digits of it."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(json.dumps([name, list(tensor.shape), str(tensor.dtype)]).encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def _one_frames_pixels(assistant: VideoAssistant) -> int:
    """Pixels per frame at which all frames together cost what one does, but at least one token each."""
    limits = assistant.pixel_limits
    grids = assistant.frames.max_frames // FRAMES_PER_GRID
    return max(limits["max_pixels"] // grids, limits["factor"] ** 2)
