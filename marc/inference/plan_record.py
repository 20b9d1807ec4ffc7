"""A video's plan on its way to an engine that has neither our processor nor our model: bytes beside the pixels.

What becomes of a video follows from what stands here and the size of its grids; so an engine that gets both counts
its tokens, finds their positions and merges its grids as the engine of transformers does. And two videos may share an
entry of a cache only where their pixels and these bytes are equal.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from marc.compression import CompressionConfig, plan_video
from marc.inference.video_input import VideoInput
from marc.model.modeling import PlannedGrid


@dataclass(frozen=True)
class PlanRecord:
    """What a video's plan is made from.

    Attributes:
        compression: The budget.
        events: Event id of each temporal grid.
        seconds: Time of each temporal grid.
        shares: Tokens of each event; None: equal ones.
        limit: Visual tokens and grids for which the prompt has room, see `marc.compression.plan_video`.
    """

    compression: CompressionConfig
    events: tuple[int, ...]
    seconds: tuple[float, ...]
    shares: tuple[int, ...] | None = None
    limit: tuple[int, int] | None = None

    @classmethod
    def of(cls, video: VideoInput) -> PlanRecord:
        """That of a planned video.

        Raises:
            ValueError: If its layout is a rule whose tokens have no places before the video is encoded.
        """
        plan, limit = video.plan, None
        if plan is not None and plan.rule is not None:
            raise ValueError(
                f"the layout {plan.rule}: this engine numbers tokens before it has seen them; "
                "choose events or frames, or the engine hf"
            )
        if plan is not None and plan.budget is not None and plan.most_grids is not None:
            limit = (plan.budget, plan.most_grids)
        return cls(video.compression, video.events, video.seconds, video.shares, limit)

    @classmethod
    def from_bytes(cls, data: bytes) -> PlanRecord:
        """Reads what `to_bytes` wrote."""
        values = json.loads(data)
        compression = CompressionConfig.from_dict(values.pop("compression"))
        fields: dict[str, Any] = {name: value if value is None else tuple(value) for name, value in values.items()}
        return cls(compression, **fields)

    def to_bytes(self) -> bytes:
        """As JSON; equal records give equal bytes."""
        return json.dumps(asdict(self), sort_keys=True).encode()

    def grid(self, grid_thw: Sequence[int], merge: int) -> PlannedGrid:
        """The video's grids with their plan.

        Args:
            grid_thw: Temporal grids, height and width in patches.
            merge: Patches along each side of a visual token.
        """
        grids, height, width = (int(length) for length in grid_thw)
        plan = None
        if self.compression.enabled:
            size = (height // merge, width // merge)
            plan = plan_video(grids, size, self.compression, events=self.events, shares=self.shares, limit=self.limit)
        return PlannedGrid(grids, height, width, plan, self.seconds)
