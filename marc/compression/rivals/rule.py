"""What a rule is, which there are, and what goes into one and comes out. Importing this loads no torch.

Shapes: T temporal grids, P cells a grid, D channels of a token, K channels of a key, N tokens that are kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from marc.compression.cells import Size

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class EncodedVideo:
    """One video behind the vision tower and its 2 x 2 merger.

    Attributes:
        tokens: ``[T, P, D]``, any floating type.
        size: ``(height, width)`` of a grid in cells; ``height * width = P``.
        events: Event id of each grid, non-decreasing.
        attention: ``[T, P]``, mean attention that each cell receives in the tower's last block of full attention;
            ``None`` where the rule does not want it.
        keys: ``[T, P, K]``, that block's keys of each cell, averaged over its patches and over heads; likewise.
        standing: ``int64 [T, P]``, at which cell of its grid the token stands that each cell became part of inside the
            tower; those of one token have equal ``tokens``. ``None``: the tower has merged nothing.
        shares: Tokens for each event, in time order; ``None``: the rule shares out what it keeps as it likes.
    """

    tokens: Tensor
    size: Size
    events: Sequence[int]
    attention: Tensor | None = None
    keys: Tensor | None = None
    standing: Tensor | None = None
    shares: Sequence[int] | None = None


@dataclass(frozen=True)
class KeptTokens:
    """What the language model gets of a video.

    Attributes:
        tokens: ``[N, D]``, in the type of the video's tokens and in the order of their places.
        places: ``int64 [N]``, ascending: ``t * P + p`` of the grid and cell at which each token stands.
    """

    tokens: Tensor
    places: Tensor


@dataclass(frozen=True)
class Rule:
    """A rule that reduces a video to a number of tokens that is known before any feature is.

    Attributes:
        name: What options call it.
        function: ``module:function`` that carries it out, see `keep`.
        source: The publication, with its arXiv number, or what the rule does.
        wants_attention: Whether it reads `EncodedVideo.attention`.
        wants_keys: Whether it reads `EncodedVideo.keys`.
        merges_inside: Whether it merges cells of a grid inside a tower that can, see `EncodedVideo.standing`.
        takes_shares: Whether it can be told how many tokens each event is to have, see `EncodedVideo.shares`.
        least_of_a_grid: Tokens that it keeps of every grid at least.
        least_grids: Grids that it keeps whole at least.
        most_grids: As many tokens as so many grids have are the most that it keeps; ``None``: all.
    """

    name: str
    function: str
    source: str
    wants_attention: bool = False
    wants_keys: bool = False
    merges_inside: bool = False
    takes_shares: bool = False
    least_of_a_grid: int = 0
    least_grids: int = 0
    most_grids: int | None = None

    @property
    def wants_more(self) -> bool:
        """Whether it wants more of the vision tower than its tokens."""
        return self.wants_attention or self.wants_keys or self.merges_inside

    def count(self, grids: int, cells: int, budget: int) -> int:
        """Tokens that will be kept: the budget, but no fewer than the rule can and no more than there are.

        Args:
            grids: T, at least 1.
            cells: P, at least 1.
            budget: At least 1.
        """
        least = max(1, grids * min(self.least_of_a_grid, cells), min(self.least_grids, grids) * cells)
        most = grids if self.most_grids is None else min(self.most_grids, grids)
        return min(most * cells, max(least, budget))

    def keep(self, video: EncodedVideo, count: int) -> KeptTokens:
        """Reduces a video.

        What is kept or merged is decided without gradients and in float32 at least; gradients reach every token with
        the weight that it has in the result. Where all are kept, they stay as they are.

        Args:
            video: With what the rule wants.
            count: From `count`.

        Raises:
            ValueError: If the count is not one that the rule can keep, or what it wants is missing.
        """
        grids, cells, _ = video.tokens.shape
        if self.count(grids, cells, count) != count:
            least = self.count(grids, cells, 1)
            most = self.count(grids, cells, grids * cells)
            raise ValueError(f"the rule {self.name} keeps {least} to {most} tokens of this video, not {count}")
        if self.wants_attention and video.attention is None:
            raise ValueError(f"the rule {self.name} wants the vision tower's attention: give EncodedVideo.attention")
        if self.wants_keys and video.keys is None:
            raise ValueError(f"the rule {self.name} wants the vision tower's keys: give EncodedVideo.keys")
        if count == grids * cells:
            return _all(video)
        module, name = self.function.split(":")
        kept: KeptTokens = getattr(import_module(module), name)(video, count)
        return kept


def _all(video: EncodedVideo) -> KeptTokens:
    import torch

    tokens = video.tokens.flatten(0, 1)
    return KeptTokens(tokens, torch.arange(len(tokens), device=tokens.device))


LAST_GRIDS = 2
"""The four frames of SimpleStream."""

_HERE = "marc.compression.rivals"
_RULES = (
    Rule("random", f"{_HERE}.plain:random", "cells drawn at random, with a fixed seed"),
    Rule("uniform", f"{_HERE}.plain:uniform", "whole grids, evenly spaced"),
    Rule("tiny", f"{_HERE}.plain:tiny", "every grid, pooled"),
    Rule("last", f"{_HERE}.plain:last", "SimpleStream, arXiv 2604.02317", most_grids=LAST_GRIDS),
    Rule("details", "marc.compression.details:keep", "ours: cells as they are, half unusual", takes_shares=True),
    Rule("dycoke", f"{_HERE}.dycoke:keep", "DyCoke, arXiv 2411.15024", least_grids=1),
    Rule("evs", f"{_HERE}.evs:keep", "Efficient Video Sampling, arXiv 2510.14624", least_grids=1),
    Rule("fastvid", f"{_HERE}.fastvid:keep", "FastVID, arXiv 2503.11187", wants_attention=True, least_of_a_grid=1),
    Rule("holitom", f"{_HERE}.holitom:keep", "HoliTom, arXiv 2505.21334", wants_attention=True),
    Rule(
        "prumerge",
        f"{_HERE}.prumerge:keep",
        "LLaVA-PruMerge, arXiv 2403.15388",
        wants_attention=True,
        wants_keys=True,
        least_of_a_grid=1,
    ),
    Rule("sttm", f"{_HERE}.sttm:keep", "STTM, arXiv 2507.07990"),
    Rule("tome", f"{_HERE}.tome:keep", "Token Merging, arXiv 2210.09461", merges_inside=True, least_of_a_grid=1),
    Rule("vidcom2", f"{_HERE}.vidcom2:keep", "VidCom2, arXiv 2505.14454", least_of_a_grid=1),
    Rule(
        "visionzip",
        f"{_HERE}.visionzip:keep",
        "VisionZip, arXiv 2412.04467",
        wants_attention=True,
        wants_keys=True,
        least_of_a_grid=1,
    ),
)
RULES: Mapping[str, Rule] = {rule.name: rule for rule in _RULES}
