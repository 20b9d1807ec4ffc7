"""Hard cuts by content, without a network: where the picture jumps once and then stays elsewhere.

TransNetV2 gives low scores to fast cuts between views of one person or place; the step from one frame to the next is
plain there. A jump is taken for a cut's only if nothing else explains it: a moving camera steps again and again, a
flash comes back to where it was, and a light that is switched keeps the pattern of the picture. What is left are cuts
and things that pop up; docs/segmentation.md says on which footage the limits were chosen.

Shape legend: T frames, H height, W width, C = 3 colours (RGB), B and A frames before and after a jump.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from marc.memory.growing import GrowingArray

STEP = 6.0  # grey levels by which two frames must differ: the mean absolute difference
STANDS_OUT = 2.0  # times the largest step around it that a jump must be
AROUND = 6  # frames on either side in which steps are compared
STAYS = 0.5  # share of the step by which any of the frames before must differ from any of those after
FLASH = 5  # frames before and after that are compared for that: a flash of up to four comes back
LIKENESS = 0.75  # correlation of brightness from which on two frames show one picture in another light
BLACK = 20.0  # brightness of black bars, which are the same in all pictures and say nothing
_MARGIN = AROUND + 1  # so far away is all that decides about a frame


class JumpFinder:
    """Finds the jumps of a video whose frames are pushed to it; keeps 14 frames and a byte for each."""

    def __init__(self) -> None:
        self._held_THWC = np.empty((0, 0, 0, 3), np.uint8)  # those to be judged, and those around them
        self._jumps = GrowingArray(np.bool_)

    def add(self, frames_THWC: NDArray[np.uint8]) -> None:
        """The next frames, small ones."""
        if not len(frames_THWC):
            return
        held_THWC = self._held_THWC if len(self._held_THWC) else np.repeat(frames_THWC[:1], _MARGIN, axis=0)
        self._held_THWC = np.concatenate([held_THWC, frames_THWC])
        self._judge()

    def skip(self, count: int) -> None:
        """So many frames are left out, without a jump among them; none before and after them see each other."""
        self._judge_rest()
        self._jumps.extend(np.zeros(count, np.bool_))

    def jumps(self) -> NDArray[np.bool_]:
        """Which of the frames so far are the last before a jump, ``bool [T]``; the video, or a part, ends here."""
        self._judge_rest()
        return self._jumps.array

    def _judge(self) -> None:
        judged = len(self._held_THWC) - 2 * _MARGIN
        if judged > 0:
            self._jumps.extend(jumping_frames(self._held_THWC)[_MARGIN : _MARGIN + judged])
            self._held_THWC = self._held_THWC[judged:]

    def _judge_rest(self) -> None:
        if len(self._held_THWC):
            self._held_THWC = np.concatenate([self._held_THWC, np.repeat(self._held_THWC[-1:], _MARGIN, axis=0)])
            self._judge()
            self._held_THWC = self._held_THWC[:0]


def jumping_frames(frames_THWC: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Which frames are the last before a jump, ``bool [T]``.

    The step from such a frame to the next is `STANDS_OUT` times every other within `AROUND` frames (not a movement),
    the frames before and after stay `STAYS` of it apart (not a flash), and their patterns correlate by less than
    `LIKENESS` (not another light).
    """
    frames = frames_THWC.astype(np.int16)
    step_T = np.abs(np.diff(frames, axis=0, append=frames[-1:])).mean(axis=(1, 2, 3), dtype=np.float32)
    around_TN = np.lib.stride_tricks.sliding_window_view(np.pad(step_T, AROUND), 2 * AROUND + 1)
    others_TN = np.delete(around_TN, AROUND, axis=1)
    jumps_T = (step_T > STEP) & (step_T >= STANDS_OUT * others_TN.max(axis=1))
    for last in np.flatnonzero(jumps_T).tolist():
        before, after = frames[max(0, last + 1 - FLASH) : last + 1], frames[last + 1 : last + 1 + FLASH]
        jumps_T[last] = _apart(before, after) >= STAYS * step_T[last] and _likeness(before[-1], after[0]) < LIKENESS
    return jumps_T


def _apart(before_BHWC: NDArray[np.int16], after_AHWC: NDArray[np.int16]) -> float:
    """The least mean absolute difference between any frame before and any after."""
    differences_BAHWC = np.abs(before_BHWC[:, None] - after_AHWC[None])
    return float(differences_BAHWC.mean(axis=(2, 3, 4)).min())


def _likeness(before_HWC: NDArray[np.int16], after_HWC: NDArray[np.int16]) -> float:
    """Correlation of brightness, in [-1, 1], of the pixels that are not black in both; 0 where one has no pattern."""
    before_HW, after_HW = before_HWC.mean(axis=2), after_HWC.mean(axis=2)
    seen_HW = np.maximum(before_HW, after_HW) > BLACK
    if not seen_HW.any():
        return 1.0
    before_N, after_N = before_HW[seen_HW], after_HW[seen_HW]
    before_N, after_N = before_N - before_N.mean(), after_N - after_N.mean()
    norm = np.sqrt(np.square(before_N).sum() * np.square(after_N).sum())
    return float((before_N * after_N).sum() / norm) if norm else 0.0
