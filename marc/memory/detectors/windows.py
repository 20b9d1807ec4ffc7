"""What TransNetV2 is shown of a video: windows of frames, and by default only those in which something may change.

Shape legend: T frames, H height, W width, C = 3 colours (RGB), R x K grid of blocks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from marc.memory.descriptors import block_means
from marc.memory.detectors.motion import common_part

WIDTH, HEIGHT = 48, 27


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


@dataclass(frozen=True)
class Window:
    """Frames for the network, of which ``scored`` ones after the context are wanted; ``changes``: worth a look."""

    frames: NDArray[np.uint8]
    scored: int
    changes: bool = True


class WindowCutter:
    """Cuts a video into windows of ``context + step + context`` frames, each ``step`` after the one before.

    The first and the last frame of the video are repeated where a window reaches beyond it.

    Args:
        windowing: Says how.
    """

    def __init__(self, windowing: Windowing) -> None:
        self._step, self._context = windowing.step, windowing.context
        self._length = windowing.step + 2 * windowing.context
        self._held_THWC = np.empty((0, HEIGHT, WIDTH, 3), np.uint8)  # of the next window, as far as they are known

    def add(self, frames_THWC: NDArray[np.uint8]) -> Iterator[Window]:
        """The windows that the next frames complete."""
        if not len(self._held_THWC):
            self._held_THWC = np.repeat(frames_THWC[:1], self._context, axis=0)
        self._held_THWC = np.concatenate([self._held_THWC, frames_THWC])
        while len(self._held_THWC) >= self._length:
            yield Window(self._held_THWC[: self._length], self._step)
            self._held_THWC = self._held_THWC[self._step :]

    def finish(self) -> Iterator[Window]:
        """The windows at the end of the video."""
        unscored = len(self._held_THWC) - self._context
        while unscored > 0:
            missing = np.repeat(self._held_THWC[-1:], max(self._length - len(self._held_THWC), 0), axis=0)
            frames_THWC = np.concatenate([self._held_THWC, missing])[: self._length]
            yield Window(frames_THWC, min(self._step, unscored))
            self._held_THWC, unscored = self._held_THWC[self._step :], unscored - self._step


class RunJoiner:
    """Joins neighbouring windows that change to longer ones and marks the others as not worth a look.

    Args:
        windowing: Says which, and how many.
    """

    def __init__(self, windowing: Windowing) -> None:
        self._windowing = windowing
        self._run: list[Window] = []

    @property
    def windows(self) -> int:
        """How many are held back."""
        return len(self._run)

    def add(self, window: Window) -> Iterator[Window]:
        """The windows that are as long as they get, now that the next one is known."""
        changes = self._changes(window)
        if not changes or len(self._run) == self._windowing.longest_run:
            yield from self.finish()
        if changes:
            self._run.append(window)
        else:
            yield Window(window.frames, window.scored, changes=False)

    def finish(self) -> Iterator[Window]:
        """The window that is still held back, if any: what follows does not belong to it."""
        if self._run:
            step = self._windowing.step
            frames_THWC = np.concatenate([self._run[0].frames, *(window.frames[-step:] for window in self._run[1:])])
            scored = sum(window.scored for window in self._run)
            self._run = []
            yield Window(frames_THWC, scored)

    def _changes(self, window: Window) -> bool:
        margin = self._windowing.context - MARGIN
        inner_THWC = window.frames[margin : len(window.frames) - margin]
        return not self._windowing.gated or bool(changing_frames(inner_THWC, MARGIN).any())


SPIKE = 3.0  # grey levels by which a frame must differ from the next more than is usual around it
DRIFT = 8.0  # grey levels by which coarse pictures 16 frames apart must differ
CHANGED = 3.0  # grey levels by which they must differ even so if the movement of the camera is undone
MOVING = 1.0  # grey levels by which neighbouring frames of a camera that moves usually differ
_LEFT_BY_PAN, _LEFT_BY_SHAKE = 0.7, 0.9  # shares that a camera leaves in view within 16 frames, and within one
_REACH = 8  # frames looked at on either side of one
_BESIDE = 2  # frames on either side of a spike that the network is to see as well
MARGIN = _REACH + _BESIDE + 1  # so far away is all that decides about a frame


def changing_frames(frames_THWC: NDArray[np.uint8], margin: int = 0) -> NDArray[np.bool_]:
    """Which frames might belong to a transition: a cheap test that lets through far too many.

    A frame passes if it, or one of two frames on either side, differs from the next by `SPIKE` more than the median of
    the frames around it (a cut, a flash), or if the picture, averaged over 3 x 4 blocks, drifts by `DRIFT` from 8
    frames before to 8 frames after (a dissolve, a fade). Neither counts if the camera has moved and what is left in
    view differs by no more than that, for a drift by no more than `CHANGED`; a camera that stood cannot jump.
    Differences are mean absolute ones of 8-bit RGB.

    Args:
        frames_THWC: The frames, and some more at either end.
        margin: How many more; `MARGIN` if the video goes on there.

    Returns:
        For each frame between them, ``bool [T - 2 * margin]``.
    """
    spike_T = _spikes(frames_THWC)
    beside_T = np.lib.stride_tricks.sliding_window_view(np.pad(spike_T, _BESIDE), 2 * _BESIDE + 1).any(axis=1)
    changing_T: NDArray[np.bool_] = beside_T | _drift(frames_THWC, spike_T)
    last = len(frames_THWC) - 1
    wanted_T = np.arange(margin, last + 1 - margin)
    for frame in wanted_T[(changing_T & ~beside_T)[wanted_T]]:
        before, behind = frames_THWC[max(frame - _REACH, 0)], frames_THWC[min(frame + _REACH, last)]
        common = common_part(before, behind, _LEFT_BY_PAN)
        changing_T[frame] = common is None or common.coarse_difference > CHANGED
    return changing_T[wanted_T]


def _spikes(frames_THWC: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Which frames differ from the next one far more than those around them, a camera that shakes left aside."""
    frames = frames_THWC.astype(np.int16)
    step_T = np.abs(np.diff(frames, axis=0, append=frames[-1:])).mean(axis=(1, 2, 3), dtype=np.float32)
    around_TN = np.lib.stride_tricks.sliding_window_view(np.pad(step_T, _REACH, mode="edge"), 2 * _REACH + 1)
    usual_T = np.median(around_TN, axis=1)
    spike_T: NDArray[np.bool_] = step_T - usual_T > SPIKE
    for frame in np.flatnonzero(spike_T & (usual_T > MOVING)):
        common = common_part(frames_THWC[frame], frames_THWC[frame + 1], _LEFT_BY_SHAKE)
        spike_T[frame] = common is None or common.difference - usual_T[frame] > SPIKE
    return spike_T


def _drift(frames_THWC: NDArray[np.uint8], spike_T: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Around which frames the coarse picture drifts.

    The jumps of spikes are no part of it, or else every cut would have 16 frames looked at.
    """
    blocks_TRKC = block_means(frames_THWC, 3, 4)
    slow_TRKC = np.diff(blocks_TRKC, axis=0, prepend=blocks_TRKC[:1])
    slow_TRKC[1:][spike_T[:-1]] = 0
    track_TRKC = np.pad(slow_TRKC.cumsum(axis=0), ((_REACH, _REACH), (0, 0), (0, 0), (0, 0)), mode="edge")
    drift_T: NDArray[np.bool_] = np.abs(track_TRKC[2 * _REACH :] - track_TRKC[: -2 * _REACH]).mean((1, 2, 3)) > DRIFT
    return drift_T
