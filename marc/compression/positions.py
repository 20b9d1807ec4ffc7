"""Where the tokens of a compressed video stand, and where the text behind it goes on: pure functions of its plan.

An engine of any kind calls these; nothing of a model is needed. Positions have three axes, time, height and width, and
are relative to the position of the video's first token. A cell that was pooled stands at the centre of the places that
it averages, a merged grid at its time.

Shapes: N tokens that remain of a video.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from marc.compression.plan import Size, VideoPlan

TextAfter = Literal["grid", "published"]
"""Where text goes on after a video: after the larger side of its uncompressed grid, whatever its times; or, as
Qwen2-VL and Qwen2.5-VL were trained, after its largest position on any axis."""


def video_positions(plan: VideoPlan, seconds: Sequence[float] | float, *, tokens_per_second: float) -> Tensor:
    """Positions of a video's tokens whose temporal axis counts time.

    Args:
        plan: What becomes of the video; `VideoPlan.whole` if nothing.
        seconds: Time of each temporal grid before compression, or the seconds between any two of them.
        tokens_per_second: Temporal positions a second; fractions are cut off.

    Returns:
        ``int64 [3, N]``.
    """
    if isinstance(seconds, int | float):
        times = torch.tensor(plan.centers) * (tokens_per_second * seconds)
    else:
        times = torch.tensor(plan.seconds(seconds)) * tokens_per_second
    places = {
        cells: torch.cartesian_prod(*(_centers(side, count) for side, count in zip(plan.size, cells, strict=True)))
        for cells in set(plan.cells)
    }
    counts = torch.tensor([rows * columns for rows, columns in plan.cells])
    within_grids = torch.cat([places[cells] for cells in plan.cells])
    return torch.cat((times.long().repeat_interleave(counts)[None], within_grids.T))


def text_position(positions: Tensor, size: Size, text_after: TextAfter) -> int:
    """Position of the text behind a video, relative to the video's first one.

    Args:
        positions: Of the video, ``int64 [3, N]``, relative too.
        size: Of an uncompressed grid.
        text_after: The family's rule.
    """
    return max(size) if text_after == "grid" else int(positions.max()) + 1


def _centers(length: int, cells: int) -> Tensor:
    """Positions ``int64 [cells]`` of the centres of equal parts of ``length`` places."""
    return ((torch.arange(cells) * 2 + 1) * length) // (2 * cells)
