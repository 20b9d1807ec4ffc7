"""Token merging inside the tower: stock where nothing merges, and block by block what plain loops say."""

from math import ceil

import pytest
import torch
from tiny_inputs import noise, video_inputs
from tiny_models import of

from marc.model.qwen2_5_vl.merging_cells import LeftCells, tower_that_merges


def pixels_of(processor, frames=6, width=112):
    inputs = video_inputs(processor, ["<video> What?"], [noise(frames, 1, width=width)])
    return inputs["pixel_values_videos"], inputs["video_grid_thw"]


@of("qwen2_5_vl")
def test_where_nothing_merges_it_is_the_stock_tower(tiny):
    model, processor = tiny()
    tower, (pixels, grid_thw) = model.model.visual, pixels_of(processor)
    cells = int(grid_thw[0, 1:].prod()) // 4
    with torch.no_grad():
        seen = tower_that_merges(tower, cells)(pixels, grid_thw).pooler_output
        assert torch.equal(seen[:, :-1], tower(pixels, grid_thw).pooler_output)
    assert torch.equal(seen[:, -1], torch.arange(cells).repeat(3).float())


@of("qwen2_5_vl")
def test_as_many_cells_are_left_as_were_asked_for(tiny):
    model, processor = tiny()
    tower, (pixels, grid_thw) = model.model.visual, pixels_of(processor)
    cells = int(grid_thw[0, 1:].prod()) // 4
    for left in (cells - 1, cells - 5, cells // 2, cells // 4, 1):
        with torch.no_grad():
            seen = tower_that_merges(tower, left)(pixels, grid_thw).pooler_output.unflatten(0, (3, cells))
        least = max(left, ceil(ceil(cells / 2) / 2))  # two blocks, each of which takes half at most
        for grid in seen:
            standing = grid[:, -1].long()
            assert len(standing.unique()) == least and torch.equal(standing[standing], standing)
            assert torch.equal(grid, grid[standing]), "cells of one token have its features"


@of("qwen2_5_vl")
def test_merging_what_is_equal_changes_nothing(tiny):
    """Of a picture of one colour all values are equal: whichever remain, everybody attends to the same."""
    model, processor = tiny()
    tower, (pixels, grid_thw) = model.model.visual, pixels_of(processor)
    pixels = pixels[:1].expand_as(pixels)
    with torch.no_grad():
        seen = tower_that_merges(tower, 3)(pixels, grid_thw).pooler_output
        torch.testing.assert_close(seen[:, :-1], tower(pixels, grid_thw).pooler_output)


def by_hand(rows, keys, merges):
    """The rows of one grid behind a block, each a list of cells: ``rows`` before, in plain loops."""
    unit = torch.nn.functional.normalize(keys, dim=-1)
    ours, theirs = range(0, len(rows), 2), range(1, len(rows), 2)
    match = {a: max(theirs, key=lambda b: float(unit[a] @ unit[b])) for a in ours}
    goes = sorted(ours, key=lambda a: -float(unit[a] @ unit[match[a]]))[:merges]
    merged = [list(row) for row in rows]
    for a in goes:
        merged[match[a]] += rows[a]
    return [row for index, row in enumerate(merged) if index not in goes]


def test_blocks_merge_the_most_similar_cells_by_their_keys_as_weighted_means():
    generator = torch.Generator().manual_seed(0)
    grids, count, unit = 3, 11, 4
    whole = torch.randn(grids * count, unit, 5, generator=generator, dtype=torch.float64)
    cells = LeftCells(unit)
    cells.begin(grids, count, 4, whole.device)
    patches = whole.flatten(0, 1)
    rows = [[[cell] for cell in range(count)] for _ in range(grids)]
    for blocks, merges in ((2, 4), (1, 3)):  # 11 - 4 = 7 in two blocks; half of what is left at most
        keys = torch.randn(len(patches), 6, generator=generator, dtype=torch.float64)
        patches = cells.merge(patches, keys, blocks)
        means = keys.unflatten(0, (grids, -1, unit)).mean(2).float()
        rows = [by_hand(own, mean, merges) for own, mean in zip(rows, means, strict=True)]
        expected = [whole[grid * count :][row].mean(0) for grid, own in enumerate(rows) for row in own]
        torch.testing.assert_close(patches.unflatten(0, (-1, unit)), torch.stack(expected))
        standing = [[grid * count + row[0] for row in own] for grid, own in enumerate(rows)]
        assert cells.rows.tolist() == standing
        assert cells.sizes.tolist() == [[len(row) for row in own] for own in rows]
        for grid, own in enumerate(rows):
            for row in own:
                assert {int(cells.members[grid * count + cell]) for cell in row} == {grid * count + row[0]}


def test_sequences_lose_the_patches_of_cells_that_are_gone():
    cells = LeftCells(2)
    cells.begin(2, 4, 1, torch.device("cpu"))
    cells.rows = torch.tensor([[0, 3], [6, 7]])
    assert cells.starts(torch.tensor([0, 4, 8, 12, 16], dtype=torch.int32)).tolist() == [0, 2, 4, 8]
    assert cells.starts(torch.tensor([0, 8, 16])).tolist() == [0, 4, 8]
    assert cells.of_patches(torch.arange(16)).tolist() == [0, 1, 6, 7, 12, 13, 14, 15]


@of("qwen2_5_vl")
def test_grids_of_several_sizes_are_refused(tiny):
    model, processor = tiny()
    pixels, grid_thw = pixels_of(processor)
    with pytest.raises(ValueError, match="several sizes"):
        tower_that_merges(model.model.visual, 4)(pixels, torch.cat((grid_thw, grid_thw * torch.tensor([1, 1, 2]))))
