"""How fast a video is remembered, by stage: decoding, the network, embedding, and the rest.

For each size it writes an H.264 video of several minutes (a generated shot of ten seconds, repeated: a cut every ten
seconds, as in calmly edited footage), remembers it as ``marc remember`` does, and prints the CPU time of each stage
per minute of video, the resulting multiple of real time per core, and the multiple of real time on the clock. CPU
time counts the decoder's process, too; unlike the clock it holds on a machine that does other work. The embedding is
that of PE-Core-T with random weights, which costs what the real one costs.

Run: ``python -m benchmarks.segmentation_speed`` (``--help`` for the options); results are in docs/segmentation.md.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, ClassVar

import av
import numpy as np
import psutil
import typer
from numpy.typing import NDArray

from benchmarks.synthetic_cuts import make_shot
from marc.memory.detectors import register_detector
from marc.memory.detectors.transnetv2 import TransNetV2Detector
from marc.memory.embedder import EventEmbedder
from marc.memory.index import build_memory
from marc.memory.options import MemoryOptions

SIZES = {"240p": (426, 240), "480p": (854, 480), "1080p": (1920, 1080)}
_CLIP_SECONDS, _FPS = 10, 25


class TimedDetector(TransNetV2Detector):
    """TransNetV2 that adds up, for its class, the network's CPU time and the frames that it saw."""

    exact: ClassVar[bool] = False
    network_seconds: ClassVar[float] = 0.0
    frames_seen: ClassVar[int] = 0

    def __init__(self, *, device: str | None = None) -> None:
        super().__init__(exact=self.exact, device=device)

    def _predict(self, frames_THWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        started = time.process_time()
        scores_T2 = super()._predict(frames_THWC)
        type(self).network_seconds += time.process_time() - started
        type(self).frames_seen += len(frames_THWC)
        return scores_T2


class ExactTimedDetector(TimedDetector):
    """The same, shown every frame."""

    exact = True


class TimedEmbedder:
    """Hands everything to an embedder and adds up the CPU time of its image tower, resizing included."""

    def __init__(self, embedder: EventEmbedder) -> None:
        self.embedding_seconds = 0.0
        self._embedder = embedder

    def __getattr__(self, name: str) -> Any:
        return getattr(self._embedder, name)

    def embed_frames(self, frames_THWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See `EventEmbedder.embed_frames`."""
        started = time.process_time()
        vectors_TD = self._embedder.embed_frames(frames_THWC)
        self.embedding_seconds += time.process_time() - started
        return vectors_TD


def cpu_seconds() -> float:
    """CPU seconds used so far by this process and its living children."""
    return time.process_time() + decoding_seconds()


def decoding_seconds() -> float:
    """CPU seconds used so far by the living children of this process, which are its decoders."""
    children = (child.cpu_times() for child in psutil.Process().children(recursive=True))
    return sum(times.user + times.system for times in children)


def write_long_video(
    path: Path,
    size: tuple[int, int],
    seconds: int,
    *,
    clip_seconds: int = _CLIP_SECONDS,
    fps: int = _FPS,
    shots: int = 1,
) -> None:
    """Writes generated shots of so many seconds at a size, encoded once and repeated by copying their packets."""
    width, height = size
    small = np.concatenate([make_shot(seed, clip_seconds * fps) for seed in range(shots)])
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps, options={"crf": "23", "bf": "0"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        packets = [packet for picture in _enlarged(small, width, height, fps) for packet in stream.encode(picture)]
        packets += stream.encode(None)
        time_base = packets[0].time_base
        per_clip = round(shots * clip_seconds / time_base)
        for repetition in range(max(1, seconds // (shots * clip_seconds))):
            for packet in packets:
                assert packet.pts is not None and packet.dts is not None
                copy = av.Packet(bytes(packet))
                copy.stream, copy.time_base, copy.is_keyframe = stream, time_base, packet.is_keyframe
                copy.pts, copy.dts = packet.pts + repetition * per_clip, packet.dts + repetition * per_clip
                container.mux(copy)


def _enlarged(small: NDArray[np.uint8], width: int, height: int, fps: int) -> Iterator[av.VideoFrame]:
    """The frames at their new size, with a little noise of that size, as a camera adds it."""
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 2, (height + 64, width, 3))
    for index, rgb_HWC in enumerate(small):
        picture = av.VideoFrame.from_ndarray(rgb_HWC, format="rgb24").reformat(width, height, "rgb24")
        first = int(rng.integers(64))
        noisy = np.clip(picture.to_ndarray() + noise[first : first + height], 0, 255).astype(np.uint8)
        frame = av.VideoFrame.from_ndarray(noisy, format="rgb24")
        frame.pts, frame.time_base = index, Fraction(1, fps)
        yield frame


def measure(path: Path, embedder: EventEmbedder, *, exact: bool) -> tuple[dict[str, float], float, int]:
    """CPU seconds by stage, seconds on the clock, and how many frames the network saw."""
    detector, timed = ExactTimedDetector if exact else TimedDetector, TimedEmbedder(embedder)
    name = detector.__name__
    register_detector(name, detector)
    detector.network_seconds, detector.frames_seen = 0.0, 0
    wall, own, decoding = time.perf_counter(), time.process_time(), decoding_seconds()
    build_memory(path, timed, MemoryOptions(segmenter=name))  # type: ignore[arg-type]  # it does what an embedder does
    wall, own, decoding = time.perf_counter() - wall, time.process_time() - own, decoding_seconds() - decoding
    stages = {
        "decoding": decoding,
        "network": detector.network_seconds,
        "embedding": timed.embedding_seconds,
        "rest": own - detector.network_seconds - timed.embedding_seconds,
    }
    return stages, wall, detector.frames_seen


def main(
    minutes: Annotated[int, typer.Option(min=1, help="Length of each video.")] = 3,
    size: Annotated[list[str] | None, typer.Option(help=f"Of {', '.join(SIZES)}; may be repeated.")] = None,
    exact: Annotated[bool, typer.Option(help="Show the network every frame.")] = False,
) -> None:
    """Print the table of the time that each stage takes at each size."""
    embedder = EventEmbedder.untrained("PE-Core-T-16-384")
    embedder.embed_frames(np.zeros((8, 384, 384, 3), np.uint8))
    print("CPU seconds per minute of video, but for the last three columns")
    columns = ["size", "decoding", "network", "embedding", "rest", "frames seen by the network"]
    columns += ["x real time per core", "x on the clock"]
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    with tempfile.TemporaryDirectory() as folder:
        for name in size or SIZES:
            path = Path(folder) / f"{name}.mp4"
            write_long_video(path, SIZES[name], 60 * minutes)
            stages, wall, seen = measure(path, embedder, exact=exact)
            cells = " | ".join(f"{seconds / minutes:.2f}" for seconds in stages.values())
            real_time = 60 * minutes / sum(stages.values())
            share = seen / (60 * minutes * _FPS)
            print(f"| {name} | {cells} | {share:.0%} | {real_time:.1f} | {60 * minutes / wall:.1f} |", flush=True)


if __name__ == "__main__":
    typer.run(main)
