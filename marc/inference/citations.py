"""A picture of each event that an answer rests on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from marc.types import Answer
from marc.video import read_frames

PIXELS = 640 * 360


def save_citations(folder: str | Path, answer: Answer) -> list[Path]:
    """Writes the picture from the middle of each retrieved event as a JPEG file, numbered in the order of the answer.

    Args:
        folder: Where to; it is made if there is none.
        answer: With the memory.

    Returns:
        The files, one for each of ``answer.events``.

    Raises:
        ValueError: If a video can no longer be read.
        OSError: If the folder cannot be written.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    files: list[Path] = []
    for shown in answer.videos:
        middles = [event.middle for event in shown.events]
        for picture, second in zip(_pictures(shown.source, middles), middles, strict=True):
            file = folder / f"{len(files) + 1:02d}_{Path(shown.source).stem[:80]}_{second:.1f}s.jpg"
            Image.fromarray(picture).save(file, quality=90)
            files.append(file)
    return files


def _pictures(source: str, seconds: Sequence[float]) -> Sequence[np.ndarray]:
    return list(read_frames(source, seconds, max_pixels=PIXELS, min_pixels=1, factor=2).rgb) if seconds else []
