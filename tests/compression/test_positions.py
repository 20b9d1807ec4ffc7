"""Positions, against numbers worked out by hand."""

import pytest
import torch

from marc.compression import CompressionConfig, plan_video
from marc.compression.plan import VideoPlan
from marc.compression.positions import text_position, video_positions


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


def test_what_merges_by_similarity_is_spread_evenly():
    """64 frames of one event are 32 grids; two that remain stand at grids 7.5 and 23.5 of 0 to 31."""
    plan = plan_video(32, (1, 2), CompressionConfig(layout="frames", target_frames=2))
    times, rows, columns = video_positions(plan, [float(index) for index in range(32)], tokens_per_second=2).tolist()
    assert times == [15, 15, 47, 47]
    assert rows == [0] * 4
    assert columns == [0, 1, 0, 1]


@pytest.mark.parametrize(("text_after", "expected"), [("grid", 8), ("published", 66)])
def test_text_goes_on_by_the_familys_rule(text_after, expected):
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
