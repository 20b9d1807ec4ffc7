"""Frames that are kept are those that would be read, and no more of them than there is room for."""

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from make_videos import numbered_frames

from marc.inference import kept_frames
from marc.inference.kept_frames import KeptFrames
from marc.video import VideoError, read_frames, write_video

HOW = {"min_pixels": 1, "max_pixels": 32 * 48, "factor": 2}


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    path = tmp_path_factory.mktemp("video") / "a.mp4"
    write_video(path, numbered_frames(40, 48, 32), fps=10)
    return str(path)


@pytest.fixture
def asked(monkeypatch):
    """Times that are read from files."""
    times = []

    def counted(path, seconds, **how):
        times.append(list(seconds))
        return read_frames(path, seconds, **how)

    monkeypatch.setattr(kept_frames, "read_frames", counted)
    return times


def test_only_what_is_missing_is_read_and_all_is_as_if_it_had_been(video, asked):
    kept = KeptFrames()
    for times in ([0.2, 1.0, 2.55], [0.2, 0.7, 1.0, 1.0, 3.9], [1.0, 2.55]):
        frames, expected = kept.read(video, np.array(times), **HOW), read_frames(video, times, **HOW)
        np.testing.assert_array_equal(frames.rgb, expected.rgb)
        np.testing.assert_array_equal(frames.seconds, expected.seconds)
        assert frames.source == expected.source
    assert asked == [[0.2, 1.0, 2.55], [0.7, 3.9]]
    kept.clear()
    kept.read(video, np.array([1.0]), **HOW)
    assert asked[-1] == [1.0]


def test_another_size_and_a_changed_file_are_read_anew(video, asked, tmp_path):
    kept = KeptFrames()
    kept.read(video, np.array([1.0]), **HOW)
    assert kept.read(video, np.array([1.0]), **{**HOW, "max_pixels": 400}).rgb.shape != (1, 48, 32, 3)
    copy = tmp_path / "a.mp4"
    write_video(copy, numbered_frames(40, 48, 32), fps=10)
    before = kept.read(str(copy), np.array([1.0]), **HOW)
    write_video(copy, 255 - numbered_frames(40, 48, 32), fps=10)
    os.utime(copy, (1, 1))
    assert not np.array_equal(kept.read(str(copy), np.array([1.0]), **HOW).rgb, before.rgb)
    assert len(asked) == 4


def test_the_longest_unused_go_first(video, asked):
    size = read_frames(video, [0.0], **HOW).rgb.nbytes
    kept = KeptFrames(most=2 * size)
    for second in (0.0, 1.0, 0.0, 2.0, 0.0, 1.0):
        kept.read(video, np.array([second]), **HOW)
    assert asked == [[0.0], [1.0], [2.0], [1.0]] and kept._bytes == 2 * size
    assert len(kept.read(video, np.array([0.0, 1.0, 2.0, 3.0]), **HOW)) == 4
    assert kept._bytes == 2 * size


def test_a_frame_keeps_no_others_alive(video):
    kept = KeptFrames()
    kept.read(video, np.arange(20) / 10, **HOW)
    assert all(rgb.base is None for _, rgb in kept._frames.values())


def test_errors_keep_nothing(video):
    kept = KeptFrames()
    with pytest.raises(VideoError):
        kept.read(video, np.array([1.0]), **{**HOW, "timeout": -1.0})
    assert not kept._frames


def test_threads_may_share_it(video):
    kept, expected = KeptFrames(), read_frames(video, np.arange(20) / 10, **HOW)

    def read(first):
        times = np.arange(first, 20) / 10
        return np.array_equal(kept.read(video, times, **HOW).rgb, expected.rgb[first:])

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(read, range(16)))
