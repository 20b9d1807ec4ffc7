"""Pixels of the level ``arena``: patterns of places, actors on a torus, marks of a cell, gradual cuts.

Shapes: T frames of a video, N of an event, H x W pixels, C = 3 colours.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from marc.world.arena.scenes import CELL, ArenaEvent, ArenaVideo, Mark, Transition
from marc.world.renderer import RGB
from marc.world.scenes import BACKGROUNDS

Floats = NDArray[np.float32]

TINT_RGB = {
    "maroon": (0.60, 0.13, 0.18),
    "olive": (0.48, 0.50, 0.10),
    "navy": (0.12, 0.16, 0.60),
    "teal": (0.08, 0.50, 0.50),
    "grey": (0.42, 0.42, 0.42),
    "plum": (0.50, 0.16, 0.52),
}
DARK, BRIGHT = 0.6, 1.2
"""Factors on a place's colours without and with light."""
GROUND = 0.55
"""Of a place's dark parts, as a part of its light ones."""
PLATE, INK = 0.85, 0.05
"""Brightness of signs, plates and the rims of buttons, and of what is written."""
MIXED = 2
"""Frames on each side of a gradual cut."""
GLYPHS = {
    "A": ".###. #...# #...# ##### #...# #...# #...#",
    "C": ".#### #.... #.... #.... #.... #.... .####",
    "E": "##### #.... #.... ####. #.... #.... #####",
    "F": "##### #.... #.... ####. #.... #.... #....",
    "H": "#...# #...# #...# ##### #...# #...# #...#",
    "K": "#...# #..#. #.#.. ##... #.#.. #..#. #...#",
    "L": "#.... #.... #.... #.... #.... #.... #####",
    "P": "####. #...# #...# ####. #.... #.... #....",
    "T": "##### ..#.. ..#.. ..#.. ..#.. ..#.. ..#..",
    "X": "#...# #...# .#.#. ..#.. .#.#. #...# #...#",
    "0": ".###. #...# #..## #.#.# ##..# #...# .###.",
    "1": "..#.. .##.. ..#.. ..#.. ..#.. ..#.. .###.",
    "2": ".###. #...# ....# ..##. .#... #.... #####",
    "3": "####. ....# ....# .###. ....# ....# ####.",
    "4": "#..#. #..#. #..#. ##### ...#. ...#. ...#.",
    "5": "##### #.... ####. ....# ....# #...# .###.",
    "6": ".##.. #.... #.... ####. #...# #...# .###.",
    "7": "##### ....# ...#. ..#.. ..#.. .#... .#...",
    "8": ".###. #...# #...# .###. #...# #...# .###.",
    "9": ".###. #...# #...# .#### ....# ...#. .##..",
}
"""Letters and digits, 5 x 7 pixels with strokes of one: at half the resolution nobody reads them."""


@lru_cache
def patterns(height: int, width: int) -> Floats:
    """How much of a background's light part each pixel has, 0 or 1: ``[len(BACKGROUNDS), H, W]``."""
    row, column = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    around = np.hypot(row % CELL - CELL / 2 + 0.5, column % CELL - CELL / 2 + 0.5)
    drawn = {
        "plain": np.zeros((height, width)),
        "striped": row // 2 % 2,
        "checkered": (row // 7 + column // 7) % 2,
        "dotted": (row % 7 < 3) & (column % 7 < 3),
        "diagonal": (row + column) // 2 % 2,
        "tiled": (row % 7 == 0) | (column % 7 == 0),
        "zigzag": (row + abs(column % 14 - 7)) // 2 % 2,
        "ringed": around // 2 % 2,
    }
    return np.stack([drawn[name] for name in BACKGROUNDS]).astype(np.float32)


@lru_cache
def masks() -> dict[str, NDArray[np.bool_]]:
    """What actors and stars cover of a cell around them: each ``bool [CELL, CELL]``."""
    row, column = np.meshgrid(np.arange(CELL) - CELL // 2, np.arange(CELL) - CELL // 2, indexing="ij")
    wide, high = abs(column), abs(row)
    return {
        "circle": row**2 + column**2 <= 34,
        "square": (high <= 5) & (wide <= 5),
        "triangle": (high <= 6) & (2 * wide <= row + 6),
        "cross": ((high <= 1) & (wide <= 6)) | ((wide <= 1) & (high <= 6)),
        "star": high * wide <= 4,
        "button": row**2 + column**2 <= 12,
    }


@lru_cache
def glyph(letter: str) -> NDArray[np.bool_]:
    """Of a letter or digit: ``bool [7, 5]``."""
    return np.array([[pixel == "#" for pixel in line] for line in GLYPHS[letter].split()])


def draw_mark(mark: Mark, behind_HWC: Floats) -> None:
    """Draw a mark over a cell, ``[CELL, CELL, 3]``."""
    if mark.kind == "star":
        behind_HWC[masks()["star"]] = RGB[mark.value]
        return
    behind_HWC[1:-1, 1:-1] = PLATE
    if mark.kind == "button":
        behind_HWC[masks()["button"]] = RGB[mark.value]
    for letter, column in zip(mark.value, (1, 8), strict=True) if mark.kind == "sign" else ():
        behind_HWC[3:10, column : column + 5][glyph(letter)] = INK


def render_event(event: ArenaEvent, size: tuple[int, int]) -> Floats:
    """All frames of an event, in [0, 1]: ``[N, H, W, 3]``.

    Args:
        event: What to draw.
        size: H and W.
    """
    height, width = size
    frames = _places(event, size)
    rows, columns = np.arange(CELL) - CELL // 2, np.arange(CELL) - CELL // 2
    for frame, image in enumerate(frames):
        for actor in event.actors:
            row, column = event.centre(actor, frame, size)
            places = np.ix_((row + rows) % height, (column + columns) % width)
            patch = image[places]
            patch[masks()[actor.shape]] = RGB[actor.colour]
            image[places] = patch
        for mark in event.marks:
            if frame // 2 in mark.shown:
                top, left = mark.row * CELL, mark.column * CELL
                draw_mark(mark, image[top : top + CELL, left : left + CELL])
    return frames


def _places(event: ArenaEvent, size: tuple[int, int]) -> Floats:
    """The place alone, under the camera, before and after its light goes on."""
    pattern = patterns(*size)[BACKGROUNDS.index(event.pattern)]
    colour = np.array(TINT_RGB[event.tint]) * event.shade
    table = np.stack((GROUND * colour, colour)).astype(np.float32)
    count = 2 * event.grids
    lit = np.arange(count) > (2 * event.switch if event.switch is not None else count)
    frames = np.empty((count, *size, 3), dtype=np.float32)
    for frame in range(count):
        shift = [phase - frame * step for phase, step in zip(event.phase, event.camera, strict=True)]
        frames[frame] = table[np.roll(pattern, shift, (0, 1)).astype(int)] * (BRIGHT if lit[frame] else DARK)
    return frames


def render_arena(video: ArenaVideo, *, scale: int = 1) -> NDArray[np.uint8]:
    """All frames of a video: ``uint8 [T, scale * H, scale * W, 3]``.

    Args:
        video: What to draw.
        scale: Whole factor by which every pixel is repeated in both directions.

    Raises:
        ValueError: If `scale` is below 1.
    """
    if scale < 1:
        raise ValueError(f"scale must be at least 1, got {scale}")
    frames = np.concatenate([render_event(event, video.size) for event in video.events])
    cuts = accumulate(2 * event.grids for event in video.events[:-1])
    for cut, transition in zip(cuts, video.transitions, strict=True):
        _join(frames, cut, transition)
    rgb = (frames * 255).round().clip(0, 255).astype(np.uint8)
    return rgb.repeat(scale, axis=1).repeat(scale, axis=2)


def _join(frames: Floats, cut: int, transition: Transition) -> None:
    """Mix the frames around a cut in place."""
    if transition == "cut":
        return
    before, after = frames[cut - MIXED - 1].copy(), frames[cut + MIXED].copy()
    for index in range(2 * MIXED):
        part = (index + 1) / (2 * MIXED + 1)
        if transition == "dissolve":
            mixed = before * (1 - part) + after * part
        else:
            mixed = before * max(0.0, 1 - 2 * part) + after * max(0.0, 2 * part - 1)
        frames[cut - MIXED + index] = mixed
