"""What the records of the Python interface take, and what they say of what they do not."""

import numpy as np
import pytest

from marc import Clip, Frames

RGB = np.zeros((2, 8, 12, 3), np.uint8)


@pytest.mark.parametrize("seconds", [[0, 0.5], (0, 0.5), np.array([0, 0.5], np.float32)])
def test_times_of_frames_may_be_any_numbers(seconds):
    frames = Frames(RGB, seconds, "camera")
    assert frames.seconds.dtype == np.float64 and frames.seconds.tolist() == [0, 0.5]


@pytest.mark.parametrize(
    ("rgb", "got"),
    [
        (RGB / 255, r"float64 \[2, 8, 12, 3\]"),
        (RGB[0], r"uint8 \[8, 12, 3\]"),
        (np.moveaxis(RGB, 3, 1), r"uint8 \[2, 3, 8, 12\]"),
        (RGB.tolist(), "list"),
    ],
)
def test_frames_of_another_kind_are_refused(rgb, got):
    with pytest.raises(ValueError, match=rf"camera: frames must be an array of uint8 \[T, H, W, 3\], got {got}"):
        Frames(rgb, [0.0, 0.5], "camera")


@pytest.mark.parametrize("seconds", [[0.0], [[0.0, 0.5]], ["0:00", "0:01"], None, 0.5])
def test_times_that_are_not_one_for_each_frame_are_refused(seconds):
    with pytest.raises(ValueError, match="camera: seconds must be 2 numbers, one for each frame"):
        Frames(RGB, seconds, "camera")


@pytest.mark.parametrize("times", [{"start": "1:00"}, {"end": "1:00"}, {"start": None}])
def test_a_stretch_is_in_seconds(times):
    with pytest.raises(ValueError, match=r"a\.mp4: (start|end) must be seconds as a number, such as 90, got"):
        Clip("a.mp4", **times)
    assert Clip("a.mp4", np.float32(1), np.int64(2)).within(5.0).duration == 1
