"""How many temporal grids of a video that stands still reach the vision tower, by `CompressionConfig.duplicates`.

    python -m benchmarks.still_clips

prints the table of docs/compression.md: clips of 16 seconds are drawn, encoded with H.264, read as the 3B would read
them and searched for near-duplicates.

Shapes: T frames, H x W pixels, 3 colours.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.architectures import ARCHITECTURES, video_processor
from marc.compression.duplicates import distinct_grids, grid_distance
from marc.model.processing import frame_patches
from marc.video import read_frames, write_video

HEIGHT, WIDTH = 360, 640
FPS, FRAMES = 5, 80
THRESHOLDS = (0.0, 0.05, 0.1, 0.2, 0.3)

Picture = NDArray[np.float64]


def main() -> None:
    """Prints one row per clip."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    generator = np.random.default_rng(parser.parse_args().seed)
    print(f"| clip | distance, median (least to largest) | {' | '.join(map(str, THRESHOLDS))} |")
    print(f"|---|---|{'---|' * len(THRESHOLDS)}")
    with tempfile.TemporaryDirectory() as folder:
        for name, draw in CLIPS.items():
            path = Path(folder) / "clip.mp4"
            pictures = [picture.clip(0, 255).astype(np.uint8) for picture in draw(generator)]
            write_video(path, np.stack(pictures), fps=FPS)
            grids = pixels_as_read(path)
            distances = sorted(float(grid_distance(a, b)) for a, b in pairwise(grids))
            counts = [str(distinct_grids(grids, threshold)[-1] + 1) for threshold in THRESHOLDS]
            median, least, largest = statistics.median(distances), distances[0], distances[-1]
            print(f"| {name} | {median:.3f} ({least:.3f} to {largest:.3f}) | {' | '.join(counts)} |")


def pixels_as_read(path: Path) -> Tensor:
    """What the 3B's tower would be given of a clip at 2 frames a second and 128 tokens a grid: ``[grids, P, C]``."""
    model = ARCHITECTURES["3b"]
    factor, least, most = model.factor, 4 * model.factor**2, 128 * model.factor**2
    frames = read_frames(path, fps=2.0, max_frames=64, min_frames=4, factor=factor, min_pixels=least, max_pixels=most)
    pixels, grid_thw = frame_patches(video_processor(model, least, most), frames.rgb)
    return pixels.unflatten(0, (int(grid_thw[0, 0]), -1))


def slides(generator: np.random.Generator) -> Iterator[Picture]:
    """Four pages of letters."""
    for _ in range(4):
        page = np.full((HEIGHT, WIDTH, 3), 235.0)
        for place in range(450):
            _letter(page, place, generator)
        yield from [page] * (FRAMES // 4)


def typing(generator: np.random.Generator) -> Iterator[Picture]:
    """A new letter every 0.6 seconds."""
    page = np.full((HEIGHT, WIDTH, 3), 235.0)
    for frame in range(FRAMES):
        if frame % 3 == 0:
            _letter(page, frame // 3, generator)
        yield page.copy()


def camera(noise: float, *, walker: bool) -> Callable[[np.random.Generator], Iterator[Picture]]:
    """A still camera whose sensor has noise of so many levels; for four seconds somebody may walk through."""

    def draw(generator: np.random.Generator) -> Iterator[Picture]:
        scene = _scene(generator, WIDTH)
        for frame in range(FRAMES):
            picture = scene.copy()
            step = frame - FRAMES // 2
            if walker and 0 <= step < 4 * FPS:
                picture[150:230, 28 * step + 20 : 28 * step + 50] = 40
            yield picture + noise * generator.standard_normal((HEIGHT, WIDTH, 1))

    return draw


def pan(generator: np.random.Generator) -> Iterator[Picture]:
    """A camera that moves by a pixel a frame."""
    scene = _scene(generator, WIDTH + FRAMES)
    for frame in range(FRAMES):
        yield scene[:, frame : frame + WIDTH]


def _letter(page: Picture, place: int, generator: np.random.Generator) -> None:
    row, column = divmod(place, 50)
    y, x = 30 + 24 * row, 20 + 10 * column
    page[y : y + 14, x : x + 7] = 200 * generator.integers(0, 2, (14, 7, 1))


def _scene(generator: np.random.Generator, width: int) -> Picture:
    blocks = generator.integers(0, 256, (HEIGHT // 16 + 1, width // 16 + 1, 3)).astype(float)
    return np.kron(blocks, np.ones((16, 16, 1)))[:HEIGHT, :width]


CLIPS: dict[str, Callable[[np.random.Generator], Iterator[Picture]]] = {
    "four slides": slides,
    "letters typed on a page": typing,
    "camera, noise of 2 levels": camera(2, walker=False),
    "the same, somebody walks through for 4 s": camera(2, walker=True),
    "the same with noise of 6 levels": camera(6, walker=True),
    "slow pan": pan,
}

if __name__ == "__main__":
    main()
