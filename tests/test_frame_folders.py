"""A folder of pictures is read as the video that it is."""

import numpy as np
import pytest
from PIL import Image

from marc.data.check import problem_with
from marc.evaluation.assistant_engine import AssistantEngine
from marc.evaluation.methods import METHODS
from marc.evaluation.options import EngineOptions
from marc.evaluation.samples import Sample
from marc.memory.options import MemoryOptions, RetrievalOptions
from marc.types import GenerationOptions, ModelOptions
from marc.video import VideoError
from marc.video.frame_folders import find_frame_folder, frame_files, frame_rate, read_frame_folder
from marc.video.options import FrameOptions

SMALL = {"min_pixels": 28 * 28, "max_pixels": 28 * 28}


@pytest.fixture
def folder(tmp_path):
    """Twelve pictures, each as bright as its number, whose names are not in the order of the alphabet."""
    where = tmp_path / "frames_fps3" / "castle_01"
    where.mkdir(parents=True)
    for number in range(12):
        Image.new("RGB", (56, 28), (number * 20,) * 3).save(where / f"frame{number}.png")
    (where / "notes.txt").write_text("no picture")
    (where / ".hidden.png").write_text("no picture")
    return where


def brightness(frames):
    return [round(float(frame.mean())) // 20 for frame in frames.rgb]


def test_pictures_are_in_the_order_of_their_numbers(folder):
    assert [file.name for file in frame_files(folder)] == [f"frame{number}.png" for number in range(12)]


def test_all_are_read_where_there_is_room_at_the_rate_of_the_path(folder):
    frames = read_frame_folder(folder, max_frames=64, **SMALL)
    assert brightness(frames) == list(range(12))
    np.testing.assert_allclose(frames.seconds, np.arange(12) / 3)
    assert frames.rgb.shape[0] == 12 and frames.source == str(folder)


def test_of_more_frames_some_are_evenly_chosen(folder):
    frames = read_frame_folder(folder, max_frames=4, **SMALL)
    assert brightness(frames) == [1, 4, 7, 10]
    np.testing.assert_allclose(frames.seconds, np.array([1, 4, 7, 10]) / 3)


def test_annotations_may_write_an_ending_behind_the_folder(folder):
    assert find_frame_folder(f"{folder}.mp4") == folder == find_frame_folder(folder)


@pytest.mark.parametrize(
    ("path", "rate"),
    [
        *(("tvqa/frames_fps3_hq/a", 3.0), ("x/2fps/a", 2.0), ("x/fps_0.5/a", 0.5)),
        *(("x/25-FPS/a", 25.0), ("x/a", 3.0), ("fps0/a", 3.0)),
    ],
)
def test_the_path_says_the_rate(path, rate):
    assert frame_rate(path) == rate


def test_what_is_no_folder_of_pictures_is_named(folder, tmp_path):
    with pytest.raises(VideoError, match="there is no such folder of frames, also not without its ending"):
        read_frame_folder(tmp_path / "gone.mp4", max_frames=4)
    (tmp_path / "empty").mkdir()
    with pytest.raises(VideoError, match=r"empty: no picture in this folder \(.jpg"):
        read_frame_folder(tmp_path / "empty", max_frames=4)
    assert problem_with(folder, "frame") is None
    (folder / "frame3.png").write_bytes(b"damaged")
    with pytest.raises(VideoError, match=r"frame3\.png"):
        read_frame_folder(folder, max_frames=64, **SMALL)
    assert "frame3.png" in (problem_with(folder, "frame") or "")


def test_the_evaluation_asks_about_it(folder):
    options = EngineOptions(
        ModelOptions(device="cpu"), FrameOptions(max_frames=8), MemoryOptions(), RetrievalOptions(), {}
    )
    engine = AssistantEngine(METHODS["marc-events"], options)
    sample = Sample("a/0", f"{folder}.mp4", "What?", "What?", "free-form", "grey", data_type="frame")
    (answer,) = engine.answer([sample], GenerationOptions(max_new_tokens=4))
    (shown,) = answer.videos
    assert shown.source == str(folder) and answer.frames == 8
    assert answer.visual_tokens_after <= answer.visual_tokens_before
    with pytest.raises(ValueError, match="only questions about videos are asked"):
        engine.answer([Sample("a/1", "a.png", "What?", "What?", "OCR", "x", data_type="image")], GenerationOptions())
