"""Decoding still pictures with Pillow, in this process: what is read here is what a viewer shows, on white.

A small file can be a picture of any size; `marc.video.pictures` therefore runs this module in a process that has
limits and can be killed. Formats are those that are meant to be read; contents decide, not names.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from marc.video.errors import VideoError
from marc.video.limits import beyond, current_limits, out_of_memory
from marc.video.sampling import check_aspect

FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")


def is_still(path: str) -> bool:
    """Whether a file holds a still picture, whatever its name; what moves is a video."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about damaged tags, and about sizes: the limits are ours
            with Image.open(path, formats=FORMATS) as image:
                return image.format == "TIFF" or not getattr(image, "is_animated", False)
    except Image.DecompressionBombError:
        return True
    except Exception:  # whatever Pillow makes of a file that is none of its own
        return False


def shown_size(path: str) -> tuple[int, int]:
    """Width and height as shown, without decoding.

    Raises:
        VideoError: If it is no picture that can be read; the message names it.
    """
    with _opened(path) as image:
        width, height = image.size
        return (height, width) if image.getexif().get(_ORIENTATION, 1) >= 5 else (width, height)


def decode(path: str, size: tuple[int, int] | None = None) -> Any:
    """A picture as a viewer shows it: turned as its metadata says, on white where it is transparent, 8 bits a colour.

    Args:
        path: A picture.
        size: Width and height to which it is resized; None leaves it as large as it is.

    Returns:
        A ``PIL.Image`` of mode RGB.

    Raises:
        VideoError: If it is no picture that can be read; the message names it.
    """
    from PIL import Image, ImageOps

    with _opened(path) as image:
        image.load()
        shown = ImageOps.exif_transpose(image)
    if shown.mode.startswith("I") or shown.mode == "F":
        shown = Image.fromarray(_eight_bits(np.asarray(shown)))
    if shown.has_transparency_data:
        layer = shown.convert("RGBA")
        shown = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    shown = shown.convert("RGB")
    return shown if size is None else shown.resize(size, Image.Resampling.BICUBIC)


_ORIENTATION = 0x0112
"""EXIF's number for how a picture is turned; from 5 on it lies on its side."""


def _eight_bits(values_HW: Any) -> Any:
    """Grey values as 8 bits: of integers of 16 bits the upper ones, of floats those from 0 to 1 or to the largest."""
    if values_HW.dtype.kind == "f":
        most = max(1.0, float(np.nanmax(values_HW)) if values_HW.size else 1.0)
        return (np.nan_to_num(values_HW / most).clip(0, 1) * 255).round().astype(np.uint8)
    return (values_HW.astype(np.int64).clip(0, 65535) >> 8).astype(np.uint8)


@contextmanager
def _opened(path: str) -> Iterator[Any]:
    """An open picture; whatever goes wrong with it is a `VideoError`."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about damaged tags, and about sizes: the limits are ours
            with Image.open(path, formats=FORMATS) as image:
                width, height = image.size
                if width * height > current_limits().picture_pixels:
                    raise beyond(path, f"{width}x{height}, {width * height} pixels", "picture_pixels")
                check_aspect(width, height, path)
                yield image
    except VideoError:
        raise
    except MemoryError as error:
        raise out_of_memory(path) from error
    except Image.DecompressionBombError as error:  # what Pillow refuses before it says how large it is
        raise beyond(path, " ".join(re.findall(r"\d+ pixels", str(error))[:1]), "picture_pixels") from error
    except Exception as error:  # whatever Pillow makes of a damaged file
        raise VideoError(f"{path}: cannot be read as a picture ({type(error).__name__}: {error})") from error
