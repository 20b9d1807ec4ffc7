"""Parts of the tower: in a row they are the tower."""

import pytest
import torch
from tiny_inputs import noise, video_inputs

from marc.model.qwen2_5_vl.vision import tower_part


@pytest.mark.parametrize("cut", [1, 2])
def test_parts_in_a_row_are_the_tower(tiny, cut):
    model, processor = tiny()
    tower, inputs = model.model.visual, video_inputs(processor, ["<video>"], [noise(16, 1)])
    grid_thw = torch.cat([inputs["video_grid_thw"], torch.tensor([(1, 4, 4)])])
    pixels = inputs["pixel_values_videos"]
    pixels = torch.cat([pixels, pixels[:16]])
    with torch.no_grad():
        whole = tower(pixels, grid_thw=grid_thw).pooler_output
        hidden = tower_part(tower, 0, cut)(pixels, grid_thw=grid_thw).pooler_output
        if cut < len(tower.blocks):
            hidden = hidden.reshape(-1, tower.config.hidden_size)
            hidden = tower_part(tower, cut, len(tower.blocks))(hidden, grid_thw=grid_thw).pooler_output
    assert torch.equal(hidden, whole)
    assert len(tower.blocks) == 2, "the tower itself is left alone"
