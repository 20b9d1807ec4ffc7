#!/usr/bin/env bash
# MJPEG over HTTP ("multipart/x-mixed-replace", what most IP cameras serve) gets times of 25 pictures a second, however
# fast the pictures come: FFmpeg neither takes the time of arrival nor leaves the times out.
#
# One would expect packets without times, since the format has none, or the clock on the wall, as for RTSP cameras. But
# demuxer and decoder number the pictures in steps of 1/25 s, and the stream says that this is its rate. A camera of
# five pictures a second lives at a fifth of real time: durations, speeds and "what was at 12:00" are wrong by that
# factor, and a camera that stood still for a minute has no gap. `use_wallclock_as_timestamps` gives times of arrival.
#
# Seen with PyAV 18.1.0 (FFmpeg 8.1.2), Python 3.11; twelve pictures, five a second:
#   mpjpeg: rate 25, last picture at 0.44 s
#   use_wallclock_as_timestamps=1: last picture more than 1.5 s after the first
#
# Needs uv; installs into a folder of its own and removes it.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
uv venv --quiet --python 3.11 "$folder/venv"
uv pip install --quiet --python "$folder/venv/bin/python" av==18.1.0 pillow==12.0.0
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import io
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import av
from PIL import Image

PICTURES = 12


class Camera(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=picture")
        self.end_headers()
        for number in range(PICTURES):
            file = io.BytesIO()
            Image.new("RGB", (96, 64), (20 * number, 0, 0)).save(file, "JPEG")
            head = f"--picture\r\nContent-Type: image/jpeg\r\nContent-Length: {file.tell()}\r\n\r\n"
            self.wfile.write(head.encode() + file.getvalue() + b"\r\n")
            self.wfile.flush()
            time.sleep(0.2)
        self.wfile.write(b"--picture--\r\n")

    def log_message(self, *arguments):
        pass


def watched(options: dict[str, str]) -> tuple[str, float, list[float]]:
    """The format, the rate that it says, and the times of the pictures."""
    seconds = []
    with av.open(f"http://127.0.0.1:{server.server_address[1]}", options=options, timeout=10) as container:
        stream = container.streams.video[0]
        try:
            for picture in container.decode(stream):
                seconds.append(picture.time)
        except av.FFmpegError:
            pass  # the connection has ended
        return container.format.name, float(stream.guessed_rate), seconds


server = ThreadingHTTPServer(("127.0.0.1", 0), Camera)
threading.Thread(target=server.serve_forever, daemon=True).start()
name, rate, seconds = watched({})
print(f"{name}: rate {rate:g}, last picture at {seconds[-1]:.2f} s")
assert (name, rate) == ("mpjpeg", 25.0) and len(seconds) >= PICTURES - 1, (name, rate, seconds)
assert seconds == [number / 25 for number in range(len(seconds))], "times are no longer counted: out of date"
_, _, arrived = watched({"use_wallclock_as_timestamps": "1"})
print(f"use_wallclock_as_timestamps=1: last picture {arrived[-1] - arrived[0]:.2f} s after the first")
assert arrived[-1] - arrived[0] > 1.5, "the clock on the wall is not taken: out of date"
PYTHON
