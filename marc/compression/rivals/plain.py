"""Rules that look at no feature: random cells, whole grids evenly spaced, every grid pooled, the last four frames.

They say what any other rule is worth. What a budget cannot spend on whole grids goes to a pooled one.
"""

from __future__ import annotations

import torch

from marc.compression.rivals.merging import as_they_are, evenly, pooled
from marc.compression.rivals.rule import LAST_GRIDS, EncodedVideo, KeptTokens
from marc.compression.shares import level

SEED = 0


def random(video: EncodedVideo, count: int) -> KeptTokens:
    """Keeps cells drawn without replacement, of all grids alike; the same ones for videos of one shape."""
    grids, cells, _ = video.tokens.shape
    order = torch.randperm(grids * cells, generator=torch.Generator().manual_seed(SEED), device="cpu")
    return as_they_are(video, order[:count].to(video.tokens.device))


def uniform(video: EncodedVideo, count: int) -> KeptTokens:
    """Keeps grids evenly spaced in time, as many as the budget pays for; what is left pays for a pooled one more."""
    grids, cells, _ = video.tokens.shape
    whole, rest = divmod(count, cells)
    tokens = [cells] * whole + [rest] * (rest > 0)
    return pooled(video, evenly(len(tokens), grids), tokens)


def tiny(video: EncodedVideo, count: int) -> KeptTokens:
    """Pools every grid to an equal part of the budget; below one token a grid, as many grids evenly spaced."""
    grids, cells, _ = video.tokens.shape
    kept = min(grids, count)
    return pooled(video, evenly(kept, grids), level(count, kept, cells))


def last(video: EncodedVideo, count: int) -> KeptTokens:
    """Keeps the last four frames (SimpleStream, arXiv 2604.02317), which two temporal grids show.

    A budget below theirs pools them alike; a larger one is not spent, as that is the rule.
    """
    grids, cells, _ = video.tokens.shape
    shown = min(LAST_GRIDS, grids, count)
    return pooled(video, range(grids - shown, grids), level(count, shown, cells))
