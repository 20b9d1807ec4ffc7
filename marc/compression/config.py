"""How a video's visual tokens are compressed: the options, checked and named."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from math import inf
from typing import Any, Literal, get_args

Layout = Literal["frames", "events"]
Merge = Literal["mean", "weighted"]
Schedule = tuple[tuple[int, int], ...]
"""Pairs of a number of tower blocks and the number of frames that are left after them."""


@dataclass(frozen=True)
class CompressionConfig:
    """How a video's visual tokens are compressed; stored in `MarcConfig.compression`.

    Attributes:
        layout: ``"frames"`` merges the video down to ``target_frames`` frames of full resolution, as published;
            ``"events"`` merges each event to one frame, pools it to its share of the budget and keeps it at its
            time.
        target_frames: N_target, in temporal grids. With ``"frames"`` the number of frames that remain; with
            ``"events"`` the budget is what so many frames cost. ``None`` turns compression off.
        visual_tokens: Upper limit on the visual tokens of a video. ``None`` is the cost of ``target_frames`` frames. A
            limit below the cost of one frame pools that frame spatially.
        ratio: rho, the part of its frames that each window keeps in stage 1 (``"frames"`` only), rounded up. A small
            ratio can leave fewer than ``target_frames`` of a short video.
        window: m, the short-term memory of stage 1 in frames: merges stay inside runs of this length, which start anew
            at every event (``"frames"`` only). ``None`` is the whole event.
        merge: ``"mean"`` averages the two frames of a pair as published, whatever they already contain;
            ``"weighted"`` weighs them by the number of frames that they stand for.
        tower_layer: Merges inside the vision tower, which attends within a frame only, so that its later blocks run on
            fewer frames. A number k: everything merges after k blocks. A schedule ``{k: frames, ...}``: after k blocks
            at most so many frames are left of the video (``"frames"``, whose windows may leave fewer) or of each event
            (``"events"``), and the rest merges after the tower. ``None``: all merging happens after the tower, as
            published.
        duplicates: Frames whose pixels hardly differ are encoded once by the tower and count as often as they occur.
            The largest difference, see `marc.compression.duplicates`; 0: equal pixels only; ``None``: each by itself.
        tower_chunk: Most patches of a video that the tower reads at once, which bounds the memory of its activations
            and changes results by rounding at most. ``None``: all videos at once.
    """

    layout: Layout = "events"
    target_frames: int | None = 1
    visual_tokens: int | None = None
    ratio: float = 0.5
    window: int | None = 8
    merge: Merge = "mean"
    tower_layer: int | Schedule | None = None
    duplicates: float | None = 0.0
    tower_chunk: int | None = 8192

    def __post_init__(self) -> None:
        for name, choices in (("layout", get_args(Layout)), ("merge", get_args(Merge))):
            if getattr(self, name) not in choices:
                raise ValueError(f"compression.{name} must be one of {choices}, got {getattr(self, name)!r}")
        for name in ("target_frames", "visual_tokens", "window", "tower_chunk"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
                raise ValueError(f"compression.{name} must be a whole number >= 1 or null, got {value!r}")
        object.__setattr__(self, "tower_layer", _tower_layer(self.tower_layer))
        if self.duplicates is not None and not _is_distance(self.duplicates):
            raise ValueError(f"compression.duplicates must be a number >= 0 or null, got {self.duplicates!r}")
        if isinstance(self.ratio, bool) or not isinstance(self.ratio, int | float) or not 0 < self.ratio <= 1:
            raise ValueError(f"compression.ratio must be in (0, 1], got {self.ratio!r}")

    @property
    def enabled(self) -> bool:
        """Whether videos are compressed at all."""
        return self.target_frames is not None

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> CompressionConfig:
        """Builds a configuration from JSON or YAML.

        Raises:
            ValueError: If a key is unknown or a value out of range; the message names it.
        """
        known = [field.name for field in fields(cls)]
        unknown = sorted(set(values) - set(known))
        if unknown:
            raise ValueError(f"unknown compression option {', '.join(unknown)}; known are {', '.join(known)}")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as JSON-serialisable values."""
        return asdict(self)


def _is_distance(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < inf


def _tower_layer(value: Any) -> int | Schedule | None:
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 1):
        return value
    try:
        schedule = tuple(sorted((int(layer), int(frames)) for layer, frames in dict(value).items()))
    except (TypeError, ValueError):
        schedule = ()
    falling = all(later[1] < earlier[1] for earlier, later in pairwise(schedule))
    if not schedule or not falling or schedule[0][0] < 1 or schedule[-1][1] < 1:
        raise ValueError(
            "compression.tower_layer must be a number of tower blocks >= 1, a schedule {blocks: frames} with ever "
            f"fewer frames, or null, got {value!r}"
        )
    return schedule
