"""Videos of requests are read as an assistant without a memory reads them; wrong options are named."""

from pathlib import Path

import numpy as np
import pytest

from marc import VideoAssistant
from marc.inference.vllm_items import planned_item
from marc.model.loading import load_processor
from marc.serving.vllm.reading import VideoReader, VideoRequest
from marc.types import Clip, Frames
from marc.video import VideoError, write_video
from marc.video.options import FrameOptions


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("clips") / "noise.mp4"
    rng = np.random.default_rng(0)
    write_video(path, np.repeat(rng.integers(0, 256, (8, 56, 56, 3), np.uint8), 12, axis=0), fps=12)
    return path


@pytest.fixture(scope="module")
def reader() -> VideoReader:
    config, processor = load_processor()
    return VideoReader(processor, config, processor.compression)


def assert_equal(one, other) -> None:
    one, other = planned_item(one), planned_item(other)
    assert one.keys() == other.keys()
    for name, values in one.items():
        assert values.equal(other[name]), name


@pytest.mark.parametrize(
    "options",
    [{}, {"budget": "frames:2"}, {"max_frames": 6, "fps": 1.0, "start": 2.0, "end": 7.0}, {"tower_layer": 1}],
)
def test_a_file_is_read_as_an_assistant_reads_it(clip, reader, options):
    compression = {name: options[name] for name in ("budget", "tower_layer") if name in options}
    frames = FrameOptions(**{name: options[name] for name in ("max_frames", "fps") if name in options})
    assistant = VideoAssistant.from_pretrained(memory=None, compression=compression, frames=frames, device="cpu")
    assistant.backend.encode = lambda inputs, clock: None
    asked = Clip(clip, options.get("start", 0.0), options.get("end"))
    assert_equal(reader.read_file(clip.read_bytes(), options), assistant.view(asked, "").video)


def test_frames_are_read_as_an_assistant_reads_them(reader):
    rgb = np.random.default_rng(1).integers(0, 256, (6, 40, 60, 3), np.uint8)
    assistant = VideoAssistant.from_pretrained(memory=None, device="cpu")
    assistant.backend.encode = lambda inputs, clock: None
    expected = assistant.view(Frames(rgb, np.arange(6) / 3, "frames"), "").video
    assert_equal(reader.read_frames(rgb, {"seconds": (np.arange(6) / 3).tolist()}), expected)
    assert_equal(reader.read_frames(rgb, {"fps": 3.0, "frames_indices": list(range(6))}), expected)
    other = reader.read_frames(rgb, {"fps": 3.0, "options": {"budget": "full"}})
    assert other.plan is None and other.tokens == other.patches.tokens


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"frames": 3}, "unknown option of a video frames; known are budget, "),
        ({"timeout": 3}, "unknown option of a video timeout"),
        ({"budget": "events:0"}, "unknown budget 'events:0'"),
        ({"budget": "full", "layout": "frames", "visual_tokens": 3}, "leaves nothing for layout, visual_tokens"),
        ({"max_frames": 1}, "max_frames"),
    ],
)
def test_wrong_options_are_named(reader, options, message):
    with pytest.raises(ValueError, match=message):
        VideoRequest.of(options, reader.compression)


def test_what_is_no_video_is_refused(reader):
    with pytest.raises(VideoError):
        reader.read_file(b"not a video", {})
