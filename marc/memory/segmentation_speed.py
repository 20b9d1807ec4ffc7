"""How fast a video becomes events, by stage: decoding, choosing where to look, the network, embedding the events.

For each size it writes an H.264 video of several minutes (a generated shot of ten seconds, repeated: a cut every ten
seconds, as in calmly edited footage), segments it, and prints the CPU time of each stage per minute of video, the
resulting multiple of real time per core, and the multiple of real time on the clock. CPU time counts the decoder's
process, too; unlike the clock it holds on a machine that does other work. The embedding is that of PE-Core-T with
random weights, which costs what the real one costs, at four frames an event.

Run: ``python -m marc.memory.segmentation_speed`` (``--help`` for the options); results are in docs/segmentation.md.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Annotated

import av
import numpy as np
import psutil
import typer
from numpy.typing import NDArray

from marc.memory.events import segment_events
from marc.memory.shots import FrameStream
from marc.memory.synthetic_cuts import make_shot
from marc.memory.transnetv2 import HEIGHT, WIDTH, TransNetV2Detector

SIZES = {"240p": (426, 240), "480p": (854, 480), "1080p": (1920, 1080)}
FRAMES_PER_EVENT = 4
_CLIP_SECONDS, _FPS = 10, 25


class TimedDetector(TransNetV2Detector):
    """TransNetV2 that adds up the network's CPU time and counts the frames that it saw."""

    network_seconds = 0.0
    frames_seen = 0

    def _predict(self, frames_THWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        started = time.process_time()
        scores_T2 = super()._predict(frames_THWC)
        self.network_seconds += time.process_time() - started
        self.frames_seen += len(frames_THWC)
        return scores_T2


def cpu_seconds() -> float:
    """CPU seconds used so far by this process and its living children."""
    children = (child.cpu_times() for child in psutil.Process().children(recursive=True))
    return time.process_time() + sum(times.user + times.system for times in children)


def write_long_video(path: Path, width: int, height: int, seconds: int) -> None:
    """Writes a generated ten-second shot at a size, encoded once and repeated by copying its packets."""
    small = make_shot(0, _CLIP_SECONDS * _FPS)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=_FPS, options={"crf": "23", "bf": "0"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        packets = [packet for picture in _enlarged(small, width, height) for packet in stream.encode(picture)]
        packets += stream.encode(None)
        time_base = packets[0].time_base
        per_clip = round(_CLIP_SECONDS / time_base)
        for repetition in range(seconds // _CLIP_SECONDS):
            for packet in packets:
                assert packet.pts is not None and packet.dts is not None
                copy = av.Packet(bytes(packet))
                copy.stream, copy.time_base, copy.is_keyframe = stream, time_base, packet.is_keyframe
                copy.pts, copy.dts = packet.pts + repetition * per_clip, packet.dts + repetition * per_clip
                container.mux(copy)


def _enlarged(small: NDArray[np.uint8], width: int, height: int) -> Iterator[av.VideoFrame]:
    """The frames at their new size, with a little noise of that size, as a camera adds it."""
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 2, (height + 64, width, 3))
    for index, rgb_HWC in enumerate(small):
        picture = av.VideoFrame.from_ndarray(rgb_HWC, format="rgb24").reformat(width, height, "rgb24")
        first = int(rng.integers(64))
        noisy = np.clip(picture.to_ndarray() + noise[first : first + height], 0, 255).astype(np.uint8)
        frame = av.VideoFrame.from_ndarray(noisy, format="rgb24")
        frame.pts, frame.time_base = index, Fraction(1, _FPS)
        yield frame


def embedding_seconds_per_frame() -> float:
    """CPU seconds for one frame of PE-Core-T's image tower on this machine."""
    import open_clip
    import torch

    image_tower = open_clip.create_model("PE-Core-T-16-384").eval().get_submodule("visual")
    frames = torch.zeros(FRAMES_PER_EVENT, 3, 384, 384)
    with torch.inference_mode():
        image_tower(frames)
        started = time.process_time()
        image_tower(frames)
    return (time.process_time() - started) / FRAMES_PER_EVENT


def measure(path: Path, *, exact: bool, embedding: float) -> tuple[dict[str, float], float, float]:
    """CPU seconds by stage, seconds on the clock without embedding, and frames the network saw per frame of video."""
    started = cpu_seconds()
    total_frames = sum(len(frames) for frames in FrameStream(path, width=WIDTH, height=HEIGHT))
    decoding = cpu_seconds() - started
    detector = TimedDetector(exact=exact)
    started, wall_started = cpu_seconds(), time.perf_counter()
    events = segment_events(path, segmenter=detector)
    whole, wall = cpu_seconds() - started, time.perf_counter() - wall_started
    stages = {
        "decoding": decoding,
        "changes": max(whole - decoding - detector.network_seconds, 0.0),
        "network": detector.network_seconds,
        "embedding": len(events) * FRAMES_PER_EVENT * embedding,
    }
    return stages, wall, detector.frames_seen / total_frames


def main(
    minutes: Annotated[int, typer.Option(min=1, help="Length of each video.")] = 3,
    size: Annotated[list[str] | None, typer.Option(help=f"Of {', '.join(SIZES)}; may be repeated.")] = None,
    exact: Annotated[bool, typer.Option(help="Show the network every frame.")] = False,
) -> None:
    """Print the table of the time that each stage takes at each size."""
    embedding = embedding_seconds_per_frame()
    print(f"PE-Core-T: {embedding:.3f} s of CPU time a frame")
    print("CPU seconds per minute of video, but for the last three columns")
    columns = ["size", "decoding", "changes", "network", "embedding", "frames seen by the network"]
    columns += ["x real time per core", "x on the clock, without embedding"]
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    with tempfile.TemporaryDirectory() as folder:
        for name in size or SIZES:
            path = Path(folder) / f"{name}.mp4"
            write_long_video(path, *SIZES[name], 60 * minutes)
            stages, wall, share = measure(path, exact=exact, embedding=embedding)
            cells = " | ".join(f"{seconds / minutes:.2f}" for seconds in stages.values())
            real_time = 60 * minutes / sum(stages.values())
            print(f"| {name} | {cells} | {share:.0%} | {real_time:.1f} | {60 * minutes / wall:.1f} |", flush=True)


if __name__ == "__main__":
    typer.run(main)
