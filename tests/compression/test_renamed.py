"""Names of before, which work for one release."""

import pytest
import torch

from marc.compression import CompressionConfig, compress, plan_video


def test_arguments_and_attributes_by_their_old_names():
    config = CompressionConfig(layout="events", visual_tokens=4)
    with pytest.warns(DeprecationWarning, match="frames is now called grids"):
        plan = plan_video(frames=4, grid=(2, 3), config=config)
    assert plan == plan_video(4, (2, 3), config)
    with pytest.warns(DeprecationWarning, match="is now called size"):
        assert plan.grid == (2, 3)
    with pytest.warns(DeprecationWarning, match="is now called grids"):
        assert plan.frames == 4
    tokens = torch.randn(4, 6, 5)
    with pytest.warns(DeprecationWarning, match="grid is now called size"):
        old = compress(tokens, config, grid=(2, 3))
    with pytest.warns(DeprecationWarning, match="is now called grids"):
        assert torch.equal(torch.cat(old.frames), compress(tokens, config, size=(2, 3)).flat)
