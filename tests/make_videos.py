"""Small videos of every kind that the decoder must read, each frame of which carries its own number.

``python tests/make_videos.py FOLDER`` writes them all, for `python -m benchmarks.decoders FOLDER`.

Shapes: T frames, H height, W width, C = 3 colours.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.packet import Packet
from av.stream import Disposition
from av.subtitles.stream import SubtitleStream
from av.subtitles.subtitle import SubtitleSet
from av.video.stream import VideoStream
from numpy.typing import NDArray

from robustness.patience import call_until_it_returns

BLOCKS = 4
NUMBER_BITS = 12
UPRIGHT = (1, 0, 1, 1)
SVT_AV1 = "libsvtav1"
"""May wait for itself for ever: a process of its own writes what it encodes, and another if that does not end."""
COVER = np.full((1, 90, 90, 3), 200, np.uint8)
os.environ.setdefault("SVT_LOG", "1")


def numbered_frames(count: int, width: int = 168, height: int = 112) -> NDArray[np.uint8]:
    """Pictures of 4x4 blocks, black or white: a row that only an upright picture has, then the frame's number."""
    bits = [[*UPRIGHT, *(number >> bit & 1 for bit in range(NUMBER_BITS))] for number in range(count)]
    rows = np.arange(height) * BLOCKS // height
    columns = np.arange(width) * BLOCKS // width
    blocks = np.array(bits).reshape(count, BLOCKS, BLOCKS)[:, rows][:, :, columns]
    return np.repeat((40 + 175 * blocks)[..., None], 3, axis=-1).astype(np.uint8)


def frame_number(rgb_HWC: NDArray[np.uint8]) -> int:
    """The number that a picture carries; fails if the picture is not upright or not clear."""
    height, width = rgb_HWC.shape[:2]
    centres = (2 * np.arange(BLOCKS) + 1) / (2 * BLOCKS)
    levels = rgb_HWC.mean(axis=-1)[np.ix_((centres * height).astype(int), (centres * width).astype(int))].ravel()
    assert (abs(levels - 128) > 50).all(), f"not a clear picture: {levels.round()}"
    bits = (levels > 128).astype(int)
    assert tuple(bits[:BLOCKS]) == UPRIGHT, f"not an upright picture: {bits.reshape(BLOCKS, BLOCKS)}"
    return int((bits[BLOCKS:] << np.arange(NUMBER_BITS)).sum())


def write_video(
    path: Path,
    frames_THWC: NDArray[np.uint8],
    fps: float = 30,
    codec: str = "libx264",
    *,
    pix_fmt: str = "yuv420p",
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    seconds: Sequence[float] | None = None,
    last_seconds: float | None = None,
    offset: float = 0.0,
    rotation: int = 0,
) -> None:
    """Write frames with any codec that PyAV has.

    Args:
        path: File to write; its extension chooses the container.
        frames_THWC: ``uint8 [T, H, W, 3]``, as shown if there is no rotation.
        fps: Frames per second.
        codec: FFmpeg's name of the encoder.
        pix_fmt: FFmpeg's name of the pixel format.
        options: Options of the encoder, such as ``{"g": "250", "bf": "3"}``.
        container_options: Options of the container.
        seconds: Times of the frames; None for a constant rate.
        last_seconds: How long the last packet says that it lasts; None leaves it to FFmpeg.
        offset: Added to all times, in seconds.
        rotation: Counter-clockwise degrees that a player is told to turn the pictures by.
    """
    if codec == SVT_AV1 and multiprocessing.parent_process() is None:
        again = partial(write_video, path, frames_THWC, fps, codec, pix_fmt=pix_fmt, options=options, seconds=seconds)
        told = {"container_options": container_options, "last_seconds": last_seconds, "offset": offset}
        call_until_it_returns(partial(again, **told, rotation=rotation))
        return
    with av.open(str(path), "w", container_options=container_options or {}) as container:
        stream = container.add_stream(codec, rate=Fraction(fps).limit_denominator(1001), options=options or {})
        stream.height, stream.width = frames_THWC.shape[1:3]
        stream.pix_fmt = pix_fmt
        if seconds is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        if rotation:
            stream.set_display_rotation(rotation)
        packets = list(_encoded(stream, frames_THWC, seconds))
        if last_seconds is not None:
            last = max(packets, key=lambda packet: packet.pts)
            last.duration = round(last_seconds / last.time_base)
        for packet in packets:
            if codec == SVT_AV1:
                packet.dts = packet.pts  # its packets are in order, a picture each
            shift = round(offset / packet.time_base)
            packet.pts += shift
            packet.dts += shift
            container.mux(packet)


def _encoded(stream: VideoStream, frames_THWC: NDArray[np.uint8], seconds: Sequence[float] | None) -> Iterator[Packet]:
    for index, frame_HWC in enumerate(frames_THWC):
        frame = av.VideoFrame.from_ndarray(frame_HWC, format="rgb24")
        if seconds is not None:
            frame.pts, frame.time_base = round(seconds[index] * 1000), Fraction(1, 1000)
        yield from stream.encode(frame)
    yield from stream.encode(None)


def write_two_videos(path: Path, frames_THWC: NDArray[np.uint8]) -> None:
    """A file whose first video is a plain grey and whose second, the default, is `frames_THWC`."""
    with av.open(str(path), "w") as container:
        streams = [container.add_stream("libx264", rate=30) for _ in range(2)]
        for stream in streams:
            stream.height, stream.width, stream.pix_fmt = *frames_THWC.shape[1:3], "yuv420p"
        streams[0].disposition = Disposition(0)
        streams[1].disposition = Disposition.default
        grey, numbered = (
            list(_encoded(stream, pictures, None))
            for stream, pictures in zip(streams, (np.full_like(frames_THWC, 128), frames_THWC), strict=True)
        )
        for packets in zip(grey, numbered, strict=True):
            container.mux(packets)


def write_with_cover(path: Path, frames_THWC: NDArray[np.uint8]) -> None:
    """A video behind a cover picture, which is a stream of its own."""
    with av.open(str(path), "w") as container:
        cover = _add_cover(container)
        video = container.add_stream("libx264", rate=30)
        video.height, video.width, video.pix_fmt = *frames_THWC.shape[1:3], "yuv420p"
        for packet in [
            *_encoded(cover, COVER, None),
            *_encoded(video, frames_THWC, None),
        ]:
            container.mux(packet)


def write_song(path: Path) -> None:
    """A second of silence behind a cover picture."""
    with av.open(str(path), "w") as container:
        cover, sound = _add_cover(container), container.add_stream("aac", rate=8000, layout="mono")
        for packet in [*_encoded(cover, COVER, None), *_silence(sound)]:
            container.mux(packet)


def _add_cover(container: OutputContainer) -> VideoStream:
    cover = container.add_stream("mjpeg", rate=1)
    cover.height, cover.width, cover.pix_fmt = 90, 90, "yuvj420p"
    cover.disposition = Disposition.attached_pic
    return cover


def write_audio(path: Path) -> None:
    """A second of silence and no picture."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000, layout="mono")
        for packet in _silence(stream):
            container.mux(packet)


def _silence(stream: AudioStream) -> Iterator[Packet]:
    for _ in range(8):
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        yield from stream.encode(frame)
    yield from stream.encode(None)


@dataclass(frozen=True)
class SubtitleTrack:
    """Subtitles to be written: its codec, its lines in ASS with start and end on the file's clock, and flags."""

    codec: str = "subrip"
    lines: tuple[tuple[float, float, str], ...] = ()
    language: str = ""
    flags: int = 0


def write_with_subtitles(path: Path, *tracks: SubtitleTrack, offset: float = 0.0, sound: bool = False) -> None:
    """A video of four seconds with tracks of subtitles.

    Args:
        path: File to write; its extension chooses the container.
        tracks: What to write. Of a codec whose subtitles are pictures, packets of nonsense are written.
        offset: When the first picture is shown, in seconds.
        sound: Whether there is a second of silence, from 0 on.
    """
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=30)
        video.height, video.width, video.pix_fmt = *FRAMES.shape[1:3], "yuv420p"
        streams = [_add_subtitles(container, track) for track in tracks]
        packets = list(_silence(container.add_stream("aac", rate=8000, layout="mono"))) if sound else []
        for packet in _encoded(video, FRAMES, None):
            packet.pts += round(offset / packet.time_base)
            packet.dts += round(offset / packet.time_base)
            packets.append(packet)
        for track, stream in zip(tracks, streams, strict=True):
            packets += [_subtitle(stream, *line) for line in track.lines]
        for packet in packets:
            container.mux(packet)


def _add_subtitles(container: OutputContainer, track: SubtitleTrack) -> SubtitleStream:
    stream = container.add_stream(track.codec)
    stream.codec_context.time_base = Fraction(1, 1000)
    stream.codec_context.subtitle_header = ASS_HEADER
    stream.disposition = Disposition(track.flags)
    stream.metadata["language"] = track.language
    return stream


def _subtitle(stream: SubtitleStream, start: float, end: float, text: str) -> Packet:
    if stream.codec_context.codec.text_sub:
        content = SubtitleSet.create(f"0,0,Default,,0,0,0,,{text}".encode(), 0, round(1000 * (end - start)))
        packet = stream.codec_context.encode_subtitle(content)
    else:
        packet = Packet(text.encode())
    packet.stream, packet.time_base = stream, Fraction(1, 1000)
    packet.pts = packet.dts = round(1000 * start)
    packet.duration = round(1000 * (end - start))
    return packet


ASS_HEADER = b"""[Script Info]
ScriptType: v4.00+

[V4+ Styles]
Format: Name, Fontname, Fontsize
Style: Default,Arial,16

[Events]
Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text
"""


LONG_GOP = {"g": "250", "bf": "3", "sc_threshold": "0"}
OPEN_GOP = "open-gop=1:keyint=24:min-keyint=24:scenecut=0:bframes=3:b-adapt=0"
UNEVEN = np.cumsum(np.tile([0.02, 0.1, 0.3, 0.04], 30)) - 0.02
X265 = {"x265-params": "log-level=none:keyint=24:bframes=3"}


FRAMES = numbered_frames(120)
ODD_FRAMES = numbered_frames(120, 169, 113)


def _kind(frames_THWC: NDArray[np.uint8] = FRAMES, **arguments) -> Callable[[Path], None]:
    return partial(write_video, frames_THWC=frames_THWC, **arguments)


KINDS: dict[str, Callable[[Path], None]] = {
    "long_gop.mp4": _kind(options=LONG_GOP),
    "short_gop.mkv": _kind(options={"g": "12", "bf": "3"}),
    "open_gop.mp4": _kind(options={"x264-params": OPEN_GOP}),
    "ten_bit.mp4": _kind(pix_fmt="yuv420p10le"),
    "hevc.mp4": _kind(codec="libx265", options=X265),
    "hevc_ten_bit.mkv": _kind(codec="libx265", pix_fmt="yuv420p10le", options=X265),
    "av1.mp4": _kind(codec=SVT_AV1, options={"preset": "11", "g": "48"}),
    "vp9.webm": _kind(codec="libvpx-vp9", options={"deadline": "realtime", "cpu-used": "8"}),
    "live.webm": _kind(codec="libvpx-vp9", options={"cpu-used": "8"}, container_options={"live": "1"}),
    "raw.h264": _kind(options={"g": "24", "bf": "3"}),
    "transport.ts": _kind(options={"g": "24", "bf": "3"}),
    "mpeg4.avi": _kind(codec="mpeg4", options={"g": "24", "bf": "2"}),
    "h264.avi": _kind(options={"g": "24", "bf": "3"}),
    "motion_jpeg.mov": _kind(codec="mjpeg", pix_fmt="yuvj420p"),
    "fragmented.mp4": _kind(container_options={"movflags": "frag_keyframe+empty_moov"}),
    "uneven.mp4": _kind(options=LONG_GOP, seconds=UNEVEN),
    "uneven.mkv": _kind(options={"g": "12"}, seconds=UNEVEN),
    "late_start.mp4": _kind(offset=5.0),
    "late_start.mkv": _kind(offset=5.0),
    "ntsc.mkv": _kind(fps=30000 / 1001, options={"g": "24", "bf": "3"}),
    "odd_size.mkv": _kind(ODD_FRAMES, codec="ffv1", pix_fmt="yuv444p"),
    "odd_size.mp4": _kind(ODD_FRAMES, pix_fmt="yuv444p"),
    "one_frame.mp4": _kind(FRAMES[:1]),
    "rotated_90.mp4": _kind(np.rot90(FRAMES, -1, axes=(1, 2)), rotation=90),
    "rotated_180.mp4": _kind(np.rot90(FRAMES, -2, axes=(1, 2)), rotation=180),
    "rotated_270.mp4": _kind(np.rot90(FRAMES, -3, axes=(1, 2)), rotation=270),
    "two_videos.mkv": partial(write_two_videos, frames_THWC=FRAMES),
    "cover.mp4": partial(write_with_cover, frames_THWC=FRAMES),
}


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, write in KINDS.items():
        write(folder / name)
