"""Which frames to read and how large: Qwen2.5-VL's rules, as Video-R1 trains and evaluates with them.

Frames come in pairs (`FRAMES_PER_GRID`) because the vision tower reads two frames as one temporal grid, and both
sides of a picture are multiples of 28 pixels because one language-model token covers 2x2 patches of 14x14 pixels.
Pure functions.

Deviation: the rules count frames, ours place *times* at equal distances, which is the same at a constant frame rate
and stays even in time when the rate varies. A file that stores a picture only when it changes is sampled as if it
stored it again and again; times that show a picture twice give way to pictures that none shows, while there are any.

Shapes: T frames.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from marc.types import FRAMES_PER_GRID, VideoInfo
from marc.video.errors import VideoError

PATCH_FACTOR = 28
MIN_PIXELS = 4 * PATCH_FACTOR**2
MAX_PIXELS = 256 * PATCH_FACTOR**2
MAX_ASPECT_RATIO = 200
SAME_TIME = 1e-6


def sample_times(
    info: VideoInfo,
    *,
    fps: float = 2.0,
    max_frames: int = 64,
    min_frames: int = 4,
    start: float = 0.0,
    end: float | None = None,
) -> NDArray[np.float64]:
    """Times at which to read a video, evenly spread from its first to its last frame.

    The number of frames is ``duration * fps``, at least `min_frames` and at most `max_frames`, never more than the
    video has, and even (Qwen2.5-VL's ``smart_nframes``). A stretch of a single frame gives that frame twice.

    Where the file says when its few pictures change (``info.starts``), the number does not depend on how many it
    holds, as in a file of the same look at a constant rate; and as many different ones are shown as fit: even times
    that would show a picture again are moved to the starts of pictures that none would show, the nearest first.

    Args:
        info: The video, from `probe`.
        fps: Frames per second to aim at.
        max_frames: Upper limit; an odd one is lowered by one.
        min_frames: Lower limit; an odd one is raised by one.
        start: Start of the stretch to sample, in seconds.
        end: Its end, exclusive, in seconds; None for the end of the video.

    Returns:
        Non-decreasing seconds, ``float64 [T]`` with even T.

    Raises:
        VideoError: A limit is out of range, or the stretch holds no frame.
    """
    check_limits(info.source, fps=fps, max_frames=max_frames, min_frames=min_frames)
    lowest = math.ceil(min_frames / FRAMES_PER_GRID) * FRAMES_PER_GRID
    stop = _checked_stop(info, start, end)
    if info.starts:
        return distinct_times(
            np.array(info.starts), start, stop, _even(min(max((stop - start) * fps, lowest), max_frames))
        )
    rate = info.frame_count / info.duration
    first, last = _frame_range(info, start, stop)
    available = last - first + 1
    count = _even(min(max(available / rate * fps, lowest), max_frames, available))
    return np.linspace(first, last, count).round() / rate


def _even(count: float) -> int:
    """The largest number of whole temporal grids in so many frames, one at least, in frames."""
    return max(math.floor(count / FRAMES_PER_GRID) * FRAMES_PER_GRID, FRAMES_PER_GRID)


def distinct_times(starts_N: NDArray[np.float64], start: float, stop: float, count: int) -> NDArray[np.float64]:
    """Even times in ``[start, stop)``, of which those that show a picture again are moved to pictures not shown.

    Args:
        starts_N: When pictures begin, ascending; the first at the start of the video.
        start: In seconds.
        stop: In seconds, exclusive.
        count: How many times.
    """
    first, end = _pictures_between(starts_N, start, stop)
    last = max(starts_N[end - 1], stop - np.diff(starts_N).min(), start)
    times_T = np.linspace(start, last, count)
    shown = set(_shown(starts_N, times_T).tolist())
    missing = [picture for picture in range(first, end) if picture not in shown]
    filled = min(count - len(shown), len(missing))
    for index in np.linspace(0, len(missing) - 1, filled).round().astype(int):
        picture = missing[index]
        shown_T = _shown(starts_N, times_T)
        is_spare_T = np.bincount(shown_T)[shown_T] > 1
        moved = np.where(is_spare_T, np.abs(times_T - starts_N[picture]), np.inf).argmin()
        times_T[moved] = starts_N[picture]
        times_T.sort()
    return times_T


def pictures_in(starts: Sequence[float], start: float, stop: float) -> int:
    """How many pictures are shown in ``[start, stop)``; for the arguments see `distinct_times`."""
    first, end = _pictures_between(np.array(starts), start, stop)
    return int(end - first)


def _pictures_between(starts_N: NDArray[np.float64], start: float, stop: float) -> tuple[int, int]:
    """The first picture shown in ``[start, stop)``, and the first behind it."""
    first, end = starts_N.searchsorted([start + SAME_TIME, stop - SAME_TIME], side="right") - [1, 0]
    return max(int(first), 0), int(end)


def _shown(starts_N: NDArray[np.float64], times_T: NDArray[np.float64]) -> NDArray[np.int64]:
    return np.maximum(starts_N.searchsorted(times_T + SAME_TIME, side="right") - 1, 0)


def _checked_stop(info: VideoInfo, start: float, end: float | None) -> float:
    stop = info.duration if end is None else min(end, info.duration)
    if not 0 <= start < stop:
        raise VideoError(
            f"{info.source}: the stretch from {start:g} s to {stop:g} s holds no frame of this {info.duration:g} s "
            "video; choose 0 <= start < end within it"
        )
    return stop


def _frame_range(info: VideoInfo, start: float, stop: float) -> tuple[int, int]:
    """Indices of the first and the last frame that are shown in ``[start, stop)``."""
    rate = info.frame_count / info.duration
    first = min(math.floor(start * rate + 1e-6), info.frame_count - 1)
    last = max(math.ceil(stop * rate - 1e-6) - 1, first)
    return first, min(last, info.frame_count - 1)


def check_limits(source: str, *, fps: float, max_frames: int, min_frames: int) -> None:
    """Refuse frame limits that no video can meet."""
    if not (math.isfinite(fps) and fps > 0):
        raise VideoError(f"{source}: fps must be a positive number of frames per second, got {fps}")
    if min_frames < 1 or max_frames < FRAMES_PER_GRID:
        raise VideoError(
            f"{source}: min_frames must be at least 1 and max_frames at least {FRAMES_PER_GRID} (frames are read in "
            f"pairs), got min_frames={min_frames}, max_frames={max_frames}"
        )
    if min_frames > max_frames:
        raise VideoError(
            f"{source}: min_frames={min_frames} is above max_frames={max_frames}; lower one, raise the other"
        )


def check_aspect(width: int, height: int, source: str) -> None:
    """Refuses a picture one side of which is more than `MAX_ASPECT_RATIO` times the other.

    Raises:
        VideoError: Naming it.
    """
    if max(width, height) > MAX_ASPECT_RATIO * min(width, height):
        raise VideoError(
            f"{source}: a picture of {width}x{height} is too narrow (at most {MAX_ASPECT_RATIO}:1); crop it"
        )


def frame_size(
    width: int,
    height: int,
    *,
    min_pixels: int = MIN_PIXELS,
    max_pixels: int = MAX_PIXELS,
    factor: int = PATCH_FACTOR,
    source: str = "video",
) -> tuple[int, int]:
    """Size at which to read a picture (Qwen2.5-VL's ``smart_resize``).

    Both sides become multiples of `factor`, the area comes into ``[min_pixels, max_pixels]``, and the aspect ratio
    stays as close as that allows. A side never falls below `factor`.

    Args:
        width: Width of the picture in pixels.
        height: Height of the picture in pixels.
        min_pixels: Smallest area; smaller pictures are enlarged.
        max_pixels: Largest area; larger pictures are reduced.
        factor: Both sides are multiples of this many pixels.
        source: Name of the video, for error messages.

    Returns:
        ``(width, height)`` in pixels.

    Raises:
        VideoError: A limit is out of range, or one side is more than 200 times the other.
    """
    if factor < 1 or not factor**2 <= max_pixels or not 0 < min_pixels <= max_pixels:
        raise VideoError(
            f"{source}: pixel limits need 0 < min_pixels <= max_pixels and at least one {factor}x{factor} patch in "
            f"max_pixels, got min_pixels={min_pixels}, max_pixels={max_pixels}, factor={factor}"
        )
    check_aspect(width, height, source)
    area = width * height
    across, down = (max(factor, round(side / factor) * factor) for side in (width, height))
    if across * down > max_pixels:
        shrink = math.sqrt(area / max_pixels)
        across, down = (max(factor, math.floor(side / shrink / factor) * factor) for side in (width, height))
    elif across * down < min_pixels:
        stretch = math.sqrt(min_pixels / area)
        across, down = (math.ceil(side * stretch / factor) * factor for side in (width, height))
    return across, down
