"""Sources of a live memory: files that are played, and addresses that come and go."""

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from marc.memory.live.following import follow_file, follow_live
from marc.video import VideoError, write_video


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """Three seconds each of red, green and blue, 20 frames a second, as a transport stream."""
    path = tmp_path_factory.mktemp("films") / "colours.ts"
    shades = np.array([(220, 20, 20), (20, 220, 20), (20, 20, 220)], np.uint8)
    write_video(path, np.repeat(shades, 60, axis=0)[:, None, None].repeat(48, 1).repeat(64, 2), fps=20)
    return path


def spans(memory):
    return [(each.span.start, each.span.end) for each in memory.snapshot().events]


def test_a_file_is_played_to_its_end(film, open_memory):
    memory, ticks = open_memory(), []
    follow_file(film, memory, speed=1000, tick=lambda: ticks.append(memory.until))
    memory.end()
    assert spans(memory) == [pytest.approx(each, abs=0.3) for each in ((0, 3), (3, 6), (6, 9))]
    assert ticks == sorted(ticks)
    assert {frame.size for frame in memory.snapshot().recent} == {(64, 48)}


def test_a_file_is_played_at_its_speed(film, open_memory):
    memory, begin = open_memory(), time.monotonic()
    follow_file(film, memory, speed=8)
    assert time.monotonic() - begin >= 8.5 / 8


def test_a_file_goes_on_where_it_was_left(film, open_memory):
    memory = open_memory()

    def stop():
        if memory.until > 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        follow_file(film, memory, speed=1000, tick=stop)
    memory.close()
    memory = open_memory()
    seen = memory.until
    assert 3 < seen < 6
    follow_file(film, memory, speed=1000)
    memory.end()
    assert spans(memory) == [pytest.approx(each, abs=0.3) for each in ((0, 3), (3, 6), (6, 9))]
    assert not memory.snapshot().gaps


class Server:
    """An address that answers each request with the next of some contents, then with nothing."""

    def __init__(self, *contents: bytes) -> None:
        left = list(contents)

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                if not left:
                    self.send_error(404)
                    return
                self.send_response(200)
                self.send_header("Content-Type", "video/mp2t")
                self.end_headers()
                self.wfile.write(left.pop(0))

            def log_message(self, *arguments):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/stream"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def test_an_address_that_was_lost_is_found_again(film, open_memory, monkeypatch):
    monkeypatch.setattr("marc.memory.live.following.FIRST_PAUSE", 0.3)
    content = film.read_bytes()
    server, memory = Server(content, content[: len(content) // 2]), open_memory()
    try:
        is_over = follow_live(server.url, memory, patience=1.5)
    finally:
        server.close()
    assert not is_over, "it was lost"
    memory.end()
    found, gaps = spans(memory), memory.snapshot().gaps
    assert found[:2] == [pytest.approx(each, abs=0.3) for each in ((0, 3), (3, 6))]
    assert len(gaps) == 1
    assert "lost" in gaps[0].why
    assert 8.4 < gaps[0].start < gaps[0].end
    assert any(start == pytest.approx(gaps[0].end, abs=0.2) for start, _ in found)


def test_an_address_where_nothing_answers_is_said(open_memory, monkeypatch):
    monkeypatch.setattr("marc.memory.live.following.FIRST_PAUSE", 0.1)
    server = Server()
    try:
        with pytest.raises(VideoError, match="cannot be read") as failure:
            follow_live(server.url.replace("//", "//me:secret@"), open_memory(), patience=0.5)
        assert server.url in str(failure.value) and "secret" not in str(failure.value)
    finally:
        server.close()


def test_no_message_of_the_decoder_holds_a_password(open_memory, monkeypatch):
    """Messages that are none of FFmpeg's: the process that reads does not answer in time."""

    def silent(job, timeout, ahead):
        raise VideoError(f"{job.path}: nothing came for {timeout:g} s")
        yield

    monkeypatch.setattr("marc.memory.live.following.POOL.run", silent)
    with pytest.raises(VideoError, match=r"rtsp://camera/garden: nothing came") as failure:
        follow_live("rtsp://me:secret@camera/garden?key=secret", open_memory(), patience=0)
    assert "secret" not in str(failure.value)


def test_what_answers_names_no_file_of_this_machine(film, open_memory, monkeypatch):
    monkeypatch.setattr("marc.memory.live.following.FIRST_PAUSE", 0.1)
    playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:9,\nfile://{film}\n#EXT-X-ENDLIST\n".encode()
    server = Server(*[playlist] * 4)
    memory = open_memory()
    try:
        with pytest.raises(VideoError, match=r"cannot be read|no video"):
            follow_live(f"{server.url}.m3u8", memory, patience=0.5)
    finally:
        server.close()
    assert memory.snapshot().is_empty


def test_a_device_that_is_no_camera_is_said(open_memory):
    with pytest.raises(VideoError, match="/dev/null"):
        follow_live("/dev/null", open_memory(), patience=0)
