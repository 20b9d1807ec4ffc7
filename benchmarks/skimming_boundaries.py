"""Whether boundaries are found as well where not everything is decoded, by encoder.

    python -m benchmarks.skimming_boundaries --first-seed 4 --seeds 3

writes the videos of `benchmarks.synthetic_cuts` with several encoders and prints the F1 (for flashes and movements the
false cuts) of TransNetV2 shown what `marc.video.skim_to` gives, and beside it shown every frame. Results are in
docs/segmentation.md.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Annotated

import av
import typer
from av.video.stream import VideoStream

from benchmarks.boundary_benchmark import Outcome, evaluate
from benchmarks.skimming_speed import ENCODERS
from benchmarks.synthetic_cuts import FPS, KINDS, LabelledVideo, make_video
from marc.memory.detectors.transnetv2 import TransNetV2Detector

_X264 = {"crf": "23", "preset": "veryfast"}
FURTHER: dict[str, tuple[str, str, dict[str, str]]] = {
    "x264-infinite-no-b": ("libx264", "mp4", _X264 | {"x264-params": "keyint=infinite:bframes=0"}),
    "x264-open": ("libx264", "mp4", _X264 | {"x264-params": "keyint=48:open-gop=1:bframes=3"}),
    "x264-fixed-128": ("libx264", "mp4", _X264 | {"x264-params": "keyint=128:min-keyint=128:scenecut=0"}),
    "x265-closed": ("libx265", "mp4", {"crf": "26", "x265-params": "open-gop=0:log-level=none"}),
    "vp9-good": ("libvpx-vp9", "mkv", {"crf": "33", "b": "0", "deadline": "good", "cpu-used": "5"}),
    "av1-8": ("libsvtav1", "mkv", {"crf": "35", "preset": "8"}),
}
"""As `ENCODERS`: those that matter for boundaries only."""


def encoded(folder: Path, videos: list[LabelledVideo], encoder: str) -> Iterator[tuple[Path, LabelledVideo]]:
    """Generated videos in files of an encoder, and their truth."""
    codec, extension, options = (ENCODERS | FURTHER)[encoder]
    for video in videos:
        path = folder / f"{video.name}-{encoder}.{extension}"
        with av.open(str(path), "w") as container:
            stream = container.add_stream(codec, rate=Fraction(FPS).limit_denominator(1001), options=options)
            assert isinstance(stream, VideoStream)
            stream.height, stream.width = video.rgb.shape[1:3]
            stream.pix_fmt = "yuv420p"
            for rgb_HWC in video.rgb:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(rgb_HWC, format="rgb24")))
            container.mux(stream.encode(None))
        yield path, replace(video, rgb=video.rgb[:0])


def _cell(outcome: Outcome) -> str:
    return f"{outcome.false} false" if outcome.disturbances else f"{outcome.f1:.3f}"


def main(
    seeds: Annotated[int, typer.Option(min=1, help="Videos of each kind.")] = 3,
    first_seed: Annotated[int, typer.Option(min=0, help="Seed of the first video of each kind.")] = 4,
    encoder: Annotated[list[str] | None, typer.Option(help="Only these; may be repeated.")] = None,
    kind: Annotated[list[str] | None, typer.Option(help=f"Of {', '.join(KINDS)}; may be repeated.")] = None,
) -> None:
    """Print F1 by encoder and kind of video: where not all is decoded / where all is."""
    for name, known in [(each, ENCODERS | FURTHER) for each in encoder or []] + [(each, KINDS) for each in kind or []]:
        if name not in known:
            raise typer.BadParameter(f"unknown: {name!r}; choose from {', '.join(known)}")
    kinds = kind or KINDS
    print(f"| encoder | {' | '.join(kinds)} |")
    print(f"|---{'|---' * len(kinds)}|")
    videos = {each: [make_video(each, first_seed + number) for number in range(seeds)] for each in kinds}
    skimming, whole = TransNetV2Detector(), TransNetV2Detector()
    whole.skims = False
    for name in encoder or [*ENCODERS, *FURTHER]:
        cells = []
        for each in kinds:
            with tempfile.TemporaryDirectory() as folder:
                files = list(encoded(Path(folder), videos[each], name))
                found = [evaluate(detector, files)[each] for detector in (skimming, whole)]
                cells.append(" / ".join(map(_cell, found)))
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    typer.run(main)
