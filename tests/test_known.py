"""What is known of files, and that a change of theirs is never missed."""

import os

import numpy as np
import pytest
from PIL import Image

from marc.video import VideoError, probe, write_video
from marc.video.limits import limits_of
from marc.video.options import DecodeLimits
from marc.video.pictures import is_picture, picture_size
from marc.video.process import POOL


@pytest.fixture
def settled(monkeypatch):
    """Has files count as unchanged for long enough."""
    monkeypatch.setattr("marc.video.known.SETTLED_SECONDS", -60.0)


@pytest.fixture
def looks(monkeypatch):
    """Counts what the decoding process is asked."""
    asked, run = [], POOL.run

    def counted(job, *options):
        asked.append(type(job).__name__)
        return run(job, *options)

    monkeypatch.setattr(POOL, "run", counted)
    return asked


def some_video(path, frames=6):
    write_video(path, np.zeros((frames, 32, 32, 3), np.uint8), fps=3)
    return path


def test_a_file_is_looked_at_once(tmp_path, settled, looks):
    video = some_video(tmp_path / "a.mp4")
    Image.new("RGB", (8, 6)).save(tmp_path / "a.png")
    for _ in range(3):
        assert probe(video).duration == 2.0
        assert (is_picture(video), is_picture(tmp_path / "a.png")) == (False, True)
        assert picture_size(tmp_path / "a.png") == (8, 6)
    assert sorted(looks) == ["LookAtPicture", "LookAtPicture", "MeasurePicture", "Probe"]


def test_it_is_called_as_the_caller_calls_it(tmp_path, settled, monkeypatch):
    video = some_video(tmp_path / "a.mp4")
    monkeypatch.chdir(tmp_path)
    assert (probe(video).source, probe("a.mp4").source) == (str(video), "a.mp4")


@pytest.mark.parametrize("keep_times", [False, True])
def test_another_content_is_seen(tmp_path, settled, keep_times):
    video = some_video(tmp_path / "a.mp4")
    before = video.stat()
    assert probe(video).duration == 2.0
    some_video(video, 12)
    if keep_times:
        os.utime(video, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert probe(video).duration == 4.0


def test_what_has_just_changed_is_looked_at_again(tmp_path, looks):
    video = some_video(tmp_path / "a.mp4")
    probe(video), probe(video)
    assert looks == ["Probe", "Probe"]


def test_errors_are_not_kept_and_other_limits_are_asked_for_anew(tmp_path, settled):
    video = some_video(tmp_path / "a.mp4")
    probe(video)
    with limits_of(DecodeLimits(video_pixels=100)), pytest.raises(VideoError, match="at most 100"):
        probe(video)
    video.unlink()
    with pytest.raises(VideoError, match="there is no such file"):
        probe(video)
