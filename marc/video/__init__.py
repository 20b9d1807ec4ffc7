"""Video in and out: the only decoder of the project.

- `probe` tells size, length and frame rate of a file.
- `sample_times` chooses evenly spread times as Qwen2.5-VL and Video-R1 do; `frame_size` the size of the frames.
- `read_frames` gives the frames shown at such times, resized while decoding: memory follows the frames asked for.
- `stream_frames` gives every frame of a file in order, in batches, in constant memory.
- `read_to` reads a file once and pushes to each of several consumers the frames that it asks for.
- `skim_to` does so without decoding what surely shows the same place all the time.
- `read_subtitles` gives the lines of a file beside the video or of a track in it; `event_texts` shares them out.
- `write_video` writes H.264.

Whatever FFmpeg reads can be read. What cannot be read raises a `VideoError` that names file, cause and remedy. Every
decode has a time limit. Times are seconds since the first picture of the video. docs/decoding.md compares the backends
and says what is done with damaged files.

Names are loaded on first use, so that the options (`marc.video.options`) can be had without PyAV.

Shapes: T frames, H height, W width, C = 3 colours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from marc.lazy import handed_on

if TYPE_CHECKING:
    from marc.types import Frames, VideoInfo
    from marc.video.errors import VideoError
    from marc.video.options import FrameOptions
    from marc.video.reading import (
        FrameConsumer,
        backends,
        key_frame_seconds,
        probe,
        read_frames,
        read_to,
        skim_to,
        stream_frames,
        warm_up,
    )
    from marc.video.requests import EveryFrame, FrameRequest, LeftOut, SampledFrames
    from marc.video.sampling import frame_size, sample_times
    from marc.video.subtitles import SubtitleLine, Subtitles, event_texts, read_subtitles, text_of
    from marc.video.writing import write_video

__all__ = [
    "EveryFrame",
    "FrameConsumer",
    "FrameOptions",
    "FrameRequest",
    "Frames",
    "LeftOut",
    "SampledFrames",
    "SubtitleLine",
    "Subtitles",
    "VideoError",
    "VideoInfo",
    "backends",
    "event_texts",
    "frame_size",
    "key_frame_seconds",
    "probe",
    "read_frames",
    "read_subtitles",
    "read_to",
    "sample_times",
    "skim_to",
    "stream_frames",
    "text_of",
    "warm_up",
    "write_video",
]

_HOMES = {
    "EveryFrame": "marc.video.requests",
    "FrameConsumer": "marc.video.reading",
    "FrameOptions": "marc.video.options",
    "FrameRequest": "marc.video.requests",
    "Frames": "marc.types",
    "LeftOut": "marc.video.requests",
    "SampledFrames": "marc.video.requests",
    "SubtitleLine": "marc.video.subtitles",
    "Subtitles": "marc.video.subtitles",
    "VideoError": "marc.video.errors",
    "VideoInfo": "marc.types",
    "backends": "marc.video.reading",
    "event_texts": "marc.video.subtitles",
    "frame_size": "marc.video.sampling",
    "key_frame_seconds": "marc.video.reading",
    "probe": "marc.video.reading",
    "read_frames": "marc.video.reading",
    "read_subtitles": "marc.video.subtitles",
    "read_to": "marc.video.reading",
    "sample_times": "marc.video.sampling",
    "skim_to": "marc.video.reading",
    "stream_frames": "marc.video.reading",
    "text_of": "marc.video.subtitles",
    "warm_up": "marc.video.reading",
    "write_video": "marc.video.writing",
}

__getattr__ = handed_on(__name__, _HOMES)
