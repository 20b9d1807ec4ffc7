"""A folder of pictures as a video, as TVQA and many public sets come."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np

from marc.types import Frames
from marc.video.errors import VideoError
from marc.video.pictures import picture_size, read_picture
from marc.video.reading import TIMEOUT
from marc.video.sampling import MAX_PIXELS, MIN_PIXELS, PATCH_FACTOR, frame_size

FRAMES_PER_SECOND = 3.0
"""Of folders whose path does not say it: TVQA's."""
ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
_RATE = re.compile(r"fps[_-]?(\d+(?:\.\d+)?)|(\d+(?:\.\d+)?)[_-]?fps", re.IGNORECASE)


def find_frame_folder(path: str | Path) -> Path:
    """Where the frames of a video are: the path, or without its ending, as annotations write ``.mp4`` behind folders.

    Raises:
        VideoError: Neither is a folder.
    """
    named = Path(path)
    for folder in (named, named.with_suffix("") if named.name else named):
        if os.path.isdir(folder):
            return folder
    raise VideoError(f"{path}: there is no such folder of frames, also not without its ending")


def frame_files(folder: str | Path) -> list[Path]:
    """The pictures of a folder in the order of the numbers in their names.

    Raises:
        VideoError: There is none.
    """
    files = [path for path in Path(folder).iterdir() if path.suffix.lower() in ENDINGS and path.name[0] != "."]
    if not files:
        raise VideoError(f"{folder}: no picture in this folder ({', '.join(ENDINGS)})")
    return sorted(files, key=_natural)


def frame_rate(folder: str | Path) -> float:
    """Frames a second, as the path says it (``frames_fps3_hq``, ``2fps``), else `FRAMES_PER_SECOND`."""
    for part in reversed(Path(folder).parts):
        if (said := _RATE.search(part)) and float(said[1] or said[2]):
            return float(said[1] or said[2])
    return FRAMES_PER_SECOND


def read_frame_folder(
    path: str | Path,
    *,
    max_frames: int,
    min_pixels: int = MIN_PIXELS,
    max_pixels: int = MAX_PIXELS,
    factor: int = PATCH_FACTOR,
    timeout: float = TIMEOUT,
) -> Frames:
    """Reads pictures of a folder as the frames of a video, evenly chosen if there are more than wanted.

    Args:
        path: See `find_frame_folder`.
        max_frames: Most frames.
        min_pixels: See `marc.video.frame_size`.
        max_pixels: Likewise.
        factor: Likewise.
        timeout: Seconds after which to give up waiting for one picture.

    Returns:
        Frames of the size that the first picture gets; their times follow from `frame_rate`.

    Raises:
        VideoError: There is no such folder, no picture in it, or one that cannot be read.
    """
    folder = find_frame_folder(path)
    files = frame_files(folder)
    count = min(max_frames, len(files))
    chosen = [(2 * index + 1) * len(files) // (2 * count) for index in range(count)]
    width, height = picture_size(files[0], timeout=timeout)
    size = frame_size(width, height, min_pixels=min_pixels, max_pixels=max_pixels, factor=factor, source=str(folder))
    rgb = np.stack([np.asarray(read_picture(files[index], size, timeout=timeout)) for index in chosen])
    return Frames(rgb, np.array(chosen) / frame_rate(folder), str(folder))


def _natural(path: Path) -> tuple[list[tuple[int, str]], str]:
    """By which names with numbers are in the order of the numbers."""
    pieces = re.split(r"(\d+)", path.name)
    return [(int(piece), "") if piece.isdigit() and piece.isascii() else (-1, piece) for piece in pieces], path.name
