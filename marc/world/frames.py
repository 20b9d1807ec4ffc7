"""Micro-world videos as a source of frames for training: drawn in memory from their names, no file is read.

A name such as ``easy-train-0-000012`` (`marc.world.scenes.WorldVideo.name`) says all of a video. Its frames are those
that reading its H.264 file would give (`marc.world.export`), but for the codec's losses, at the same times.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

import numpy as np

from marc.data.rows import TrainingRow, parse_row
from marc.types import Frames, VideoInfo
from marc.video import frame_size, sample_times
from marc.video.sources import FrameShape, PixelLimits
from marc.world.arena.scenes import AnyVideo
from marc.world.export import FileOptions, cuts_in_seconds, to_row, video_questions
from marc.world.levels import frame_pixels, render, sample
from marc.world.scenes import Level, Split

_NAME = re.compile(r"(easy|hard|arena)-(train|validation|test)-(\d+)-(\d+)")


def video_of(name: str) -> AnyVideo:
    """The video of a name.

    Raises:
        ValueError: If it is not the name of a micro-world video.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        raise ValueError(f"{name}: not a micro-world video; names are like easy-train-0-000012")
    return sample(cast(Level, match[1]), cast(Split, match[2]), int(match[3]), int(match[4]))


def draw_frames(video: AnyVideo, options: FileOptions = FileOptions()) -> Frames:
    """Every frame of a video, at the time at which its file would begin to show it."""
    rgb = render(video).numpy()
    return Frames(rgb, np.arange(len(rgb), dtype=np.float64) * options.seconds_per_frame, video.name)


@dataclass(frozen=True)
class WorldFrames:
    """A `marc.video.sources.FrameSource` of micro-world videos, at one world pixel a pixel.

    Attributes:
        fps: Frames per second to read.
        max_frames: Most frames of a video.
        min_frames: Fewest frames of a video.
        options: How the video would be a file: its pace decides the times.
    """

    fps: float = 2.0
    max_frames: int = 64
    min_frames: int = 4
    options: FileOptions = field(default_factory=FileOptions)

    def shape(self, name: str, limits: PixelLimits) -> FrameShape:
        """See `FrameSource`; a frame has the world's own size, whatever the limits.

        Raises:
            ValueError: If the limits do not allow that size.
        """
        video, options = video_of(name), self.options
        height, width = frame_pixels(video.level)
        if frame_size(width, height, source=name, **vars(limits)) != (width, height):
            raise ValueError(f"{name}: frames of its level are {width} x {height} pixels, which {limits} forbid")
        count = video.frame_count * options.hold
        info = VideoInfo(name, width, height, count / options.fps, options.fps, count, "none")
        times = sample_times(info, fps=self.fps, max_frames=self.max_frames, min_frames=self.min_frames)
        return FrameShape(times, width, height)

    def read(self, name: str, limits: PixelLimits) -> Frames:
        """See `FrameSource`."""
        seconds = self.shape(name, limits).seconds
        shown = (seconds * self.options.fps).round().astype(int) // self.options.hold
        return Frames(render(video_of(name)).numpy()[shown], seconds, name)


def world_rows(
    *,
    level: Level = "easy",
    split: Split = "train",
    seed: int = 0,
    videos: int,
    questions: int,
    first: int = 0,
    kinds: Sequence[str] | None = None,
) -> list[TrainingRow]:
    """Questions about micro-world videos, whose paths are names for `WorldFrames`; with the true cuts.

    Args:
        level: Of the videos.
        split: ``"train"``, ``"validation"`` or ``"test"``.
        seed: Another seed is another set.
        videos: Number of videos.
        questions: Questions about each.
        first: Number of the first video.
        kinds: Keep only questions of these kinds.
    """
    rows = []
    for index in range(first, first + videos):
        video = sample(level, split, seed, index)
        for number, question in enumerate(video_questions(video, split, seed, index, questions)):
            if kinds is None or question.kind in kinds:
                row = to_row(question, video, video.name, index * questions + number)
                rows.append(parse_row({**row, "cuts": cuts_in_seconds(video)}))
    return rows
