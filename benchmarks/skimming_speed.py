"""What remembering a video costs by content and encoder, beside another checkout of this project.

    python -m benchmarks.skimming_speed --other /path/to/another/checkout --size 1080p

writes videos of what people film (`benchmarks.filmed_contents`) with several encoders, remembers each with the code of
both checkouts in turn, and prints the processor time of each, its decoder's included, and their ratio, which holds on
a busy machine, too. Models are loaded and warm before that; the embedding is that of PE-Core-T with random weights.
Without ``--other`` it prints the times of this checkout alone. Results are in docs/segmentation.md.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any

import av
import typer
from av.container import OutputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from benchmarks import checkouts
from benchmarks.filmed_contents import CONTENTS, FPS, frames_of

SIZES = {"480p": (854, 480), "1080p": (1920, 1080)}
WORKER = Path(__file__).with_name("timed_memory.py")
_X264 = {"crf": "23", "preset": "veryfast"}
ENCODERS: dict[str, tuple[str, str, dict[str, str]]] = {
    "x264-25": ("libx264", "mp4", _X264 | {"g": "25"}),
    "x264-25-no-b": ("libx264", "mp4", _X264 | {"g": "25", "bf": "0"}),
    "x264-250": ("libx264", "mp4", _X264 | {"g": "250"}),
    "x264-250-no-b": ("libx264", "mp4", _X264 | {"g": "250", "bf": "0"}),
    "x264-infinite": ("libx264", "mp4", _X264 | {"x264-params": "keyint=infinite"}),
    "x265": ("libx265", "mp4", {"crf": "26", "preset": "superfast", "x265-params": "log-level=none"}),
    "vp9": ("libvpx-vp9", "mkv", {"crf": "33", "b": "0", "deadline": "realtime", "cpu-used": "8"}),
    "av1": ("libsvtav1", "mkv", {"crf": "38", "preset": "11"}),
}
"""By name: FFmpeg's encoder, a container for it, and its options."""


def write_encodings(
    folder: Path, content: str, size: str, encoders: list[str], seconds: int, times: int
) -> list[Path]:
    """Writes the videos of a content that are not there yet, drawn once for all encoders.

    Args:
        folder: Where to.
        content: One of `CONTENTS`.
        size: One of `SIZES`.
        encoders: Of `ENCODERS`.
        seconds: How much is drawn.
        times: How often that is shown, by copies of its packets.
    """
    width, height = SIZES[size]
    paths = {name: folder / f"{content}-{size}-{seconds}x{times}-{name}.{ENCODERS[name][1]}" for name in encoders}
    missing = {name: path for name, path in paths.items() if not path.exists()}
    if missing:
        files = {name: av.open(f"{path}.part", "w", format=_FORMATS[path.suffix]) for name, path in missing.items()}
        streams = {name: _add_stream(container, name, width, height) for name, container in files.items()}
        packets: dict[str, list[Packet]] = {name: [] for name in missing}
        for number, rgb_HWC in enumerate(frames_of(content, width, height, seconds)):
            frame = av.VideoFrame.from_ndarray(rgb_HWC, format="rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            for name, stream in streams.items():
                packets[name] += stream.encode(frame)
        for name, container in files.items():
            packets[name] += streams[name].encode(None)
            with container:
                for packet in _repeated(packets[name], streams[name], seconds, times):
                    container.mux(packet)
            Path(f"{missing[name]}.part").rename(missing[name])
    return list(paths.values())


_FORMATS = {".mp4": "mp4", ".mkv": "matroska"}


def _add_stream(container: OutputContainer, name: str, width: int, height: int) -> VideoStream:
    codec, _, options = ENCODERS[name]
    stream = container.add_stream(codec, rate=FPS, options=options)
    assert isinstance(stream, VideoStream)
    stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
    return stream


def _repeated(packets: list[Packet], stream: VideoStream, seconds: int, times: int) -> Iterator[Packet]:
    for repetition in range(times):
        for packet in packets:
            assert packet.pts is not None and packet.dts is not None and packet.time_base is not None
            copy = Packet(bytes(packet))
            copy.stream, copy.time_base, copy.is_keyframe = stream, packet.time_base, packet.is_keyframe
            shift = round(repetition * seconds / packet.time_base)
            copy.pts, copy.dts = packet.pts + shift, packet.dts + shift
            yield copy


def measure(checkout: Path, videos: list[Path]) -> list[dict[str, Any]]:
    """Processor seconds and boundaries of each video, as a checkout remembers it."""
    with tempfile.TemporaryDirectory() as folder:
        found: list[dict[str, Any]] = checkouts.measure(WORKER, checkout, Path(folder), [str(path) for path in videos])
        return found


def main(
    size: Annotated[str, typer.Option(help=f"One of {', '.join(SIZES)}.")] = "480p",
    content: Annotated[list[str] | None, typer.Option(help=f"Of {', '.join(CONTENTS)}; may be repeated.")] = None,
    encoder: Annotated[list[str] | None, typer.Option(help=f"Of {', '.join(ENCODERS)}; may be repeated.")] = None,
    other: Annotated[Path | None, typer.Option(help="Another checkout, to be measured as well.")] = None,
    seconds: Annotated[int, typer.Option(min=1, help="How much of each content is drawn.")] = 60,
    times: Annotated[int, typer.Option(min=1, help="How often that is shown.")] = 2,
    folder: Annotated[Path | None, typer.Option(help="Where to keep the videos.")] = None,
) -> None:
    """Print the processor seconds a minute of video that remembering takes, by content and encoder."""
    if size not in SIZES:
        raise typer.BadParameter(f"unknown size {size!r}; choose one of {', '.join(SIZES)}")
    for name, known in [(each, CONTENTS) for each in content or []] + [(each, ENCODERS) for each in encoder or []]:
        if name not in known:
            raise typer.BadParameter(f"unknown: {name!r}; choose from {', '.join(known)}")
    with tempfile.TemporaryDirectory() as temporary:
        for each in content or CONTENTS:
            videos = write_encodings(folder or Path(temporary), each, size, encoder or [*ENCODERS], seconds, times)
            here = measure(checkouts.HERE, videos)
            there = measure(other.resolve(), videos) if other else None
            _print_rows(each, videos, seconds * times / 60, here, there)


def _print_rows(
    content: str, videos: list[Path], minutes: float, here: list[dict[str, Any]], there: list[dict[str, Any]] | None
) -> None:
    print(f"| {content} | decoding | all | other's decoding | other's all | ratio | boundaries | other's |")
    print("|---|---|---|---|---|---|---|---|")
    for index, (path, own) in enumerate(zip(videos, here, strict=True)):
        cells = [
            f"{own['decoding'] / minutes:.2f}",
            f"{own['all'] / minutes:.2f}",
            "",
            "",
            "",
            str(len(own["cuts"])),
            "",
        ]
        if there is not None:
            others = there[index]
            cells[2:5] = [
                f"{others['decoding'] / minutes:.2f}",
                f"{others['all'] / minutes:.2f}",
                f"{own['all'] / others['all']:.2f}",
            ]
            cells[6] = str(len(others["cuts"]))
        print(f"| {path.stem.split('x', 1)[1].split('-', 1)[1]} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    typer.run(main)
