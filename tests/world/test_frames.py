"""Micro-world videos from memory are those of the files."""

import numpy as np
import pytest

from marc.model.tiny import build_processor
from marc.training.reader import VisualReader, VisualSource
from marc.video.sources import VideoFiles
from marc.world.export import write_world_video
from marc.world.frames import WorldFrames, video_of, world_rows
from marc.world.scenes import sample_video


@pytest.mark.parametrize(
    ("name", "frames"), [("easy-test-0-000003", 64), ("hard-test-1-000000", 16), ("arena-test-0-000000", 16)]
)
def test_memory_and_file_agree(name, frames, tmp_path):
    path = tmp_path / f"{name}.mp4"
    write_world_video(video_of(name), path)
    limits = VisualReader(build_processor(max_pixels=112 * 224 if "arena" in name else None)).limits
    drawn, read = WorldFrames(max_frames=frames), VideoFiles(max_frames=frames)
    ours, theirs = drawn.read(name, limits), read.read(str(path), limits)
    assert len(ours) == len(theirs) == frames
    np.testing.assert_allclose(ours.seconds, theirs.seconds, atol=1e-6)
    np.testing.assert_allclose(drawn.shape(name, limits).seconds, read.shape(str(path), limits).seconds)
    assert np.abs(ours.rgb.astype(int) - theirs.rgb.astype(int)).mean() < 8, "but for the codec's losses"


def test_names():
    video = sample_video("hard", "train", 3, 12)
    assert video_of(video.name) == video
    with pytest.raises(ValueError, match=r"clip\.mp4: not a micro-world video"):
        video_of("clip.mp4")


def test_rows_name_their_videos_and_know_their_events():
    rows = world_rows(videos=3, questions=5, first=7)
    assert len(rows) == 15 and len({row.problem_id for row in rows}) == 15
    assert sorted({row.path for row in rows}) == [sample_video("easy", "train", 0, i).name for i in (7, 8, 9)]
    reader = VisualReader(build_processor(), WorldFrames())
    for row in rows[::5]:
        visual = reader.read(VisualSource("video", row.path, row.cuts))
        events = len(video_of(row.path).events)
        assert visual.events is not None and set(visual.events) == set(range(events))
        assert visual.events == tuple(video_of(row.path).event_of_frame[::2])
    colours = world_rows(videos=10, questions=8, kinds=["colour"])
    assert colours and len(colours) < 80


def test_limits_that_forbid_the_worlds_frames_are_refused():
    reader = VisualReader(build_processor(), WorldFrames(), max_pixels=14 * 14)
    with pytest.raises(ValueError, match="28 x 28"):
        reader.read(VisualSource("video", "easy-test-0-000003"))
