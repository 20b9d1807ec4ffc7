"""What ``qwen_vl_utils.process_vision_info`` returns, in the form in which transformers' processors take videos.

Both forms of the well-known recipe are understood: with metadata each video comes as a pair; without it the options
hold one frame rate per video (as in Video-R1's code), which transformers 5 refuses.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers.video_utils import VideoMetadata


def separate_metadata(videos: Any, options: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The videos of a processor's call alone, and its options with their metadata.

    Args:
        videos: As passed to the processor: pairs of frames and metadata, or frames.
        options: The call's further options, ``fps`` with one rate per video among them.

    Returns:
        What was given, where it was of neither form.

    Raises:
        ValueError: If there is not one frame rate for each video.
    """
    if _are_pairs(videos):
        frames, metadata = map(list, zip(*videos, strict=True))
        return frames, {**options, "video_metadata": metadata}
    rates = options.get("fps")
    if not isinstance(rates, list | tuple):
        return videos, dict(options)
    rest = {name: value for name, value in options.items() if name != "fps"}
    if len(rates) != len(videos or ()):
        raise ValueError(f"fps has {len(rates)} entries for {len(videos or ())} videos; give one per video")
    if not rates:
        return videos, rest
    metadata = [
        VideoMetadata(total_num_frames=len(video), fps=float(rate), frames_indices=list(range(len(video))))
        for video, rate in zip(videos, rates, strict=True)
    ]
    return videos, {**rest, "video_metadata": metadata}


def _are_pairs(videos: Any) -> bool:
    """Whether every video is a pair of its frames and its metadata."""
    return (
        isinstance(videos, list | tuple)
        and bool(videos)
        and all(
            isinstance(video, tuple) and len(video) == 2 and isinstance(video[1], Mapping | VideoMetadata)
            for video in videos
        )
    )
