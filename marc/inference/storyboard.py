"""A picture of what the model saw: the frames that were read, coloured by the merged frame in which each ended."""

from __future__ import annotations

import textwrap
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from marc.extras import extra
from marc.video import read_frames

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from marc.inference.assistant import EncodedVideo
    from marc.types import Answer, Retrieval

COLUMNS = 16
COLOURS = 20
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


def save_storyboard(
    path: str | Path, question: str, answer: Answer, video: EncodedVideo, retrieval: Retrieval | None = None
) -> None:
    """Draws question and answer, the events with their scores on a time line, and the frames in order.

    Args:
        path: A file whose ending matplotlib knows, such as ``.png``.
        question: As it was asked.
        answer: What came back.
        video: What the model saw.
        retrieval: What the memory chose, if it was asked.
    """
    with extra("plots"):
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

    rows = ceil(len(video.seconds) / COLUMNS)
    figure = Figure(figsize=(16, 2.2 + rows), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    title = textwrap.shorten(f"{question}  →  {answer.answer or '(no answer)'}", 150, placeholder=" …")
    figure.suptitle(title, x=0.01, ha="left", fontsize=14, fontweight="bold")
    outer = figure.add_gridspec(2, 1, height_ratios=[1.2, rows])
    _draw_time_line(figure.add_subplot(outer[0]), video, answer, retrieval)
    _draw_frames(figure, outer[1].subgridspec(rows, COLUMNS), video)
    figure.savefig(path)


def _colours(video: EncodedVideo) -> np.ndarray:
    """RGBA of the merged frame of every frame: ``float [T, 4]``."""
    with extra("plots"):
        from matplotlib import colormaps

    merged = np.repeat(video.members, ceil(len(video.seconds) / len(video.members)))[: len(video.seconds)]
    strong_then_pale = (2 * merged + 2 * merged // COLOURS) % COLOURS
    return colormaps["tab20"](strong_then_pale)


def _draw_time_line(axes: Axes, video: EncodedVideo, answer: Answer, retrieval: Retrieval | None) -> None:
    axes.set_xlim(0, video.info.duration)
    axes.set_ylim(0, 2 if retrieval else 0.7)
    axes.set_yticks([])
    axes.spines[["left", "right", "top"]].set_visible(False)
    axes.set_xlabel(
        f"seconds · {answer.frames} frames read · {answer.visual_tokens_before} visual tokens → "
        f"{answer.visual_tokens_after} · a colour is a merged frame",
        fontsize=9,
    )
    axes.scatter(video.seconds, np.full(len(video.seconds), 0.35), c=_colours(video), marker="s", s=45)
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


def _draw_frames(figure: Figure, cells: object, video: EncodedVideo) -> None:
    pictures = read_frames(video.info.source, video.seconds, max_pixels=PICTURE_PIXELS, min_pixels=1, factor=4).rgb
    for index, (picture, second, colour) in enumerate(zip(pictures, video.seconds, _colours(video), strict=True)):
        axes = figure.add_subplot(cells[index // COLUMNS, index % COLUMNS])  # type: ignore[index]
        axes.imshow(picture, interpolation="nearest", aspect="auto")
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_title(f"{second:.1f}", fontsize=7, pad=2)
        for spine in axes.spines.values():
            spine.set(color=colour, linewidth=3)
