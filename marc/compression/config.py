"""How a video's visual tokens are compressed: the options, checked and named, and the names of budgets.

A *budget* says how many visual tokens a video may cost and in which layout:

| budget | visual tokens of a video |
|---|---|
| ``full`` | all of them: compression is off |
| ``events``, ``events:N`` | the layout ``events`` at the cost of one temporal grid, or of N |
| ``frames``, ``frames:N`` | the layout ``frames`` likewise: one temporal grid remains, or N |
| ``RULE``, ``RULE:N`` | a rule of `marc.compression.rivals` as layout, likewise |
| ``tokens:N`` | at most N, in the layout that is set otherwise |
| ``prompt:N`` | as many as let a video cost at most N tokens in the prompt, with timestamps and marks |
| ``auto``, ``auto:N`` | N (`AUTO`) for each event, or for each that was retrieved, in the layout ``events`` |
| the same with a rule | N (`AUTO_CELLS`) times the square root of the number of events, or of retrieved ones |

A rule may keep no fewer than some (as many as there are grids, or one whole grid): ``tokens:N`` below that keeps
these and says so, ``prompt:N`` below it is refused.

With a rule a question that counts has twice the tokens of ``auto`` (`marc.inference.query.budget_for`), and with
``details`` one about a moment half, where events were retrieved and others left out
(`marc.inference.selectors.FOUND_PART`).
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from itertools import pairwise
from math import ceil, sqrt
from typing import Annotated, Any, Literal, get_args

from marc.compression.rivals.rule import RULES, Rule
from marc.options import Limits, OptionError, check

Layout = Literal[
    "frames",
    "events",
    "random",
    "uniform",
    "tiny",
    "last",
    "details",
    "dycoke",
    "evs",
    "fastvid",
    "holitom",
    "prumerge",
    "sttm",
    "tome",
    "vidcom2",
    "visionzip",
]
Merge = Literal["mean", "weighted"]
Schedule = tuple[tuple[int, int], ...]
"""Pairs of a number of tower blocks and the number of temporal grids that are left after them."""
NEAR_DUPLICATES = 0.1
"""`CompressionConfig.duplicates` where questions are answered: above a camera's noise, below a typed letter."""
AUTO = 4
"""Visual tokens of an event with the budget ``auto``."""
AUTO_CELLS = 120
"""The same in layouts of single cells: visual tokens of a video of one event."""

_BUDGET = re.compile(
    rf"full|(?P<layout>{'|'.join(get_args(Layout))})(?:(?P<mark>[:-])(?P<grids>[1-9]\d*))?|tokens:(?P<tokens>[1-9]\d*)"
    r"|prompt:(?P<prompt>[1-9]\d*)|(?P<auto>auto)(?::(?P<each>[1-9]\d*))?"
)


@dataclass(frozen=True)
class CompressionConfig:
    """How a video's visual tokens are compressed; stored in `MarcConfig.compression`.

    Attributes:
        layout: ``"frames"`` merges the video down to ``target_frames`` temporal grids of full resolution, as
            published; ``"events"`` merges each event to one grid, or to several where its share of the budget is more
            than a whole one, pools it to that share and keeps it at its time. Any other name is a rule from the
            literature (`marc.compression.rivals`) that spends the budget on single tokens of its choice, or
            ``"details"``, ours (`marc.compression.details`).
        target_frames: N_target, in temporal grids. With ``"frames"`` the number of grids that remain; with
            ``"events"`` the budget is what so many grids cost. ``None`` turns compression off.
        visual_tokens: Upper limit on the visual tokens of a video. ``None`` is the cost of ``target_frames`` grids. A
            limit below the cost of one grid pools that grid spatially. Rules that keep a token of every grid, or one
            grid, keep these whatever the limit.
        tokens_per_event: Visual tokens of each event in place of ``target_frames`` for all (not with ``"frames"``),
            so that a video costs as much as happens in it, up to ``visual_tokens``; see `tokens_of` for rules, which
            may share them out otherwise. With the memory, in the layouts ``"events"`` and ``"details"``, those of the
            events that were retrieved; every other one that looks unlike its neighbours has one. ``None``: as many
            as ``target_frames`` says.
        prompt_tokens: Upper limit on what a video costs in the prompt, with what stands between its visual tokens:
            marks, and the timestamps of families that write them. Fewer visual tokens remain where that needs it.
        ratio: rho, the part of its grids that each window keeps in stage 1 (``"frames"`` only), rounded up. A small
            ratio can leave fewer than ``target_frames`` of a short video.
        window: m, the short-term memory of stage 1 in temporal grids: merges stay inside runs of this length, which
            start anew at every event (``"frames"`` only). ``None`` is the whole event.
        merge: ``"mean"`` averages the two grids of a pair as published, whatever they already contain;
            ``"weighted"`` weighs them by the number of grids that they stand for.
        tower_layer: Merges inside the vision tower, which attends within a grid only, so that its later blocks run on
            fewer grids. A number k: everything merges after k blocks. A schedule ``4:16,8:4``: after 4 blocks at most
            16 grids are left of the video (``"frames"``, whose windows may leave fewer) or of each event
            (``"events"``), after 8 blocks 4, and the rest merges after the tower. ``None``: all merging happens after
            the tower, as published.
        duplicates: Temporal grids whose pixels hardly differ are encoded once by the tower and count as often as they
            occur. The largest difference, see `marc.compression.duplicates`; 0: equal pixels only; ``None``: each by
            itself.
        tower_chunk: Most patches of a video that the tower reads at once, which bounds the memory of its activations
            and changes results by rounding at most. ``None``: all videos at once.

    Raises:
        ValueError: If a value is out of range.
    """

    layout: Layout = "events"
    target_frames: Annotated[int | None, Limits(least=1)] = 1
    visual_tokens: Annotated[int | None, Limits(least=1)] = None
    prompt_tokens: Annotated[int | None, Limits(least=1)] = None
    tokens_per_event: Annotated[int | None, Limits(least=1)] = None
    ratio: Annotated[float, Limits(above=0, most=1)] = 0.5
    window: Annotated[int | None, Limits(least=1)] = 8
    merge: Merge = "mean"
    tower_layer: int | Schedule | None = None
    duplicates: Annotated[float | None, Limits(least=0)] = 0.0
    tower_chunk: Annotated[int | None, Limits(least=1)] = 8192

    def __post_init__(self) -> None:
        object.__setattr__(self, "tower_layer", _tower_layer(self.tower_layer))
        check(self, "compression.")
        if self.tokens_per_event is not None and self.layout == "frames":
            problem = "is for the layout events and for rules, not for frames; leave one of them out"
            raise OptionError("tokens_per_event", problem, "compression.")
        if self.tower_layer is not None and self.rule is not None:
            problem = (
                f"merges inside the vision tower, and the layout {self.layout} works behind it; leave one of them out"
            )
            raise OptionError("tower_layer", problem, "compression.")

    @property
    def enabled(self) -> bool:
        """Whether videos are compressed at all."""
        return self.target_frames is not None

    @property
    def rule(self) -> Rule | None:
        """The rule from the literature that is the layout, if it is one."""
        return RULES.get(self.layout)

    @property
    def takes_shares(self) -> bool:
        """Whether each event of a video can have a share of the budget, as it matters for a question."""
        return self.layout == "events" if self.rule is None else self.rule.takes_shares

    def token_budget(self, cells: int, events: int) -> int:
        """Most visual tokens of a video.

        Args:
            cells: Visual tokens of one temporal grid of it.
            events: How many it has, which counts where each has its tokens.
        """
        assert self.target_frames is not None, "compression is off"
        if self.tokens_per_event is not None:
            wanted = self.tokens_of(events)
            return wanted if self.visual_tokens is None else min(wanted, self.visual_tokens)
        return self.target_frames * cells if self.visual_tokens is None else self.visual_tokens

    def tokens_of(self, events: int) -> int:
        """Visual tokens of so many events where they have tokens of their own, one each at least.

        Those of single cells grow with the square root of the events, which of what was tried loses least at the
        same mean (docs/log.md).

        Args:
            events: How many.
        """
        assert self.tokens_per_event is not None, "events have no tokens of their own"
        if self.rule is None:
            return events * self.tokens_per_event
        return max(events, ceil(self.tokens_per_event * sqrt(events)))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> CompressionConfig:
        """Builds a configuration from JSON or YAML.

        Raises:
            ValueError: If a key is unknown or a value out of range; the message names it.
        """
        known = [field.name for field in fields(cls)]
        unknown = sorted(set(values) - set(known))
        if unknown:
            raise ValueError(
                f"unknown compression option {', '.join(unknown)}; known are {', '.join(known)}, and budget where "
                "these replace others"
            )
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as JSON-serialisable values."""
        return asdict(self)


def parse_budget(text: str, base: CompressionConfig) -> CompressionConfig:
    """The compression that a budget stands for.

    Args:
        text: See the module's docstring.
        base: Gives every other option, for ``tokens:N`` the layout too; what it says of a budget is replaced, but for
            a limit on the prompt beside another budget.

    Raises:
        ValueError: If the text is no budget.
    """
    match = _BUDGET.fullmatch(text)
    if match is None:
        raise ValueError(
            f"unknown budget {text!r}: it must be full, auto, auto:N, events, frames, events:N, frames:N, tokens:N, "
            f"prompt:N, or a rule or rule:N of {', '.join(RULES)}, with N >= 1"
        )
    if text == "full":
        return replace(base, target_frames=None, tokens_per_event=None)
    base = _without_budget(base)
    if match["mark"] == "-":
        new = text.replace("-", ":")
        warnings.warn(f"the budget {text} is now written {new}", FutureWarning, stacklevel=2)
    if match["auto"]:
        own: Any = "events" if base.rule is None else base.layout
        each = int(match["each"] or _auto(base.rule is not None))
        frames = base.target_frames or 1
        return replace(base, layout=own, target_frames=frames, visual_tokens=None, tokens_per_event=each)
    if match["prompt"]:
        most = int(match["prompt"])
        grids = base.target_frames or 1
        return replace(base, target_frames=grids, visual_tokens=most, prompt_tokens=most)
    if match["tokens"]:
        return replace(base, target_frames=base.target_frames or 1, visual_tokens=int(match["tokens"]))
    layout: Any = match["layout"]
    return replace(base, layout=layout, target_frames=int(match["grids"] or 1), visual_tokens=None)


def budget_name(config: CompressionConfig) -> str:
    """The budget of a configuration: what `parse_budget` makes it from, given its other options."""
    if config.target_frames is None:
        return "full"
    if config.prompt_tokens is not None and config.prompt_tokens == config.visual_tokens:
        return f"prompt:{config.prompt_tokens}"
    if config.tokens_per_event is not None:
        return f"auto:{config.tokens_per_event}"
    if config.visual_tokens is not None:
        return f"tokens:{config.visual_tokens}"
    return f"{config.layout}:{config.target_frames}"


def budget_fields(budget: str, layout: str | None = None) -> tuple[str, ...]:
    """The fields of `CompressionConfig` that are left no say beside a budget.

    Args:
        budget: The budget.
        layout: What is given as layout beside it, if anything: ``auto`` leaves it as it is, but for ``frames``.
    """
    own = ("target_frames", "visual_tokens", "tokens_per_event")
    if budget.startswith("prompt"):
        return (*own, "prompt_tokens")
    keeps_layout = budget.startswith("tokens") or (budget.startswith("auto") and layout not in (None, "frames"))
    return own if keeps_layout else ("layout", *own)


def _without_budget(config: CompressionConfig) -> CompressionConfig:
    """A configuration whose budget is what its ``target_frames`` cost."""
    is_prompts = config.prompt_tokens is not None and config.prompt_tokens == config.visual_tokens
    most = None if is_prompts else config.prompt_tokens
    return replace(config, tokens_per_event=None, visual_tokens=None, prompt_tokens=most)


def override_compression(compression: CompressionConfig, overrides: Mapping[str, Any]) -> CompressionConfig:
    """Replaces options of a configuration.

    A new ``target_frames`` is the budget, whatever that was before. Tokens of each event mean other things with single
    cells than without, and nothing with ``frames``: beside a layout of another kind they are that kind's `AUTO`.

    Args:
        compression: Which one.
        overrides: Fields, or ``budget`` instead of those that it sets.

    Raises:
        ValueError: If a name is unknown or a value out of range.
    """
    if not isinstance(overrides, Mapping):
        raise ValueError(f'a compression is given by options, such as {{"budget": "prompt:200"}}, got {overrides!r}')
    changes = dict(overrides)
    budget = changes.pop("budget", None)
    CompressionConfig.from_dict(changes)
    if budget is None:
        return replace(compression, **{**_outdated(compression, changes), **changes})
    if void := [name for name in budget_fields(budget, changes.get("layout")) if name in changes]:
        raise ValueError(f"the budget {budget} leaves nothing for {', '.join(void)}; leave one of them out")
    return parse_budget(budget, replace(_without_budget(compression), **changes))


def _outdated(compression: CompressionConfig, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a budget that changes to others leave nothing of, with what they are then."""
    if changes.get("target_frames") is not None:
        bare = _without_budget(compression)
        return {name: getattr(bare, name) for name in ("visual_tokens", "tokens_per_event", "prompt_tokens")}
    layout = changes.get("layout", compression.layout)
    was_of_cells, is_of_cells = compression.rule is not None, layout in RULES
    if compression.tokens_per_event is None or (was_of_cells == is_of_cells and layout != "frames"):
        return {}
    return {"tokens_per_event": None if layout == "frames" else _auto(is_of_cells)}


def _auto(of_cells: bool) -> int:
    """N of the budget ``auto``."""
    return AUTO_CELLS if of_cells else AUTO


def _tower_layer(value: Any) -> int | Schedule | None:
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 1):
        return value
    try:
        schedule = tuple(sorted((int(layer), int(grids)) for layer, grids in dict(value).items()))
    except (TypeError, ValueError):
        schedule = ()
    falling = all(later[1] < earlier[1] for earlier, later in pairwise(schedule))
    if not schedule or not falling or schedule[0][0] < 1 or schedule[-1][1] < 1:
        raise OptionError(
            "tower_layer",
            "must be a number of tower blocks >= 1, a schedule {blocks: grids} with ever fewer grids, or none, "
            f"got {value!r}",
            "compression.",
        )
    return schedule
