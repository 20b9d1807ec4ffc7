"""What compression will do to a video, decided before the model runs: how many tokens, how large, at which times.

Everything here follows from the video's size, its event ids and the configuration alone, so that the processor can
write the right number of placeholders and the model can compute positions without having seen a single feature. Plain
Python; the tensor mathematics that carries a plan out is in `marc.compression.merge`.

Terms: a *temporal grid*, short *grid*, is what the vision tower makes of two sampled frames; a *cell* is one visual
token of it, after the tower's 2 x 2 patch merger; the *size* of a grid is its height and width in cells.

Where a rule from the literature is the layout, the number of tokens is known beforehand, too, but not their places.

The published method (memory-aware temporal compression) is ``layout="frames"``. Deviation: ``layout="events"`` spends
the same number of tokens on one small grid per event, in time order.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, groupby, pairwise, repeat
from math import ceil
from typing import NamedTuple

from marc.compression.cells import Cells, Size, fit_cells, token_count
from marc.compression.config import CompressionConfig, Merge, Schedule
from marc.compression.renamed import renamed, renamed_arguments
from marc.compression.shares import event_tokens, in_proportion, level


class Window(NamedTuple):
    """A run of grids inside which stage 1 merges: ``length`` grids from ``start`` on, of which ``keep`` remain."""

    start: int
    length: int
    keep: int


@dataclass(frozen=True)
class VideoPlan:
    """What becomes of one video.

    Attributes:
        grids: T, the temporal grids before.
        size: Of a grid before.
        windows: Stage 1, covering all grids in order.
        cells: Stage 2 and pooling: how every grid that remains is divided, in time order.
        merge: See `CompressionConfig`.
        tower: What is done of it inside the vision tower: after how many blocks, and a plan for the grids that are
            there then. Empty: nothing.
        budget: The visual tokens that it might have had.
        most_grids: The grids that the prompt had room for; ``None``: any number.
        rule: Of `marc.compression.rivals`, if one chooses the tokens: one division of as many cells as these, whose
            places are known when it has seen the video.
        shares: With such a rule, the tokens of each event, if it was told.
    """

    grids: int
    size: Size
    windows: tuple[Window, ...]
    cells: tuple[Cells, ...]
    merge: Merge
    tower: tuple[tuple[int, VideoPlan], ...] = ()
    budget: int | None = field(default=None, compare=False)
    most_grids: int | None = field(default=None, compare=False)
    rule: str | None = None
    shares: tuple[int, ...] | None = None

    frames = renamed("grids")
    grid = renamed("size")

    @classmethod
    def whole(cls, grids: int, size: Size) -> VideoPlan:
        """The plan that leaves a video as it is."""
        return cls(grids, size, _singles(grids), (size,) * grids, "weighted")

    @property
    def tokens(self) -> int:
        """Visual tokens that remain."""
        return sum(map(token_count, self.cells))

    @property
    def tokens_before(self) -> int:
        """Visual tokens without compression."""
        return self.grids * self.size[0] * self.size[1]

    @property
    def merges(self) -> bool:
        """Whether any grids merge."""
        return len(self.cells) < self.grids

    @property
    def after_tower(self) -> VideoPlan:
        """What is left to do after the tower: a plan for the grids that remain then."""
        if not self.tower:
            return self
        inside = self.tower[-1][1]
        remaining = len(inside.cells)
        windows = _runs([window.keep for window in inside.windows], [window.keep for window in self.windows])
        if sum(window.length for window in windows) != remaining:
            windows = _singles(remaining)
        return VideoPlan(remaining, self.size, windows, self.cells, self.merge)

    @property
    def one_grid_per_window(self) -> bool:
        """Whether stage 1 alone decides which grids merge, so that every merged grid's time is known beforehand."""
        return len(self.cells) == len(self.windows) and all(window.keep == 1 for window in self.windows)

    @property
    def centers(self) -> tuple[float, ...]:
        """Grid index of every grid that remains: an event's mean where that is known, else evenly over the clip."""
        if self.one_grid_per_window:
            return tuple(start + (length - 1) / 2 for start, length, _ in self.windows)
        return tuple((index + 0.5) * self.grids / len(self.cells) - 0.5 for index in range(len(self.cells)))

    def seconds(self, grid_seconds: Sequence[float]) -> list[float]:
        """Times of `centers`.

        Args:
            grid_seconds: Time of each of the T grids, in seconds.

        Returns:
            The time of every grid that remains: the mean over an event's grids, or interpolated where the grids are
            evenly spread.
        """
        assert len(grid_seconds) == self.grids
        if self.one_grid_per_window:
            return [sum(grid_seconds[start : start + n]) / n for start, n, _ in self.windows]
        last = self.grids - 1
        below = [min(int(center), last) for center in self.centers]
        above = [min(index + 1, last) for index in below]
        return [
            grid_seconds[a] + (center - a) * (grid_seconds[b] - grid_seconds[a])
            for center, a, b in zip(self.centers, below, above, strict=True)
        ]


@renamed_arguments(frames="grids", grid="size")
def plan_video(
    grids: int,
    size: Size,
    config: CompressionConfig,
    *,
    events: Sequence[int] | None = None,
    shares: Sequence[int] | None = None,
    limit: tuple[int, int] | None = None,
) -> VideoPlan:
    """Decides how a video is compressed.

    The event layout spends the budget, or the shares, to the last token, or there are no more: an event that has more
    than a whole grid's tokens becomes several grids, one behind the other. The published one keeps whole grids, or one
    that is pooled to a budget below its cost.

    Args:
        grids: T, number of temporal grids.
        size: ``(height, width)`` of a grid in cells.
        config: The options; must be enabled.
        events: Event id of each grid, non-decreasing. ``None``: each grid is an event by itself in the event layout,
            and the whole video is one in the other, whose windows then run through it.
        shares: Tokens for each event, in layouts that take them, each at least 1 and together within the budget.
            ``None``: equal in the event layout, and as it likes with a rule. See `marc.compression.shares`.
        limit: Visual tokens and grids that the prompt has room for, see `fit_into_prompt`; shares are scaled to them,
            and void where there is no room for a grid of each event, or a token with a rule.

    Raises:
        ValueError: If events or shares do not fit the video or the budget.
    """
    assert config.enabled
    assert config.target_frames is not None
    cost = size[0] * size[1]
    lengths = event_lengths(event_ids(grids, config, events), grids)
    given = config.token_budget(cost, len(lengths))
    if config.tokens_per_event is not None and shares is not None:
        given = sum(shares) if config.visual_tokens is None else min(sum(shares), config.visual_tokens)
    budget, most = (given, grids) if limit is None else (min(given, limit[0]), limit[1])
    room = None if limit is None else limit[1]
    shares = _checked_shares(shares, len(lengths), given) if config.takes_shares else None
    if config.rule is not None:
        own = _shares_of_a_rule([length * cost for length in lengths], shares, budget)
        cells = ((1, config.rule.count(grids, cost, budget) if own is None else sum(own)),)
        windows = _runs(lengths, repeat(1))
        return VideoPlan(grids, size, windows, cells, config.merge, (), budget, room, config.layout, own)
    if config.layout == "frames":
        windows = tuple(_windows(lengths, window=config.window, ratio=config.ratio))
        kept = min(sum(window.keep for window in windows), config.target_frames, max(1, budget // cost), most)
        tokens = [min(cost, budget)] * kept
    else:
        if (kept := min(len(lengths), budget, most)) < len(lengths):
            tokens = level(budget, kept, cost)
        else:
            per_event = event_tokens(lengths, cost, budget, shares=shares, most_grids=most)
            lengths, tokens = _parts(lengths, per_event, cost)
            kept = len(lengths)
        windows = tuple(_windows(lengths, window=None, ratio=0.0))
    divisions = tuple(fit_cells(size, each) for each in tokens)
    tower = tuple(_tower_stages(grids, size, windows, kept, config))
    return VideoPlan(grids, size, windows, divisions, config.merge, tower, budget, room)


def grid_cost(overhead: int) -> int:
    """Tokens of a prompt for which a grid has room in it: what stands beside its visual ones takes half at most.

    Else many grids of one token would be dated, and hardly anything seen.

    Args:
        overhead: What a grid costs beside its visual tokens.
    """
    return max(1 + overhead, 2 * overhead)


def most_grids(prompt_tokens: int, overhead: int) -> int:
    """Grids of a video for which there is room in a prompt; at least one.

    Args:
        prompt_tokens: For the video, without the marks around it.
        overhead: What a grid costs beside its visual tokens.
    """
    return max(1, prompt_tokens // grid_cost(overhead))


def fit_into_prompt(plan_at: Callable[[int], VideoPlan], cost: Callable[[VideoPlan], int], most: int) -> int:
    """The visual tokens that a video may have so that it costs no more than so many tokens in the prompt.

    Args:
        plan_at: The plan at a limit on the visual tokens.
        cost: Prompt tokens of a plan.
        most: ``prompt_tokens``.

    Raises:
        ValueError: If one visual token already costs more.
    """
    fitting = bisect_right(range(1, most + 1), most, key=lambda limit: cost(plan_at(limit)))
    while fitting and cost(plan_at(fitting)) > most:  # times in words differ in length
        fitting -= 1
    if fitting == 0:
        raise ValueError(
            f"a budget of {most} tokens in the prompt: a video costs at least {cost(plan_at(1))}; "
            "raise --prompt-tokens or prompt:N"
        )
    return fitting


def _shares_of_a_rule(room: Sequence[int], shares: Sequence[int] | None, budget: int) -> tuple[int, ...] | None:
    """Tokens of each event, which has so many cells; None where the rule shares out, or there is no token for each."""
    if shares is None or budget < len(room):
        return None
    return tuple(in_proportion(shares, room, min(budget, sum(shares))))


def _tower_stages(
    grids: int, size: Size, windows: tuple[Window, ...], kept: int, config: CompressionConfig
) -> Iterator[tuple[int, VideoPlan]]:
    """Merges at full resolution inside the tower.

    In the event layout every stage leaves so many grids of each event. In the other one the first obeys the windows,
    later ones go across them.
    """
    if config.tower_layer is None:
        return
    by_event = config.layout == "events"
    if isinstance(config.tower_layer, int):
        schedule: Schedule = ((config.tower_layer, 1 if by_event else kept),)
    else:
        schedule = config.tower_layer
    for layer, limit in schedule:
        if by_event:
            windows = _runs([window.length for window in windows], repeat(limit))
            left = sum(window.keep for window in windows)
        else:
            left = min(sum(window.keep for window in windows), max(limit, kept))
        yield layer, VideoPlan(grids, size, windows, (size,) * left, config.merge)
        grids = left
        windows = _runs([window.keep for window in windows], repeat(1)) if by_event else _singles(left)


def _runs(lengths: Sequence[int], keeps: Iterable[int]) -> tuple[Window, ...]:
    """Windows of the given lengths, one after the other, of which at most so many grids remain."""
    starts = accumulate(lengths, initial=0)
    runs = zip(starts, lengths, keeps, strict=False)
    return tuple(Window(start, length, min(length, keep)) for start, length, keep in runs)


def _singles(grids: int) -> tuple[Window, ...]:
    return tuple(Window(index, 1, 1) for index in range(grids))


def event_ids(grids: int, config: CompressionConfig, events: Sequence[int] | None = None) -> Sequence[int]:
    """The event of each temporal grid: as given, else each by itself in the event layout and all in one otherwise."""
    if events is not None:
        return events
    return range(grids) if config.layout == "events" else [0] * grids


def event_lengths(events: Sequence[int], grids: int) -> list[int]:
    """Number of grids of each event, in time order.

    Raises:
        ValueError: If there is not one id per grid, or the ids go back in time.
    """
    if len(events) != grids:
        raise ValueError(f"one event id per temporal grid is needed: got {len(events)} ids for {grids} grids")
    if any(later < earlier for earlier, later in pairwise(events)):
        raise ValueError(f"event ids must not go back in time, got {list(events)}")
    return [len(list(run)) for _, run in groupby(events)]


def _parts(lengths: Sequence[int], tokens: Sequence[int], cost: int) -> tuple[list[int], list[int]]:
    """Lengths and tokens of the grids that events become: several where an event has more than a whole grid's.

    All but the last of an event are whole; each stands for a stretch as long as its tokens are many.
    """
    parts: list[int] = []
    spent: list[int] = []
    for length, own in zip(lengths, tokens, strict=True):
        count = ceil(own / cost)
        sizes = [min(cost, own - index * cost) for index in range(count)]
        parts += in_proportion(sizes, [length] * count, length)
        spent += sizes
    return parts, spent


def _windows(lengths: Sequence[int], *, window: int | None, ratio: float) -> list[Window]:
    windows, start = [], 0
    for length in lengths:
        end = start + length
        while start < end:
            run = min(window or length, end - start)
            windows.append(Window(start, run, max(1, ceil(ratio * run))))
            start += run
    return windows


def _checked_shares(shares: Sequence[int] | None, events: int, budget: int) -> Sequence[int] | None:
    if shares is None:
        return None
    if len(shares) != events:
        raise ValueError(f"one share per event is needed: got {len(shares)} shares for {events} events")
    if any(share < 1 for share in shares):
        raise ValueError(f"every event needs a share of at least 1 token, got {list(shares)}")
    if sum(shares) > budget:
        raise ValueError(
            f"event shares {list(shares)} sum to {sum(shares)}, above the budget of {budget} visual tokens"
        )
    return shares
