"""No file may ask for more of the machine than the limits say; each limit is named in its error."""

import json
import os
import re
import threading
from pathlib import Path

import numpy as np
import pytest
from make_videos import numbered_frames, write_video
from PIL import Image
from typer.testing import CliRunner

from marc.cli import app
from marc.video import VideoError, animations, probe, read_frames, read_to, stream_frames
from marc.video.decoding import open_video
from marc.video.limits import VARIABLE, current_limits, limits_of
from marc.video.options import DecodeLimits
from marc.video.pictures import is_picture, picture_size, read_picture
from marc.video.process import POOL
from marc.video.requests import EveryFrame


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("limits") / "clip.mp4"
    write_video(path, numbered_frames(120), options={"g": "12"})
    return path


@pytest.fixture(scope="module")
def bomb(tmp_path_factory) -> Path:
    """A picture that moves, small as a file and large in memory."""
    path = tmp_path_factory.mktemp("limits") / "bomb.gif"
    one, other = (Image.new("P", (8000, 8000), colour) for colour in (0, 1))
    one.save(path, save_all=True, append_images=[other], duration=100, optimize=False)
    assert path.stat().st_size < 2**18
    return path


def stream(path):
    return list(stream_frames(path, width=16, height=8))


READERS = {"probe": probe, "read": read_frames, "stream": stream}


@pytest.mark.parametrize(
    ("field", "value", "cause", "readers"),
    [
        ("video_pixels", 168 * 112 - 1, "pictures of 168x112, 18816 pixels; at most 18815 may be", READERS),
        ("hours", 0.001, r"a video of 0\.0 hours; at most 0\.001 may be", READERS),
        ("frames", 100, "101 pictures were decoded; at most 100 may be", ["stream"]),
        ("decoded_gib", 0.001, r"0\.00 GiB were decoded; at most 0\.001 may be", ["stream"]),
    ],
)
def test_each_limit_is_held_and_named(field, value, cause, readers, clip, monkeypatch):
    monkeypatch.setenv(VARIABLE, json.dumps({field: value}))
    flag = {"decoded_gib": "--limit-decoded"}.get(field, f"--limit-{field.replace('_', '-')}")
    for reader in readers:
        with pytest.raises(VideoError, match=rf"clip\.mp4: {cause} \({flag}\): allow more if you trust"):
            READERS[reader](clip)
    monkeypatch.delenv(VARIABLE)
    assert len(stream(clip)[0]) == 100


def test_a_length_that_is_only_found_is_limited_too(tmp_path, monkeypatch):
    """A raw stream says nothing of its length."""
    write_video(tmp_path / "raw.h264", numbered_frames(120))
    monkeypatch.setenv(VARIABLE, '{"hours": 0.001}')
    with pytest.raises(VideoError, match=r"--limit-hours"):
        stream(tmp_path / "raw.h264")


def test_an_animated_webp_is_limited_before_it_is_decoded(tmp_path, monkeypatch):
    one, other = (Image.new("RGB", (160, 90), colour) for colour in ("red", "blue"))
    one.save(tmp_path / "a.webp", save_all=True, append_images=[other], duration=100)
    assert probe(tmp_path / "a.webp").frame_count == 2
    monkeypatch.setenv(VARIABLE, '{"video_pixels": 14399}')
    monkeypatch.setattr(animations, "_copy", lambda *arguments: pytest.fail("was decoded"))
    with (
        pytest.raises(VideoError, match=r"a\.webp: pictures of 160x90, 14400 pixels; .*--limit-video-pixels"),
        open_video(str(tmp_path / "a.webp")),
    ):
        pass


def test_a_bomb_is_stopped_by_memory(bomb, monkeypatch):
    assert read_frames(bomb, [0.0]).rgb.shape[0] == 1
    monkeypatch.setenv(VARIABLE, '{"memory_gib": 0.5}')
    with pytest.raises(VideoError, match=r"bomb\.gif: decoding it needs more memory.* at most 0\.5 .*--limit-memory"):
        read_frames(bomb, [0.1])
    monkeypatch.setenv(VARIABLE, '{"video_pixels": 33177600}')
    with pytest.raises(VideoError, match=r"bomb\.gif: pictures of 8000x8000, .*--limit-video-pixels"):
        probe(bomb)
    monkeypatch.delenv(VARIABLE)
    assert probe(bomb).width == 8000, "the same process has the memory again"


def resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


def test_a_large_picture_costs_its_reader_no_more_than_it_asks_for(tmp_path, monkeypatch):
    Image.new("RGBA", (7000, 7000), (200, 0, 0, 128)).save(tmp_path / "a.png", compress_level=1)
    assert is_picture(tmp_path / "a.png")
    assert picture_size(tmp_path / "a.png") == (7000, 7000)
    monkeypatch.setenv(VARIABLE, '{"memory_gib": 0.5}')
    before = resident_mib()
    with pytest.raises(VideoError, match=r"a\.png: decoding it needs more memory.*--limit-memory"):
        read_picture(tmp_path / "a.png")
    monkeypatch.delenv(VARIABLE)
    image = read_picture(tmp_path / "a.png", (56, 28))
    assert image.size == (56, 28)
    assert np.asarray(image)[0, 0].tolist() == [227, 127, 127]
    assert resident_mib() - before < 50


def test_a_picture_at_a_size_is_the_resized_picture(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (90, 130, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    whole = read_picture(tmp_path / "a.png")
    assert np.array_equal(np.asarray(whole), pixels)
    resized = whole.resize((56, 28), Image.Resampling.BICUBIC)
    assert np.array_equal(np.asarray(read_picture(tmp_path / "a.png", (56, 28))), np.asarray(resized))


def test_pictures_have_a_time_limit(tmp_path):
    Image.new("RGB", (7000, 7000)).save(tmp_path / "a.png", compress_level=1)
    with pytest.raises(VideoError, match=r"a\.png: the decoder gave nothing for 0\.01 s and was stopped"):
        read_picture(tmp_path / "a.png", timeout=0.01)


def test_limits_hold_for_a_while_and_in_what_is_started(clip):
    assert current_limits() == DecodeLimits()
    with limits_of(DecodeLimits(frames=5)):
        assert current_limits().frames == 5
        caught = []

        def read() -> None:
            with pytest.raises(VideoError, match="--limit-frames") as error:
                read_to(clip, [Listener()])
            caught.append(error)

        thread = threading.Thread(target=read)
        thread.start()
        thread.join()
        assert caught
    assert current_limits() == DecodeLimits()


class Listener:
    request = EveryFrame(8, 8)

    def consume(self, frames) -> None:
        assert len(frames)


def test_a_command_takes_the_limits_for_as_long_as_it_runs(tmp_path):
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    row = {"problem_id": 0, "problem": "What is shown?", "problem_type": "OCR", "solution": "<answer>nothing</answer>"}
    (tmp_path / "rows.json").write_text(json.dumps([{**row, "data_type": "image", "path": "a.png"}]))
    arguments = ["data", "check", str(tmp_path / "rows.json"), str(tmp_path / "good.json")]
    refused = CliRunner().invoke(app, [*arguments, "--limit-picture-pixels", "1199"])
    assert refused.exit_code == 1
    assert "at most 1199 may be (--limit-picture-pixels)" in " ".join(refused.output.split())
    assert CliRunner().invoke(app, [*arguments, "--limit-picture-pixels", "1200"]).exit_code == 0
    assert VARIABLE not in os.environ


@pytest.mark.parametrize("text", ["{", "[]", '{"frames": 0}', '{"fames": 3}', '{"frames": "many"}'])
def test_limits_that_are_none_are_named(text, clip, monkeypatch):
    monkeypatch.setenv(VARIABLE, text)
    with pytest.raises(ValueError, match=re.escape(VARIABLE)):
        probe(clip)
    monkeypatch.delenv(VARIABLE)
    assert probe(clip).frame_count == 120


def test_the_usual_fits_with_room(clip):
    """What a decoding process needs for an ordinary clip is a small part of what it may have."""
    POOL.close()
    stream(clip)
    (process,) = POOL._all
    status = Path(f"/proc/{process.pid}/status").read_text()
    peak = int(re.search(r"VmData:\s+(\d+) kB", status)[1]) / 2**20
    assert peak < DecodeLimits().memory_gib / 4
