"""Positions, against numbers worked out by hand."""

import pytest
import torch
from torch.nn.functional import pad

from marc.compression import CompressionConfig, plan_video
from marc.compression.plan import VideoPlan
from marc.compression.positions import VIDEO, block_positions, published_text_positions, text_position, video_positions


def test_an_uncompressed_video_counts_times_rows_and_columns():
    plan = VideoPlan.whole(2, (2, 3))
    times, rows, columns = video_positions(plan, [1.5, 4.0], tokens_per_second=2).tolist()
    assert times == [3] * 6 + [8] * 6
    assert rows == [0, 0, 0, 1, 1, 1] * 2
    assert columns == [0, 1, 2] * 4


def test_evenly_spaced_grids_need_one_number():
    plan = VideoPlan.whole(4, (1, 1))
    assert video_positions(plan, 1.0, tokens_per_second=25)[0].tolist() == [0, 25, 50, 75]
    assert video_positions(plan, 0.3, tokens_per_second=2)[0].tolist() == [0, 0, 1, 1], "fractions are cut off"


def test_events_stand_at_their_mean_times_and_cells_at_their_centres():
    """Of 4 x 4 cells: centres of 2 x 2 are places 1 and 3, that of one cell is place 2."""
    config = CompressionConfig(layout="events", visual_tokens=6)
    plan = plan_video(8, (4, 4), config, events=[0, 0, 0, 1, 1, 2, 2, 2], shares=[4, 1, 1])
    seconds = [0.0, 1.0, 2.0, 30.0, 31.0, 90.0, 91.0, 92.0]
    times, rows, columns = video_positions(plan, seconds, tokens_per_second=2).tolist()
    assert times == [2, 2, 2, 2, 61, 182], "twice 1, 30.5 and 91 seconds"
    assert rows == [1, 1, 3, 3, 2, 2]
    assert columns == [1, 3, 1, 3, 2, 2]


def test_cells_of_an_uneven_grid_stand_at_their_centres():
    """Of 4 x 6 cells five tokens: a row of three above a row of two."""
    plan = plan_video(1, (4, 6), CompressionConfig(visual_tokens=5))
    assert video_positions(plan, [1.0], tokens_per_second=2).tolist() == [[2] * 5, [1, 1, 1, 3, 3], [1, 3, 5, 1, 4]]
    assert block_positions(plan.cells[0]).tolist() == [[0] * 5, [0, 0, 0, 1, 1], [0, 1, 2, 0, 1]]
    assert block_positions((1, 2)).tolist() == [[0, 0], [0, 0], [0, 1]]


def test_what_merges_by_similarity_is_spread_evenly():
    """64 frames of one event are 32 grids; two that remain stand at grids 7.5 and 23.5 of 0 to 31."""
    plan = plan_video(32, (1, 2), CompressionConfig(layout="frames", target_frames=2))
    times, rows, columns = video_positions(plan, [float(index) for index in range(32)], tokens_per_second=2).tolist()
    assert times == [15, 15, 47, 47]
    assert rows == [0] * 4
    assert columns == [0, 1, 0, 1]


@pytest.mark.parametrize(("text_after", "expected"), [("grid", 8), ("published", 66)])
def test_text_goes_on_by_the_rule(text_after, expected):
    """64 frames, 2 a second, in grids of 4 x 8: the last grid is at 31 seconds plus its start, position 65 at most."""
    plan = VideoPlan.whole(32, (4, 8))
    seconds = [1.5 + index for index in range(32)]
    positions = video_positions(plan, seconds, tokens_per_second=2)
    assert positions[0].max() == 65
    assert text_position(positions, plan.size, text_after) == expected


def test_a_large_grid_outweighs_its_times():
    plan = VideoPlan.whole(1, (20, 30))
    positions = video_positions(plan, [0.0], tokens_per_second=4)
    assert positions.dtype == torch.long
    assert text_position(positions, plan.size, "published") == text_position(positions, plan.size, "grid") == 30


TEXT, IMAGE = 0, 1


def text(start, count):
    return TEXT, (start + torch.arange(count)).expand(3, -1)


def video(start, *times, size, kind=VIDEO):
    """A grid of that many rows and columns at each time, its first token at ``start``."""
    return kind, video_positions(VideoPlan.whole(len(times), size), times, tokens_per_second=1) + start


def moved(*parts, before=0, behind=0):
    """A row of such parts by the published rule, padded: its positions ``[3, L]`` without the padding."""
    kinds = torch.cat([torch.full((places.shape[1],), kind) for kind, places in parts])
    present = pad(torch.ones_like(kinds), (before, behind))
    positions = pad(torch.cat([places for _, places in parts], 1), (before, behind))
    result = published_text_positions(positions[:, None], pad(kinds, (before, behind))[None], present[None])
    assert result.dtype == torch.long
    assert not result[:, 0, present == 0].any(), "padding stays where it was"
    return result[:, 0, present == 1]


def joined(*parts):
    return torch.cat([places for _, places in parts], 1)


def test_the_question_about_a_minute_stands_behind_it():
    """64 frames, 2 a second, in a grid of 4 x 8: times 3 to 65. By the grid the question would be at 3 + 8."""
    clip = video(3, *range(0, 64, 2), size=(4, 8))
    assert clip[1].max() == 65
    assert torch.equal(moved(text(0, 3), clip, text(11, 4)), joined(text(0, 3), clip, text(66, 4)))


def test_videos_move_all_that_follows():
    """By 6 behind the first, which ends at 8 and not at 2; by 5 more behind the second."""
    by_grid = (text(0, 1), video(1, 0, 7, size=(2, 2)), text(3, 1), video(4, 0, 6, size=(1, 2)), text(6, 3))
    expected = joined(text(0, 1), video(1, 0, 7, size=(2, 2)), text(9, 1), video(10, 0, 6, size=(1, 2)), text(17, 3))
    assert torch.equal(moved(*by_grid), expected)


def test_pictures_are_moved_and_move_nothing():
    """One stands in front of the video and one right behind it, which ends at 14: it stands at 15 and not at 7."""
    picture = video(1, 0, size=(1, 3), kind=IMAGE)
    by_grid = (text(0, 1), picture, text(4, 1), video(5, 0, 9, size=(2, 2)), video(7, 0, size=(1, 3), kind=IMAGE))
    behind = video(15, 0, size=(1, 3), kind=IMAGE)
    expected = joined(text(0, 1), picture, text(4, 1), video(5, 0, 9, size=(2, 2)), behind, text(18, 2))
    assert torch.equal(moved(*by_grid, text(10, 2)), expected)
    alone = (text(0, 2), picture, text(5, 3))
    assert torch.equal(moved(*alone), joined(*alone))


@pytest.mark.parametrize("padding", [{"before": 3}, {"behind": 2}, {"before": 1, "behind": 4}])
def test_padding_is_no_text(padding):
    clip = video(1, 0, 5, size=(1, 1))
    assert torch.equal(moved(text(0, 1), clip, text(2, 2), **padding), joined(text(0, 1), clip, text(7, 2)))
    assert torch.equal(moved(text(0, 1), clip, **padding), joined(text(0, 1), clip)), "nothing follows"
    assert torch.equal(moved(clip, text(1, 1), **padding), joined(clip, text(7, 1)))


def test_rows_do_not_move_each_other():
    rows = [(text(0, 2), video(2, 0, 8, size=(1, 1)), text(3, 2)), (video(0, 0, 3, size=(1, 2)), text(2, 2))]
    kinds = torch.tensor([[TEXT, TEXT, VIDEO, VIDEO, TEXT, TEXT], [VIDEO] * 4 + [TEXT] * 2])
    positions = published_text_positions(torch.stack([joined(*row) for row in rows], 1), kinds, torch.ones(2, 6))
    for row, parts in enumerate(rows):
        assert torch.equal(positions[:, row], moved(*parts))


def test_what_stands_there_already_stays():
    """Should transformers number by the published rule one day, nothing is moved twice."""
    right = (text(0, 1), video(1, 0, 7, size=(2, 2)), text(9, 1), video(10, 0, size=(3, 2)), text(13, 2))
    assert torch.equal(moved(*right), joined(*right))
