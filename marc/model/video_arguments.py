"""Videos and their frame rates as users hand them over, in the form in which transformers' processors take them.

Both forms of what ``qwen_vl_utils.process_vision_info`` returns are understood: with metadata each video comes as a
pair; without it the options hold one frame rate per video (as in Video-R1's code), which transformers 5 refuses. One
rate for frames that were sampled beforehand acts, which transformers 5 ignores.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from typing import Any

import numpy as np
import torch
from transformers.video_utils import VideoMetadata, make_batched_metadata, make_batched_videos


def separate_metadata(videos: Any, options: Mapping[str, Any], *, samples: bool = True) -> tuple[Any, dict[str, Any]]:
    """The videos of a processor's call alone, and its options with their metadata.

    Args:
        videos: As passed to the processor: pairs of frames and metadata, or frames.
        options: The call's further options, among them perhaps ``fps``: one rate per video, or one for all videos of
            frames that are not to be sampled again (``do_sample_frames=False``).
        samples: Whether frames are sampled where the options do not say.

    Returns:
        What was given, where it was of no such form.

    Raises:
        ValueError: If there is not one frame rate for each video.
    """
    if _are_pairs(videos):
        frames, metadata = map(list, zip(*videos, strict=True))
        return frames, {**options, "video_metadata": metadata}
    rates = options.get("fps")
    if isinstance(rates, int | float) and _are_sampled(options, samples) and videos is not None:
        videos = make_batched_videos(videos)
        rates = [rates] * len(videos)
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


def with_whole_grids(videos: Any, metadata: Any) -> tuple[Any, Any]:
    """Videos of one frame as two equal ones, which some processors refuse otherwise; others as they are.

    Args:
        videos: Without metadata.
        metadata: Of the videos; ``None``: not known.
    """
    frames = make_batched_videos(videos)
    if all(isinstance(video, str) or len(video) != 1 for video in frames):
        return videos, metadata
    known = list(map(copy, make_batched_metadata(frames, metadata)))
    for index, video in enumerate(frames):
        if not isinstance(video, str) and len(video) == 1:
            twice = torch.cat if isinstance(video, torch.Tensor) else np.concatenate
            frames[index] = [*video, *video] if isinstance(video, list) else twice([video, video])
            known[index].frames_indices = 2 * list(known[index].frames_indices or [0])
            known[index].total_num_frames = max(2, known[index].total_num_frames)
    return frames, known


def _are_sampled(options: Mapping[str, Any], samples: bool) -> bool:
    """Whether videos are frames that are not to be sampled again, and nothing else says when they were."""
    return not options.get("do_sample_frames", samples) and options.get("video_metadata") is None


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
