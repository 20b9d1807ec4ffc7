"""One small file of every kind that is read, made where it is needed: what mutants are made of.

Shapes: T frames, H height, W width, C = 3 colours.
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.stream import VideoStream
from numpy.typing import NDArray
from PIL import Image

from robustness import mutations
from robustness.mutations import Structure
from robustness.patience import call_until_it_returns

FRAMES, HEIGHT, WIDTH = 10, 48, 64
RATE = 25
SRT = "".join(f"{n + 1}\n00:00:00,{n}00 --> 00:00:00,{n}90\n<i>Line</i> {n}\n\n" for n in range(8))
VTT = "WEBVTT\n\n" + SRT.replace(",", ".")
ASS = (
    "[Script Info]\nScriptType: v4.00+\n\n[V4+ Styles]\nFormat: Name, Fontname, Fontsize\nStyle: Default,Arial,16\n\n"
    "[Events]\nFormat: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text\n"
    + "".join(f"Dialogue: 0,0:00:00.{n}0,0:00:00.{n}9,Default,,0,0,0,,{{\\b1}}Line {n}\n" for n in range(8))
)


@dataclass(frozen=True)
class Kind:
    """How a kind of video is made.

    Attributes:
        codec: FFmpeg's encoder.
        pix_fmt: FFmpeg's pixel format.
        structure: How the file is built.
        options: Of the encoder.
        container: Options of the container.
        size: Width and height.
    """

    codec: str
    structure: Structure = mutations.blocks
    pix_fmt: str = "yuv420p"
    options: tuple[tuple[str, str], ...] = ()
    container: tuple[tuple[str, str], ...] = ()
    size: tuple[int, int] = (WIDTH, HEIGHT)


_X264 = (("g", "5"), ("bf", "1"), ("preset", "veryfast"))
_X265 = (("preset", "ultrafast"), ("x265-params", "log-level=none:keyint=5:pools=1"))
_VP = (("deadline", "good"), ("cpu-used", "4"), ("g", "5"))
_FRAGMENTS = (("movflags", "frag_keyframe+empty_moov"),)
VIDEOS: dict[str, Kind] = {
    "h264.mp4": Kind("libx264", mutations.boxes, options=_X264),
    "fragments.mp4": Kind("libx264", mutations.boxes, options=_X264, container=_FRAGMENTS),
    "hevc.mp4": Kind("libx265", mutations.boxes, options=_X265),
    "av1.mp4": Kind("libsvtav1", mutations.boxes, options=(("preset", "12"), ("g", "5")), size=(64, 64)),
    "mpeg4.mp4": Kind("mpeg4", mutations.boxes),
    "h264.mov": Kind("libx264", mutations.boxes, options=_X264),
    "mjpeg.mov": Kind("mjpeg", mutations.boxes, "yuvj420p"),
    "prores.mov": Kind("prores_ks", mutations.boxes, "yuva444p10le", options=(("profile", "4444"),)),
    "png.mov": Kind("png", mutations.boxes, "rgba"),
    "h263.3gp": Kind("h263", mutations.boxes, size=(128, 96)),
    "h264.mkv": Kind("libx264", mutations.elements, options=_X264),
    "ffv1.mkv": Kind("ffv1", mutations.elements),
    "vp8.webm": Kind("libvpx", mutations.elements, options=_VP),
    "vp9.webm": Kind("libvpx-vp9", mutations.elements, options=_VP),
    "h264.ts": Kind("libx264", mutations.transport_packets, options=_X264),
    "mpeg2.ts": Kind("mpeg2video", mutations.transport_packets),
    "mpeg1.mpg": Kind("mpeg1video"),
    "mpeg2.vob": Kind("mpeg2video"),
    "mpeg4.avi": Kind("mpeg4", mutations.chunks),
    "huffyuv.avi": Kind("ffvhuff", mutations.chunks),
    "h264.avi": Kind("libx264", mutations.chunks, options=_X264),
    "h264.flv": Kind("libx264", mutations.flv_tags, options=_X264),
    "flv1.flv": Kind("flv", mutations.flv_tags),
    "wmv2.wmv": Kind("wmv2"),
    "raw.h264": Kind("libx264", options=_X264),
    "raw.hevc": Kind("libx265", options=_X265),
    "raw.mjpeg": Kind("mjpeg", pix_fmt="yuvj420p"),
    "vp8.ivf": Kind("libvpx", options=_VP),
    "mpeg2.mxf": Kind("mpeg2video"),
    "mpeg4.nut": Kind("mpeg4"),
    "rv20.rm": Kind("rv20", size=(128, 96)),
    "moves.gif": Kind("gif", mutations.gif_blocks, "rgb8"),
    "moves.apng": Kind("apng", mutations.png_chunks, "rgba"),
}
PICTURES: dict[str, Structure] = {
    "still.png": mutations.png_chunks,
    "still.jpg": mutations.jpeg_segments,
    "still.webp": mutations.chunks,
    "still.gif": mutations.gif_blocks,
    "still.bmp": mutations.blocks,
    "still.tiff": mutations.blocks,
    "still.ppm": mutations.blocks,
    "still.avif": mutations.boxes,
}
SUBTITLES = {"lines.srt": SRT, "lines.vtt": VTT, "lines.ass": ASS}
ROW = {
    "problem_id": 2,
    "problem": "What appears?",
    "data_type": "video",
    "problem_type": "multiple choice",
    "options": ["A. a cat", "B. a dog"],
    "solution": "<answer>A</answer>",
    "path": "./a/clip.mp4",
    "data_source": "somewhere",
}


def pictures(width: int = WIDTH, height: int = HEIGHT) -> NDArray[np.uint8]:
    """Pictures ``[T, H, W, 3]`` that differ clearly: a bar that wanders over a slope."""
    rgb_THWC = np.empty((FRAMES, height, width, 3), np.uint8)
    rgb_THWC[:] = np.linspace(20, 120, width)[:, None].astype(np.uint8)
    for index, picture in enumerate(rgb_THWC):
        picture[:, index * width // FRAMES : (index + 1) * width // FRAMES] = 240
    return rgb_THWC


def write_video(path: Path, kind: Kind) -> None:
    """A video of ten pictures."""
    with av.open(str(path), "w", container_options=dict(kind.container)) as container:
        container.metadata["title"] = "a title of some length to be changed"
        stream = container.add_stream(kind.codec, rate=RATE, options=dict(kind.options))
        assert isinstance(stream, VideoStream)
        stream.thread_count = 1
        stream.width, stream.height, stream.pix_fmt = *kind.size, kind.pix_fmt
        for number, rgb_HWC in enumerate(pictures(*kind.size)):
            frame = av.VideoFrame.from_ndarray(rgb_HWC, format="rgb24").reformat(format=kind.pix_fmt)
            frame.pts, frame.time_base = number, Fraction(1, RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def samples(folder: Path) -> dict[str, tuple[bytes, Structure]]:
    """A file of every kind, by name, and how it is built.

    Args:
        folder: Where they are written.
    """
    made: dict[str, tuple[bytes, Structure]] = {}
    for name, kind in VIDEOS.items():
        if kind.codec == "libsvtav1":  # it may wait for itself for ever
            call_until_it_returns(partial(write_video, folder / name, kind))
        else:
            write_video(folder / name, kind)
        made[name] = (folder / name).read_bytes(), kind.structure
    first, *rest = (Image.fromarray(picture) for picture in pictures())
    first.save(folder / "moves.webp", save_all=True, append_images=rest, duration=100, lossless=True)
    made["moves.webp"] = (folder / "moves.webp").read_bytes(), mutations.chunks
    for name, structure in PICTURES.items():
        made[name] = _picture(first, name), structure
    for name, text in SUBTITLES.items():
        made[name] = text.encode(), mutations.lines
    made["rows.json"] = json.dumps([ROW] * 3, indent=0).encode(), mutations.lines
    made["rows.jsonl"] = (json.dumps(ROW) + "\n").encode() * 3, mutations.lines
    made["memory.marc"] = _memory(folder), mutations.blocks
    return made


def _picture(image: Any, name: str) -> bytes:
    file = io.BytesIO()
    options: dict[str, Any] = {}
    if name.endswith("png"):
        from PIL.PngImagePlugin import PngInfo

        options["pnginfo"] = PngInfo()
        options["pnginfo"].add_text("Comment", "a comment of some length")
    elif name.endswith(("jpg", "gif")):
        options["comment"] = b"a comment of some length"
    image.save(file, {"jpg": "JPEG"}.get(name[6:], name[6:].upper()), **options)
    return file.getvalue()


def _memory(folder: Path) -> bytes:
    from marc.memory.store import save_memory
    from robustness.memories import some_memory

    save_memory(some_memory("clip.mp4", "0" * 64, 1, 4), folder / "memory.marc")
    return (folder / "memory.marc").read_bytes()
