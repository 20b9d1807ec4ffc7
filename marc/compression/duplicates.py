"""Near-duplicate frames, found on their pixels before the vision tower, so that each is encoded once.

Qwen2.5-VL's tower reads every temporal grid by itself, so grids with equal pixels have equal features: encoding one of
them and repeating the result gives what encoding all of them gives. Screen recordings, slides and cameras that watch
an empty room are full of such grids.

Shapes: T temporal grids ("frames"), P patches of a frame, C numbers of a patch.
"""

from __future__ import annotations

from torch import Tensor

SAMPLED_PATCHES = 8
"""Every so many patches of neighbours are compared first, all at once: most frames that differ are told apart so."""


def frame_distance(a_PC: Tensor, b_PC: Tensor) -> Tensor:
    """How much two frames differ where they differ most.

    ``max_p 1/C sum_c |a_pc - b_pc|``: the mean over a patch hides the noise of a codec or a sensor, the maximum over
    patches keeps a cursor or a word that moves on a still picture. A metric, in the units of the pixels.

    Args:
        a_PC: ``[..., P, C]``.
        b_PC: As ``a_PC``.

    Returns:
        ``[...]``.
    """
    return (a_PC - b_PC).abs().mean(-1).amax(-1)


def distinct_frames(frames_TPC: Tensor, threshold: float) -> list[int]:
    """Tells which frames can share one encoding.

    A frame is encoded anew if it differs by more than ``threshold`` from the last one that was; so every frame is
    within ``threshold`` of the one that stands for it, however slowly the picture changes.

    Args:
        frames_TPC: Pixels ``[T, P, C]`` as the processor makes them.
        threshold: Largest `frame_distance`; 0: only frames with equal pixels.

    Returns:
        For each frame, which of the distinct frames stands for it: 0, then the same or one more than the one before.
    """
    sampled_TPC = frames_TPC[:, ::SAMPLED_PATCHES]
    apart = (frame_distance(sampled_TPC[1:], sampled_TPC[:-1]) > threshold).tolist()
    shown, numbers = 0, [0]
    for frame in range(1, len(frames_TPC)):
        a_PC, b_PC = frames_TPC[shown], frames_TPC[frame]
        told_apart = apart[frame - 1] if shown == frame - 1 else False
        differs = told_apart or bool(frame_distance(a_PC, b_PC) > threshold)
        shown = frame if differs else shown
        numbers.append(numbers[-1] + differs)
    return numbers
