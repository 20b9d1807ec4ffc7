"""Which sources are watched, and by which protocols."""

import numpy as np
import pytest

from marc.video import VideoError, write_video
from marc.video.process import POOL
from marc.video.watching import PROTOCOLS, Opened, Watch, check_address, is_address, is_camera


@pytest.mark.parametrize("kind", PROTOCOLS)
def test_addresses_of_networks_are_read_without_files(kind):
    check_address(f"{kind}://host/stream")
    assert is_address(f"{kind}://host/stream")
    assert "file" not in PROTOCOLS[kind].split(",")


@pytest.mark.parametrize("address", ["file:///etc/passwd", "concat://a|b", "subfile://x", "data://x", "ftp://host/a"])
def test_other_addresses_are_refused(address):
    with pytest.raises(VideoError, match="are not read, only http"):
        check_address(address)


@pytest.mark.parametrize("source", ["film.mp4", "/a/b.mp4", "C:\\film.mp4", "a:b"])
def test_a_file_is_no_address(source):
    assert not is_address(source)


def test_a_device_is_no_file(tmp_path):
    assert is_camera("/dev/null")
    assert not is_camera(str(tmp_path))
    assert not is_camera("nowhere\0")


def test_pictures_come_in_two_sizes_in_order(tmp_path, monkeypatch):
    """Run in this process, with a file in place of a source: what a source gives is the same."""
    path = tmp_path / "film.mp4"
    write_video(path, np.random.default_rng(0).integers(0, 255, (30, 48, 64, 3), dtype=np.uint8), fps=10)
    monkeypatch.setattr("marc.video.watching.is_address", lambda source: True)
    monkeypatch.setattr("marc.video.watching._options", lambda source: {})
    shapes: list[tuple[int, ...]] = []

    def allocate(shape):
        shapes.append(shape)
        return np.zeros(shape, np.uint8)

    opened, *batches = Watch(str(path), (16, 9), 1.0, 5.0).run(allocate)
    assert opened == Opened(10.0, is_finite=True)
    small = np.concatenate([seconds for kind, seconds in batches if kind == 0])
    whole = np.concatenate([seconds for kind, seconds in batches if kind == 1])
    assert small == pytest.approx(np.arange(30) / 10)
    assert whole == pytest.approx([0, 1, 2])
    assert {shape[1:] for shape, (kind, _) in zip(shapes, batches, strict=True) if kind == 0} == {(9, 16, 3)}
    assert {shape for shape, (kind, _) in zip(shapes, batches, strict=True) if kind == 1} == {(1, 48, 64, 3)}
    seen = -1.0
    for kind, seconds in batches:
        assert kind == 0 or seconds[0] <= seen
        seen = max(seen, float(seconds[-1]))


def test_a_device_that_is_no_camera_is_one_error():
    with pytest.raises(VideoError, match="/dev/null: the source cannot be read"):
        list(POOL.run(Watch("/dev/null", (16, 9), 1.0, 5.0), 20.0))
