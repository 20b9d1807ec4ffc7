"""What can be asked about, and what a model saw of it for a question."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from marc.inference.selectors import Selection
from marc.inference.video_input import VideoInput
from marc.memory.live.snapshot import LiveSnapshot, Watched
from marc.types import Clip, Event, Frames, Retrieval, ShownVideo, VideoInfo
from marc.video.subtitles import Subtitles, event_texts

Footage: TypeAlias = str | Path | Clip | Frames | Watched
"""What a question can be about: the file of a video or picture, a stretch of a video, frames that are there, or a
source that is watched."""
Shown: TypeAlias = Clip | Frames | LiveSnapshot
"""The same, as it is when the question is asked."""


def footage(video: Footage | Sequence[Footage]) -> tuple[Shown, ...]:
    """One or several videos and pictures as clips and frames; a watched source as it is now.

    Raises:
        ValueError: If something else is among them, or nothing.
    """
    if isinstance(video, str | Path | Clip | Frames | Watched):
        video = (video,)
    if not isinstance(video, Sequence) or not video:
        raise ValueError(f"a question is about a video file or a list of some, got {video!r}"[:200])
    return tuple(shown_now(each) for each in video)


def shown_now(video: Footage) -> Shown:
    """A video or picture as a clip or frames, a watched source as it is now.

    Raises:
        ValueError: If it is something else.
    """
    if isinstance(video, Clip | Frames):
        return video
    if isinstance(video, Watched):
        return video.snapshot()
    if not isinstance(video, str | Path):
        raise ValueError(f"a question is about video files, Clips or Frames, got {type(video).__name__}")
    return Clip(video)


@dataclass(frozen=True)
class SeenVideo:
    """What the model saw of a video, picture or given frames for a question.

    Attributes:
        info: The file; of a picture, a video of one frame that lasts no time.
        selection: The frames that were read, and why; none of a picture.
        video: What became of them.
        prompt_tokens_before: What they would have cost in the prompt without compression.
        stretch: What was asked about; None: a picture.
        budget: Visual tokens that it might have had; None: no limit.
        given: The frames that the user gave, as large as the model read them.
        subtitles: Those that were used.
        said: What is said in what was shown, as it stands in the prompt; empty if that was not asked for.
        remarks: What the user should know about it.
    """

    info: VideoInfo
    selection: Selection
    video: VideoInput
    prompt_tokens_before: int
    stretch: Event | None = None
    budget: int | None = None
    given: Frames | None = None
    subtitles: Subtitles = field(default_factory=Subtitles)
    said: str = ""
    remarks: tuple[str, ...] = ()

    @property
    def retrieval(self) -> Retrieval | None:
        """What the memory found, if it was asked."""
        return self.selection.retrieval

    def report(self, subtitle_tokens: int = 0) -> ShownVideo:
        """What is told of it; ``subtitle_tokens`` of the prompt are what is said in it."""
        retrieval, video = self.retrieval, self.video
        kept = retrieval.kept if retrieval else ()
        texts = event_texts(self.subtitles, retrieval.events) if retrieval and self.subtitles.lines else []
        grids = video.patches.grid_thw[0] if video.kind == "video" else 0
        return ShownVideo(
            source=self.info.source,
            kind=video.kind,
            start=self.stretch.start if self.stretch else 0.0,
            end=self.stretch.end if self.stretch else 0.0,
            frame_seconds=video.patches.frame_seconds,
            grid_events=tuple(video.patches.events or ()),
            grid_groups=video.grid_groups[:grids],
            events=self.selection.kept_events,
            scores=tuple(retrieval.scores[index] for index in kept) if retrieval else (),
            visual_tokens_before=video.patches.tokens,
            visual_tokens_after=video.tokens,
            visual_tokens_budget=self.budget,
            prompt_tokens_before=self.prompt_tokens_before,
            prompt_tokens_after=video.prompt_tokens,
            subtitles=self.subtitles.source,
            subtitle_tokens=subtitle_tokens,
            event_texts=tuple(texts[index] for index in kept) if texts else (),
            event_frames=tuple(
                int(((self.selection.seconds >= event.start) & (self.selection.seconds < event.end)).sum())
                for event in self.selection.kept_events
            ),
            memory=self.selection.memory,
            scope=self.selection.scope,
        )
