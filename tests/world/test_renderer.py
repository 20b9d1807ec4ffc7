"""Pixels show what the record says."""

import torch

from marc.world.renderer import RGB, background_patterns, render_video, shape_masks
from marc.world.scenes import COLOURS, SIZE, SPEED, STEPS, sample_video


def moving_pixels(frame: torch.Tensor, colour: str) -> torch.Tensor:
    paint = torch.tensor([round(255 * value) for value in RGB[colour]])
    return (frame == paint).all(-1)


def test_every_frame_shows_its_object_where_it_should_be() -> None:
    for index in range(40):
        video = sample_video("easy", "test", 0, index)
        frames = render_video(video).int()
        assert frames.shape == (video.frame_count, SIZE, SIZE, 3)
        begin = 0
        for event in video.events:
            item = event.objects[0]
            first = moving_pixels(frames[begin], item.colour)
            assert 20 < first.sum() < 130
            step = [SPEED * part for part in STEPS[item.direction]]
            for time in range(1, 2 * event.grids):
                shifted = first.roll([time * step[0], time * step[1]], (0, 1))
                assert torch.equal(moving_pixels(frames[begin + time], item.colour), shifted)
            begin += 2 * event.grids


def test_backgrounds_shapes_and_colours_differ() -> None:
    for table in (background_patterns(), shape_masks()):
        flat = table.flatten(1)
        assert (torch.cdist(flat, flat, p=1) + 1e3 * torch.eye(len(flat))).min() > 10
    assert set(RGB) == set(COLOURS) and len(set(RGB.values())) == len(COLOURS)


def test_scale_repeats_pixels() -> None:
    video = sample_video("easy", "test", 0, 1)
    assert torch.equal(render_video(video, scale=3)[:, ::3, ::3], render_video(video))
    assert render_video(video, scale=3).shape[1:3] == (3 * SIZE, 3 * SIZE)


def test_hard_videos_dissolve_and_hold_several_objects() -> None:
    videos = [sample_video("hard", "test", 0, index) for index in range(30)]
    assert {video.dissolve for video in videos} == {0, 2, 4}
    assert max(len(event.objects) for video in videos for event in video.events) == 3
    video = next(video for video in videos if video.dissolve == 4)
    frames, cut = render_video(video).float(), 2 * video.events[0].grids
    before, after = frames[cut - 3], frames[cut + 2]
    for place, frame in enumerate(frames[cut - 2 : cut + 2], start=1):
        mixed = before * (1 - place / 5) + after * (place / 5)
        assert (frame - mixed).abs().max() <= 1
