"""A picture of what the model saw: the frames that were read, coloured by the merged grid in which each ended."""

from __future__ import annotations

import textwrap
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from marc.extras import extra
from marc.types import FRAMES_PER_GRID
from marc.video import read_frames

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from marc.inference.assistant import SeenVideo
    from marc.types import Answer

COLUMNS = 16
COLOURS = 20
TITLE_INCHES = 0.25
"""Height of what stands above a frame."""
PICTURE_PIXELS = 160 * 120


def check_storyboard(path: str | Path) -> None:
    """Refuses a file that could not be drawn, before there is anything to draw.

    Raises:
        ValueError: If its folder is missing or matplotlib does not know its ending.
    """
    with extra("plots"):
        from matplotlib.backends.backend_agg import FigureCanvasAgg

    path, known = Path(path), FigureCanvasAgg.get_supported_filetypes()
    if path.suffix[1:].lower() not in known:
        raise ValueError(f"{path}: the ending must be one of {', '.join(sorted(known))}")
    if not path.parent.is_dir():
        raise ValueError(f"{path}: the folder {path.parent} does not exist")


def save_storyboard(path: str | Path, question: str, answer: Answer, seen: SeenVideo) -> None:
    """Draws question and answer, the events with their scores on a time line, and the frames in order.

    Args:
        path: A file whose ending matplotlib knows, such as ``.png``.
        question: As it was asked.
        answer: What came back.
        seen: What the model saw.
    """
    with extra("plots"):
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

    rows = ceil(len(seen.video.patches.frame_seconds) / COLUMNS)
    inches = rows * (TITLE_INCHES + seen.info.height / seen.info.width)  # a column is one inch wide
    figure = Figure(figsize=(COLUMNS, 2.2 + inches), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    title = textwrap.shorten(f"{question}  →  {answer.answer or '(no answer)'}", 150, placeholder=" …")
    figure.suptitle(title, x=0.01, ha="left", fontsize=14, fontweight="bold")
    outer = figure.add_gridspec(2, 1, height_ratios=[1.2, inches])
    _draw_time_line(figure.add_subplot(outer[0]), seen, answer)
    _draw_frames(figure, outer[1].subgridspec(rows, COLUMNS), seen)
    figure.savefig(path)


def _colours(seen: SeenVideo) -> np.ndarray:
    """RGBA of the merged grid in which every frame ended: ``float [T, 4]``."""
    with extra("plots"):
        from matplotlib import colormaps

    members = seen.video.members
    merged = np.arange(seen.video.patches.grid_thw[0]) if members is None else members.cpu().numpy()
    merged = np.repeat(merged, FRAMES_PER_GRID)[: len(seen.video.patches.frame_seconds)]
    strong_then_pale = (2 * merged + 2 * merged // COLOURS) % COLOURS
    return colormaps["tab20"](strong_then_pale)


def _draw_time_line(axes: Axes, seen: SeenVideo, answer: Answer) -> None:
    retrieval, seconds = seen.retrieval, seen.video.patches.frame_seconds
    axes.set_xlim(0, seen.info.duration)
    axes.set_ylim(0, 2 if retrieval else 0.7)
    axes.set_yticks([])
    axes.spines[["left", "right", "top"]].set_visible(False)
    axes.set_xlabel(
        f"seconds · {answer.frames} frames read · {answer.visual_tokens_before} visual tokens → "
        f"{answer.visual_tokens_after} · a colour is a merged grid",
        fontsize=9,
    )
    axes.scatter(seconds, np.full(len(seconds), 0.35), c=_colours(seen), marker="s", s=45)
    if retrieval is None:
        return
    for index, (event, score) in enumerate(zip(retrieval.events, retrieval.scores, strict=True)):
        kept = index in retrieval.kept
        axes.broken_barh(
            [(event.start, event.duration)],
            (0.85, 0.9),
            facecolor="#ffe9a8" if kept else "#eeeeee",
            edgecolor="#b8860b" if kept else "#bbbbbb",
            linewidth=1.8 if kept else 0.8,
        )
        axes.text(event.middle, 1.3, f"{score:.2f}", ha="center", va="center", fontsize=9, clip_on=True)


def _draw_frames(figure: Figure, cells: object, seen: SeenVideo) -> None:
    seconds = np.array(seen.video.patches.frame_seconds)
    pictures = read_frames(seen.info.source, seconds, max_pixels=PICTURE_PIXELS, min_pixels=1, factor=4).rgb
    for index, (picture, second, colour) in enumerate(zip(pictures, seconds, _colours(seen), strict=True)):
        axes = figure.add_subplot(cells[index // COLUMNS, index % COLUMNS])  # type: ignore[index]
        axes.imshow(picture, interpolation="nearest")
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_title(f"{second:.1f}", fontsize=7, pad=2)
        for spine in axes.spines.values():
            spine.set(color=colour, linewidth=3)
