"""Reads and plans the videos of requests exactly as an assistant without a memory does.

The rest of vLLM works on what comes out: patches and a `marc.inference.plan_record.PlanRecord` for each video.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from tempfile import NamedTemporaryFile
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from marc.compression.config import NEAR_DUPLICATES, CompressionConfig, override_compression
from marc.inference.video_input import VideoInput
from marc.inference.viewing import Viewer
from marc.model.processing import CompressedProcessor
from marc.types import Clip, Frames
from marc.video.options import FrameOptions, SubtitleOptions

_FRAMES = {field.name for field in fields(FrameOptions)} - {"timeout", "backend"}
_COMPRESSION = {"budget", *(field.name for field in fields(CompressionConfig))}
_STRETCH = {"start", "end"}


@dataclass(frozen=True)
class VideoRequest:
    """How a video of a request is read and compressed.

    Attributes:
        frames: How many frames are read, and how large.
        compression: The budget.
        start: Where the stretch begins that is shown, in seconds.
        end: Where it ends; None: with the video.
    """

    frames: FrameOptions
    compression: CompressionConfig
    start: float = 0.0
    end: float | None = None

    @classmethod
    def of(cls, options: Mapping[str, Any], compression: CompressionConfig) -> VideoRequest:
        """From a request's options.

        Args:
            options: Fields of `FrameOptions` (but the decoder and its time limit) and of `CompressionConfig`,
                ``budget``, ``start`` and ``end``.
            compression: The model's.

        Raises:
            ValueError: Naming the option that is unknown or out of range.
        """
        known = _FRAMES | _COMPRESSION | _STRETCH
        if unknown := sorted(options.keys() - known):
            raise ValueError(f"unknown option of a video {', '.join(unknown)}; known are {', '.join(sorted(known))}")
        changes = {name: value for name, value in options.items() if name in _COMPRESSION}
        return cls(
            FrameOptions(**{name: value for name, value in options.items() if name in _FRAMES}),
            override_compression(replace(compression, duplicates=NEAR_DUPLICATES), changes),
            **{name: value for name, value in options.items() if name in _STRETCH},
        )


class _Planning:
    """What a `Viewer` needs of an engine that encodes elsewhere, see `marc.inference.backend.Backend`."""

    device = torch.device("cpu")

    def __init__(self, processor: CompressedProcessor, config: Any, compression: CompressionConfig) -> None:
        self.processor, self.config, self.compression = processor, config, compression

    def encode(self, inputs: Sequence[VideoInput], clock: Any = None) -> None:
        """Leaves the pixels to the engine."""


@dataclass(frozen=True)
class VideoReader:
    """Reads videos for a model.

    Attributes:
        processor: The model's.
        config: Its configuration.
        compression: Its compression, where a request says nothing else.
    """

    processor: CompressedProcessor
    config: Any
    compression: CompressionConfig

    def read_file(self, data: bytes | memoryview, options: Mapping[str, Any]) -> VideoInput:
        """Reads a video file.

        Args:
            data: The file.
            options: See `VideoRequest.of`.

        Raises:
            ValueError: If an option is wrong, or the file is no video that can be read.
        """
        request = VideoRequest.of(options, self.compression)
        with NamedTemporaryFile(prefix="video-") as file:
            file.write(data)
            file.flush()
            return self._view(Clip(file.name, request.start, request.end), request)

    def read_frames(self, rgb_THWC: NDArray[np.uint8], metadata: Mapping[str, Any]) -> VideoInput:
        """Takes frames as a video.

        Args:
            rgb_THWC: ``uint8 [T, H, W, 3]``.
            metadata: When they were: ``seconds`` of each, or vLLM's ``frames_indices`` and ``fps``; beside it
                ``options``, see `VideoRequest.of`.

        Raises:
            ValueError: If an option or a time is wrong.
        """
        indices = metadata.get("frames_indices") or range(len(rgb_THWC))
        seconds = metadata.get("seconds") or np.asarray(indices) / (metadata.get("fps") or FrameOptions().fps)
        request = VideoRequest.of(metadata.get("options") or {}, self.compression)
        return self._view(Frames(rgb_THWC, np.asarray(seconds, float), "frames"), request)

    def _view(self, footage: Clip | Frames, request: VideoRequest) -> VideoInput:
        engine: Any = _Planning(self.processor, self.config, request.compression)
        return Viewer(engine, None, request.frames, SubtitleOptions("none")).view(footage, "").video
