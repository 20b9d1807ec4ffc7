"""Equal-budget baselines by name, so that a claim is always against something.

All but ``full`` cost about the same visual tokens, those of one temporal grid. Any budget is a method, too, by its
name (``events:4``, ``tokens:128``, see `marc.compression.config`). Each can be asked with the Visual Memory Retriever
(``marc-events+memory``): then its frames come from the retrieved events only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from marc.compression.config import CompressionConfig, budget_fields, parse_budget

MEMORY = "+memory"


@dataclass(frozen=True)
class Method:
    """One way to spend visual tokens.

    Attributes:
        name: Name on the command line and in reports.
        summary: What it does, in a line.
        frames: Most frames to sample.
        compression: What replaces the model's, see `marc.compression.config.override_compression`.
        frame_pixels: ``"model"`` leaves the resolution alone; ``"one frame"`` spreads one frame's pixels over all
            frames.
        choice: ``"even"`` samples the video evenly; ``"random"`` takes one stretch at a random place.
        memory: Whether frames come from the retrieved events only.
    """

    name: str
    summary: str
    frames: int = 64
    compression: Mapping[str, Any] = field(default_factory=dict)
    frame_pixels: Literal["model", "one frame"] = "model"
    choice: Literal["even", "random"] = "even"
    memory: bool = False

    def fixed(self, layout: str | None = None) -> tuple[str, ...]:
        """The fields of the compression that it sets.

        Args:
            layout: What is given as layout beside it, if anything.
        """
        budget = self.compression.get("budget")
        return budget_fields(budget, layout) if budget else tuple(self.compression)


_UNCOMPRESSED = {"target_frames": None}
_ONE_FRAME = {"target_frames": 1, "visual_tokens": None, "tokens_per_event": None}

_METHODS = (
    Method("full", "64 frames, uncompressed: the teacher", compression=_UNCOMPRESSED),
    Method("frames2", "2 frames (one temporal grid) from across the video, uncompressed", 2, _UNCOMPRESSED),
    Method(
        "tiny",
        "64 frames, uncompressed, as small as they must be to cost one frame's tokens",
        compression=_UNCOMPRESSED,
        frame_pixels="one frame",
    ),
    Method(
        "uniform",
        "64 frames averaged over time to one frame (uniform temporal pooling)",
        compression={**_ONE_FRAME, "layout": "frames", "merge": "weighted"},
    ),
    Method(
        "random",
        "2 consecutive frames (one temporal grid) from a random place, uncompressed",
        2,
        _UNCOMPRESSED,
        choice="random",
    ),
    Method(
        "marc-frames",
        "64 frames merged to one by similarity: the published layout",
        compression={**_ONE_FRAME, "layout": "frames"},
    ),
    Method(
        "marc-events",
        "64 frames as one small frame per event, in time order: our layout",
        compression={**_ONE_FRAME, "layout": "events"},
    ),
)

METHODS: dict[str, Method] = {method.name: method for method in _METHODS}


def find_method(name: str) -> Method:
    """A method by its name or its budget, with the suffix ``+memory`` for the memory.

    Raises:
        ValueError: If there is none of that name.
    """
    base = name.removesuffix(MEMORY)
    method = METHODS.get(base) or _budget_method(base)
    return replace(method, name=name, memory=True) if name != base else method


def _budget_method(name: str) -> Method:
    try:
        parse_budget(name, CompressionConfig())
    except ValueError as error:
        raise ValueError(
            f"unknown method {name!r}; choose one of {', '.join(METHODS)}, or a budget such as events:4, frames:2 or "
            f"tokens:128, each also as NAME{MEMORY}"
        ) from error
    return Method(name, f"64 frames at the budget {name}", compression={"budget": name})
