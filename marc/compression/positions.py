"""Where the tokens of a compressed video stand, and where the text behind it goes on: pure functions of its plan.

An engine of any kind calls these; nothing of a model is needed. Positions have three axes, time, height and width, and
are relative to the position of the video's first token. A cell that was pooled stands at the centre of the places that
it averages, a merged grid at its time.

Shapes: N tokens that remain of a video; B rows of L tokens, which hold less than V videos.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import pad

from marc.compression.cells import Cells, Size, cells_of, centers, token_count
from marc.compression.plan import VideoPlan

TextAfter = Literal["published", "grid"]
"""Where text goes on after a video: one after its largest position on any axis, as Qwen2-VL and Qwen2.5-VL were
trained; or after the larger side of its uncompressed grid, whatever its times, as transformers 5 has it."""

VIDEO = 2
"""What transformers' ``mm_token_type_ids`` call a token of a video."""


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
    places = {cells: torch.tensor(centers(plan.size, cells)) for cells in set(plan.cells)}
    counts = torch.tensor([token_count(cells) for cells in plan.cells])
    within_grids = torch.cat([places[cells] for cells in plan.cells])
    return torch.cat((times.long().repeat_interleave(counts)[None], within_grids.T))


def kept_positions(
    places_N: Tensor, size: Size, seconds: Sequence[float] | float, *, tokens_per_second: float
) -> Tensor:
    """Positions of single tokens that a rule kept: those that they have in the whole video.

    Args:
        places_N: ``t * P + p`` of each, see `marc.compression.rivals.rule`.
        size: Of a grid in cells.
        seconds: See `video_positions`.
        tokens_per_second: See `video_positions`.

    Returns:
        ``int64 [3, N]``.
    """
    grids = places_N.div(size[0] * size[1], rounding_mode="floor").tolist()
    if isinstance(seconds, int | float):
        times = torch.tensor(grids) * (tokens_per_second * seconds)
    else:
        times = torch.tensor([seconds[grid] for grid in grids]) * tokens_per_second
    rows = places_N.cpu() % (size[0] * size[1])
    return torch.stack((times.long(), rows.div(size[1], rounding_mode="floor"), rows % size[1]))


def block_positions(cells: Cells) -> Tensor:
    """Positions of a grid that is numbered like a picture of its cells: ``int64 [3, N]``, all at one time."""
    places = torch.tensor([cell.place for cell in cells_of(cells)])
    return torch.cat((torch.zeros(1, len(places), dtype=torch.long), places.T))


def text_position(positions: Tensor, size: Size, text_after: TextAfter) -> int:
    """Position of the text behind a video, relative to the video's first one, for an engine that counts by itself.

    Args:
        positions: Of the video, ``int64 [3, N]``, relative too.
        size: Of an uncompressed grid.
        text_after: The rule.
    """
    return max(size) if text_after == "grid" else int(positions.max()) + 1


def published_text_positions(positions_3BL: Tensor, token_types_BL: Tensor, present_BL: Tensor) -> Tensor:
    """Moves all that follows a video, so that it goes on one after the video's largest position on any axis.

    What is there already stays: pictures, and text whose positions were counted by this rule.

    Args:
        positions_3BL: Positions by any rule, such as transformers'.
        token_types_BL: A video is a run of `VIDEO`; padding does not end it.
        present_BL: The attention mask; padding stays where it is.

    Returns:
        ``int64 [3, B, L]``.
    """
    order_BL = present_BL.bool().argsort(dim=1, descending=True, stable=True)  # padding behind everything else
    present_BL = present_BL.bool().gather(1, order_BL)
    video_BL = (token_types_BL.gather(1, order_BL) == VIDEO) & present_BL
    after_video_BL = pad(video_BL[:, :-1], (1, 0))
    number_BL = (video_BL & ~after_video_BL).cumsum(1)  # of videos so far
    positions_BL = positions_3BL.amax(0).gather(1, order_BL)
    largest_BV = pad(torch.zeros_like(positions_BL), (0, 1))
    largest_BV = largest_BV.scatter_reduce(1, number_BL, positions_BL * video_BL, "amax")
    goes_on_BL = after_video_BL & ~video_BL & present_BL
    moves_BL = (largest_BV.gather(1, number_BL) + 1 - positions_BL) * goes_on_BL
    shifts_BL = moves_BL.cumsum(1) * present_BL
    return positions_3BL + torch.zeros_like(shifts_BL).scatter(1, order_BL, shifts_BL)
