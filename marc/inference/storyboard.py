"""A picture of what the model saw: the frames that were read, coloured and numbered by the merged grid of each."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from marc.extras import extra
from marc.types import FRAMES_PER_GRID
from marc.video import read_frames
from marc.video.pictures import read_picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from marc.inference.seen import SeenVideo
    from marc.types import Answer

COLUMNS = 16
COLOURS = 20
TITLE_INCHES = 0.25
"""Height of what stands above a frame."""
TIME_LINE_INCHES = 1.2
FONT = 10
GONE = (0.85, 0.85, 0.85, 1.0)
"""Points of what stands small; a page may show the picture at half of its 1,600 pixels."""
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


def save_storyboard(path: str | Path, question: str, answer: Answer, seen: Sequence[SeenVideo]) -> None:
    """Draws question and answer, and of each video events with their scores on a time line, and the frames in order.

    Args:
        path: A file whose ending matplotlib knows, such as ``.png``.
        question: As it was asked.
        answer: What came back.
        seen: What the model saw.
    """
    with extra("plots"):
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

    rows = [ceil(max(1, len(each.video.patches.frame_seconds)) / COLUMNS) for each in seen]
    inches = [
        count * (TITLE_INCHES + each.info.height / each.info.width) for count, each in zip(rows, seen, strict=True)
    ]
    lines = [TIME_LINE_INCHES if each.video.patches.frame_seconds else TITLE_INCHES for each in seen]
    size = (COLUMNS, 0.7 + sum(inches) + 1.25 * sum(lines))
    figure = Figure(figsize=size, dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    title = textwrap.shorten(f"{question}  →  {answer.answer or '(no answer)'}", 150, placeholder=" …")
    figure.suptitle(title, x=0.01, ha="left", fontsize=14, fontweight="bold")
    heights = [height for pair in zip(lines, inches, strict=True) for height in pair]
    outer = figure.add_gridspec(len(heights), 1, height_ratios=heights)
    for number, each in enumerate(seen):
        name = Path(each.info.source).name if len(seen) > 1 else ""
        _draw_time_line(figure.add_subplot(outer[2 * number]), each, name)
        _draw_frames(figure, outer[2 * number + 1].subgridspec(rows[number], COLUMNS), each)
    figure.savefig(path)


def _merged(seen: SeenVideo) -> np.ndarray:
    """The merged grid in which every frame ended, from 0, or -1 if nothing of it was kept: ``int [T]``."""
    return np.repeat(np.array(seen.video.grid_groups), FRAMES_PER_GRID)[: len(seen.video.patches.frame_seconds)]


def _number(grid: int) -> str:
    return "–" if grid < 0 else str(grid + 1)


def _legend(seen: SeenVideo) -> str:
    kept_singly = seen.video.places is not None
    return "grey: no token of it was kept" if kept_singly else "one colour and number: merged into one"


def _colours(merged: np.ndarray) -> np.ndarray:
    """RGBA of merged grids: ``float [T, 4]``; every twentieth has the same, and what is gone a light grey."""
    with extra("plots"):
        from matplotlib import colormaps

    strong_then_pale = (2 * merged + 2 * merged // COLOURS) % COLOURS
    return np.where(merged[:, None] < 0, GONE, colormaps["tab20"](strong_then_pale))


def _draw_time_line(axes: Axes, seen: SeenVideo, name: str) -> None:
    retrieval, seconds, shown = seen.retrieval, seen.video.patches.frame_seconds, seen.report()
    if not seconds:
        axes.set_axis_off()
        told = f"{name} · " if name else ""
        axes.set_title(f"{told}a picture of {shown.visual_tokens_after} visual tokens", loc="left", fontsize=FONT)
        return
    axes.set_xlim(shown.start, shown.end or 1.0)
    axes.set_ylim(0, 2 if retrieval else 0.7)
    axes.set_yticks([])
    axes.spines[["left", "right", "top"]].set_visible(False)
    axes.set_title(name, loc="left", fontsize=10)
    axes.set_xlabel(
        f"seconds · {len(seconds)} frames read · {shown.visual_tokens_before} visual tokens → "
        f"{shown.visual_tokens_after} · {_legend(seen)}",
        fontsize=FONT,
    )
    merged = _merged(seen)
    axes.scatter(seconds, np.full(len(seconds), 0.25), c=_colours(merged), marker="s", s=45)
    for first in np.flatnonzero(np.diff(merged, prepend=-1)):
        number = _number(merged[first])
        axes.text(seconds[first], 0.58, number, ha="center", va="center", fontsize=FONT - 1)
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
        weight = "bold" if kept else "normal"
        text = axes.text(event.middle, 1.3, f"{score:.2f}", ha="center", va="center", clip_on=True)
        text.set(fontsize=FONT, fontweight=weight)


def _draw_frames(figure: Figure, cells: object, seen: SeenVideo) -> None:
    seconds = seen.video.patches.frame_seconds
    merged = _merged(seen)
    labels = [f"{_number(grid)} · {second:.1f} s" for grid, second in zip(merged, seconds, strict=True)] or [""]
    colours = _colours(merged) if seconds else ["black"]
    for index, (picture, label, colour) in enumerate(zip(_pictures(seen), labels, colours, strict=True)):
        axes = figure.add_subplot(cells[index // COLUMNS, index % COLUMNS])  # type: ignore[index]
        axes.imshow(picture, interpolation="nearest")
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_title(label, fontsize=FONT - 1, pad=4)
        for spine in axes.spines.values():
            spine.set(color=colour, linewidth=3)


def _pictures(seen: SeenVideo) -> Sequence[Any]:
    """The frames, or the picture, as they are drawn."""
    if seen.given is not None:
        return list(seen.given.rgb)
    if seen.video.kind == "image":
        return [read_picture(seen.info.source)]
    seconds = np.array(seen.video.patches.frame_seconds)
    return list(read_frames(seen.info.source, seconds, max_pixels=PICTURE_PIXELS, min_pixels=1, factor=4).rgb)
