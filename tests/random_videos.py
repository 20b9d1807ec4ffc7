"""Encoded videos of random features, for the rules of `marc.compression.rivals`."""

import torch

from marc.compression.rivals.rule import EncodedVideo


def random_video(
    grids: int, height: int, width: int, channels: int, *, seed: int, dtype: torch.dtype = torch.float32
) -> EncodedVideo:
    """Cells that change little from grid to grid, except at cuts; attention and keys with everything."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    cuts = torch.rand(grids, generator=generator) < 0.3
    scenes = cuts.cumsum(0)
    cells = height * width
    tokens = normal(grids + 1, cells, channels)[scenes] + 0.5 * normal(grids, cells, channels)
    attention = (2 * normal(grids, cells)).softmax(-1)
    keys = normal(grids, cells, 5)
    return EncodedVideo(tokens.to(dtype), (height, width), scenes.tolist(), attention, keys)
