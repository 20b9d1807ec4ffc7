"""EVS and VidCom2 keep the tokens that vLLM's functions of these names keep."""

from importlib.util import find_spec

import pytest
import torch
from random_videos import random_video

from marc.compression.rivals.rule import RULES

REASON = "needs vLLM: bash inference_script/setup_vllm.sh, then .venv-vllm/bin/python -m pytest -m vllm"
pytestmark = [pytest.mark.vllm, pytest.mark.skipif(find_spec("vllm") is None, reason=REASON)]


@pytest.mark.parametrize("name", ["evs", "vidcom2"])
@pytest.mark.parametrize("kept", [0.02, 0.1, 0.25, 0.5, 0.9])
@pytest.mark.parametrize("shape", [(1, 3, 4, 16), (7, 3, 4, 16), (16, 4, 6, 64), (32, 8, 16, 32)])
def test_the_same_tokens_are_kept(name, kept, shape):
    from vllm.multimodal.video_prune import evs, vidcom2

    module = {"evs": evs, "vidcom2": vidcom2}[name]
    grids, height, width, channels = shape
    cells = height * width
    video = random_video(grids, height, width, channels, seed=round(100 * kept))
    count = RULES[name].count(grids, cells, round(kept * grids * cells))
    pruned = 1 - count / (grids * cells)
    theirs = module.compute_retention_mask(
        video.tokens.reshape(-1, channels), (grids, 2 * height, 2 * width), spatial_merge_size=2, q=pruned - 1e-9
    )
    ours = RULES[name].keep(video, count)
    assert theirs.sum() == count
    assert torch.equal(theirs.nonzero().flatten(), ours.places)


@pytest.mark.parametrize("name", ["evs", "vidcom2"])
def test_the_least_budget_is_theirs(name):
    from vllm.multimodal.video_prune import evs, vidcom2

    module = {"evs": evs, "vidcom2": vidcom2}[name]
    for grids, cells in [(1, 9), (4, 12), (32, 128)]:
        least = module.compute_retained_tokens_count(tokens_per_frame=cells, num_frames=grids, q=0.999999)
        assert RULES[name].count(grids, cells, 1) == least
