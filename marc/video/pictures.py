"""Reading pictures, the one way for everything: what is read here is what a viewer shows, on white.

They are decoded where videos are, in a process that has limits (`marc.video.options.DecodeLimits`) and can be killed.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from marc.video.errors import VideoError
from marc.video.jobs import LookAtPicture, MeasurePicture, ReadPicture
from marc.video.known import ask
from marc.video.process import POOL
from marc.video.reading import TIMEOUT, check_file


def is_picture(path: str | Path, *, timeout: float = TIMEOUT) -> bool:
    """Whether a file holds a still picture, whatever its name; what moves is a video.

    Args:
        path: Any path.
        timeout: Seconds after which to give up: then it is none.
    """
    try:
        check_file(path, timeout)
        return bool(ask(LookAtPicture(os.path.abspath(path)), timeout))
    except VideoError:
        return False


def picture_size(path: str | Path, *, timeout: float = TIMEOUT) -> tuple[int, int]:
    """Width and height as shown, without decoding.

    Args:
        path: A picture.
        timeout: Seconds after which to give up.

    Raises:
        VideoError: If it is no picture that can be read, or one beyond the limits; the message names it.
    """
    check_file(path, timeout)
    width, height = ask(MeasurePicture(os.path.abspath(path)), timeout)
    return width, height


def read_picture(path: str | Path, size: tuple[int, int] | None = None, *, timeout: float = TIMEOUT) -> Any:
    """A picture as a viewer shows it: turned as its metadata says, on white where it is transparent, 8 bits a colour.

    Args:
        path: A picture.
        size: Width and height to which it is resized (bicubic) where it is decoded, so that the memory needed here is
            that of the result; None leaves it as large as it is.
        timeout: Seconds after which to give up.

    Returns:
        A ``PIL.Image`` of mode RGB.

    Raises:
        VideoError: If it is no picture that can be read, or one beyond the limits; the message names it.
    """
    from PIL import Image

    check_file(path, timeout)
    ((_, rgb_1HWC),) = POOL.run(ReadPicture(os.path.abspath(path), size), timeout)
    assert rgb_1HWC is not None
    return Image.fromarray(rgb_1HWC[0])
