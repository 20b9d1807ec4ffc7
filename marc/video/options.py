"""Which frames of a video are read, how large, and whether its subtitles are: options that commands, recipes and the
assistant share.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from marc.options import Limits, Named, OptionError, check
from marc.types import FRAMES_PER_GRID


@dataclass(frozen=True)
class FrameOptions:
    """Which frames of a video are read, and how large.

    Attributes:
        fps: Frames per second to read.
        max_frames: Most frames to read; they are read in pairs.
        min_frames: Fewest frames to read, if ``max_frames`` allows; the memory reads at least two per event instead.
        min_pixels: Smallest area of a frame in pixels; ``None``: 4 tokens. Video-R1 enlarges to 128 * 28 * 28.
        max_pixels: Largest area of a frame in pixels; ``None``: what the model's processor allows, at most 256 tokens.
        backend: The decoder, see `marc.video.backends`.
        timeout: Seconds after which reading one video is given up.

    Raises:
        ValueError: If a limit is out of range or there is no such decoder.
    """

    fps: Annotated[float, Limits(above=0)] = 2.0
    max_frames: Annotated[int, Limits(least=FRAMES_PER_GRID)] = 64
    min_frames: Annotated[int, Limits(least=1)] = 4
    min_pixels: Annotated[int | None, Limits(least=1)] = None
    max_pixels: Annotated[int | None, Limits(least=1)] = None
    backend: Annotated[Literal["pyav", "decord", "torchcodec"], Named("decoder")] = "pyav"
    timeout: Annotated[float, Named("video_timeout"), Limits(above=0)] = 60.0

    def __post_init__(self) -> None:
        check(self)

    @property
    def fewest(self) -> int:
        """`min_frames`, but no more than `max_frames`."""
        return min(self.min_frames, self.max_frames)


@dataclass(frozen=True)
class SubtitleOptions:
    """What subtitles are used for. They are taken from a file beside the video, or else from a text track in it.

    Attributes:
        choice: auto; none; or the path of an .srt, .vtt or .ass file. With the memory, events are found by them, too.
        in_prompt: Write what is said in the shown events into the prompt; its tokens are counted apart.

    Raises:
        ValueError: If there are none to be written into the prompt.
    """

    choice: Annotated[str, Named("subtitles")] = "auto"
    in_prompt: Annotated[bool, Named("subtitles_in_prompt")] = False

    def __post_init__(self) -> None:
        check(self)
        if self.in_prompt and self.choice == "none":
            raise OptionError("in_prompt", "has nothing to write into the prompt without subtitles")


@dataclass(frozen=True)
class DecodeLimits:
    """How much a single file may ask of the machine; beyond that it is refused. Time is limited by `video_timeout`.

    Attributes:
        picture_pixels: Most pixels of a still picture as it is stored.
        video_pixels: Most pixels of a picture of a video as it is stored; the default is twice what 8K has.
        frames: Most pictures of a video that one reading decodes.
        hours: Longest video, by what the file says and by what is found in it.
        decoded_gib: Most bytes that one reading decodes, in GiB.
        memory_gib: Most memory of a decoding process, in GiB, where the system can limit it (Linux).

    Raises:
        ValueError: If a limit is out of range.
    """

    picture_pixels: Annotated[int, Named("limit_picture_pixels"), Limits(least=1)] = 2**27
    video_pixels: Annotated[int, Named("limit_video_pixels"), Limits(least=1)] = 2**26
    frames: Annotated[int, Named("limit_frames"), Limits(least=1)] = 2**24
    hours: Annotated[float, Named("limit_hours"), Limits(above=0)] = 100.0
    decoded_gib: Annotated[float, Named("limit_decoded"), Limits(above=0)] = 2.0**15
    memory_gib: Annotated[float, Named("limit_memory"), Limits(least=0.5)] = 4.0

    def __post_init__(self) -> None:
        check(self)
