"""Which sources are watched, and by which protocols."""

import io
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from PIL import Image

from marc.video import VideoError, write_video
from marc.video.process import POOL
from marc.video.watching import PROTOCOLS, Opened, Watch, check_address, is_address, is_camera, shown


@pytest.mark.parametrize("kind", PROTOCOLS)
def test_addresses_of_networks_are_read_without_files(kind):
    check_address(f"{kind}://host/stream")
    assert is_address(f"{kind}://host/stream")
    assert "file" not in PROTOCOLS[kind].split(",")


@pytest.mark.parametrize("address", ["file:///etc/passwd", "concat://a|b", "subfile://x", "data://x", "ftp://host/a"])
def test_other_addresses_are_refused(address):
    with pytest.raises(VideoError, match="are not read, only http"):
        check_address(address)


@pytest.mark.parametrize("address", ["rtsp://me:se/cret@host/live", "rtsp://me:[secret]@host", "my_cam://me:secret@h"])
def test_an_address_that_is_none_is_refused_without_its_password(address):
    with pytest.raises(VideoError, match=r"write / as %2F|are not read") as failure:
        check_address(address)
    assert "cret" not in str(failure.value)


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


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("rtsp://me:a@b@10.0.0.5:554/live", "rtsp://10.0.0.5:554/live"),
        ("srt://host:9000?passphrase=secret#x", "srt://host:9000"),
        ("http://[::1]:8080/video?user=a&pwd=b", "http://[::1]:8080/video"),
        ("http://host/@home", "http://host/@home"),
        ("/dev/video0", "/dev/video0"),
        ("a@b.mp4", "a@b.mp4"),
    ],
)
def test_no_password_is_told(source, told):
    assert shown(source) == told


class Camera(BaseHTTPRequestHandler):
    """Nine JPEGs, five a second, each in a part of its own."""

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        for shade in range(0, 225, 25):
            picture = io.BytesIO()
            Image.fromarray(np.full((48, 64, 3), shade, np.uint8)).save(picture, "JPEG")
            content = picture.getvalue()
            head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(content)}\r\n\r\n"
            self.wfile.write(head.encode() + content + b"\r\n")
            self.wfile.flush()
            time.sleep(0.2)

    def log_message(self, *arguments):
        pass


def test_where_a_format_tells_no_times_they_are_those_of_arrival():
    """FFmpeg would count 25 pictures a second; some of the first ones come together."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Camera) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        began, seconds = time.monotonic(), []
        with suppress(VideoError):  # it ends without a last boundary
            for told in Watch(f"http://127.0.0.1:{server.server_address[1]}", (64, 48), 1.0, 5.0).run(np.empty):
                seconds += [told[1].tolist()] if isinstance(told, tuple) else []
        lasted = time.monotonic() - began
        server.shutdown()
    small = sorted({second for some in seconds for second in some})
    assert len(small) >= 8 and small[0] == 0
    assert 0.7 < small[-1] < lasted


def test_a_device_that_is_no_camera_is_one_error():
    with pytest.raises(VideoError, match="/dev/null: the source cannot be read"):
        list(POOL.run(Watch("/dev/null", (16, 9), 1.0, 5.0), 20.0))
