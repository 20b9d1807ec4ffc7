"""What a request to vLLM carries of a video or picture: its patches, their grid, and a video's plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from marc.inference.plan_record import PlanRecord
from marc.inference.video_input import VideoInput

PLAN = "marc_plan"
"""Name of a video's `PlanRecord` as JSON, ``uint8 [n]``."""
VISUAL_FIELDS = {"video": ("pixel_values_videos", "video_grid_thw"), "image": ("pixel_values", "image_grid_thw")}
"""What vLLM calls patches, ``float [N, C]``, and their grid, ``int64 [3]``."""


def planned_item(video: VideoInput) -> dict[str, Tensor]:
    """What a request carries of a video or picture whose pixels are there."""
    pixels, grid = VISUAL_FIELDS[video.kind]
    assert video.patches.pixels is not None, "what the engine encodes needs its pixels"
    item = {pixels: video.patches.pixels, grid: torch.tensor(video.patches.grid_thw)}
    if video.kind == "video":
        item[PLAN] = torch.frombuffer(bytearray(PlanRecord.of(video).to_bytes()), dtype=torch.uint8)
    return item


def joined(items: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor | list[Tensor]]:
    """Several of these, all videos or all pictures, as a processor gives them."""
    columns = {name: [item[name] for item in items] for name in items[0]}
    return {
        name: values if name == PLAN else torch.stack(values) if name.endswith("_grid_thw") else torch.cat(values)
        for name, values in columns.items()
    }
