"""A sheet of pictures: what recalled events look like, each with its place, its score, its times and its file.

Pictures are read anew from the videos, from the middle of each event: a library holds none.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from math import ceil, sqrt
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from marc.io import write_bytes
from marc.memory.addresses import is_address
from marc.memory.library import RecalledEvent
from marc.memory.objects import kept
from marc.terminal import in_one_line
from marc.video import VideoError, read_frames

WIDTH, HEIGHT = 320, 180
"""Of a picture, which is made to fit."""
FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}
_CAPTION, _GAP, _TEXT = 40, 8, 14
_MOST_COLUMNS = 5
_TIMEOUT = 60.0
_GROUND, _EMPTY, _INK = "white", "lightgrey", "black"


def check_sheet(file: str | Path) -> None:
    """Refuses a file that is of no format of pictures that can be written.

    Raises:
        ValueError: Saying which there are.
    """
    if Path(file).suffix.lower() not in FORMATS:
        raise ValueError(f"{file}: a sheet of pictures is a file that ends in {', '.join(FORMATS)}")


def write_sheet(file: str | Path, events: Sequence[RecalledEvent], first: int = 1) -> None:
    """Draws recalled events, best first, in rows.

    Args:
        file: PNG or JPEG; an older one is replaced.
        events: At least one.
        first: The place of the first of them.

    Raises:
        ValueError: The file is of another format.
        OSError: It cannot be written.
    """
    check_sheet(file)
    columns = min(_MOST_COLUMNS, ceil(sqrt(len(events))))
    rows = ceil(len(events) / columns)
    across, down = WIDTH + _GAP, HEIGHT + _CAPTION + _GAP
    sheet = Image.new("RGB", (columns * across + _GAP, rows * down + _GAP), _GROUND)
    for index, event in enumerate(events):
        row, column = divmod(index, columns)
        _draw(sheet, (_GAP + column * across, _GAP + row * down), event, first + index)
    content = io.BytesIO()
    sheet.save(content, FORMATS[Path(file).suffix.lower()])
    write_bytes(file, content.getvalue())


def _draw(sheet: Image.Image, corner: tuple[int, int], found: RecalledEvent, place: int) -> None:
    """One event with its two lines of text."""
    left, top = corner
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(_TEXT)
    picture = _picture(found)
    draw.rectangle((left, top, left + WIDTH - 1, top + HEIGHT - 1), fill=_EMPTY)
    if isinstance(picture, str):
        draw.text((left + _GAP, top + HEIGHT // 2), _cut(picture, draw, font), _INK, font)
    else:
        sheet.paste(picture, (left + (WIDTH - picture.width) // 2, top + (HEIGHT - picture.height) // 2))
    times = f"{_clock(found.event.start)}-{_clock(found.event.end)}"
    lines = (f"{place}.  {found.score:.3f}  {times}", Path(found.source).name)
    for number, line in enumerate(lines):
        draw.text((left, top + HEIGHT + 2 + number * (_TEXT + 4)), _cut(line, draw, font), _INK, font)


def _picture(found: RecalledEvent) -> Image.Image | str:
    """What is shown in the middle of an event, made to fit; or why that cannot be seen."""
    if is_address(found.source):
        try:
            (copy,) = kept([found.source])
            found = replace(found, source=str(copy))
        except VideoError:
            return "the object cannot be fetched"
    if problem := found.problem:
        return problem
    try:
        frames = read_frames(
            found.source,
            [found.event.middle],
            min_pixels=1,
            max_pixels=4 * WIDTH * HEIGHT,
            factor=2,
            timeout=_TIMEOUT,
        )
    except VideoError:
        return "the file cannot be read"
    picture = Image.fromarray(frames.rgb[0])
    scale = min(WIDTH / picture.width, HEIGHT / picture.height)
    return picture.resize((max(1, round(picture.width * scale)), max(1, round(picture.height * scale))))


def _cut(text: str, draw: ImageDraw.ImageDraw, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """As much of the end of a text as is not wider than a picture."""
    text = in_one_line(text)
    while draw.textlength(text, font) > WIDTH - _GAP and len(text) > 1:
        text = text[1:]
    return text


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds, 1), 60)
    hours, minutes = divmod(int(minutes), 60)
    return f"{hours:d}:{minutes:02d}:{rest:04.1f}"
