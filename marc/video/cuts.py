"""Where inside a group of pictures one shot gives way to another, from glances at few of its pictures.

Packets tell which pictures may show something else; a cut is sure once two neighbours have nothing in common, while
before and behind them all that is looked at shows one place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

from av.video.frame import VideoFrame

from marc.video.alone import LayeredGroup
from marc.video.likeness import Glance, may_be_one_shot, show_other_place, show_same_place


class Follower:
    """Follows the pictures of a group one after the other.

    Attributes:
        cut: The first picture of another place, by its number; None before there is one.
    """

    def __init__(self) -> None:
        self.cut: int | None = None
        self._first: Glance | None = None
        self._latest: tuple[int, Glance] | None = None

    def add(self, number: int, glance: Glance) -> bool:
        """Look at a picture.

        Returns:
            Whether all so far show one place, or one and from a cut on another one.
        """
        before, self._latest = self._latest, (number, glance)
        if before is None or self._first is None:
            self._first = glance
            return True
        if show_same_place(before[1], glance):
            return True
        is_next = self.cut is None and number == before[0] + 1
        if not (is_next and show_other_place(before[1], glance) and may_be_one_shot(self._first, before[1])):
            return False
        self.cut = number
        return True


class Glances:
    """Glances at pictures of a group of AV1, each decoded once at most.

    Args:
        group: The group.
        glancer: Makes a glance of a picture.
        key: That at its key picture.

    Attributes:
        frames: The other pictures that were looked at, by their numbers.
    """

    def __init__(self, group: LayeredGroup, glancer: Callable[[VideoFrame], Glance], key: Glance) -> None:
        self._group, self._glancer = group, glancer
        self.frames: dict[int, VideoFrame | None] = {}
        self._glances = {0: key}

    def __call__(self, number: int) -> Glance | None:
        """A look at a picture, or None if it cannot be decoded."""
        if number not in self.frames and number > 0:
            frame = self.frames[number] = self._group.picture(number)
            if frame is not None:
                self._glances[number] = self._glancer(frame)
        return self._glances.get(number)


def sole_cut(glance: Callable[[int], Glance | None], path: Sequence[int]) -> int | None:
    """The first picture of another place in a group whose pictures can be had one by one.

    Args:
        glance: Looks at a picture, by its number; None if it cannot be had.
        path: Pictures to be looked at in any case, in order; the cut lies between two of them.

    Returns:
        Its number; None unless there is just one place before it and one behind.
    """
    changes = [(before, behind) for before, behind in pairwise(path) if not _alike(glance(before), glance(behind))]
    if len(changes) != 1:
        return None
    before, behind = changes[0]
    while behind - before > 1:
        middle = (before + behind) // 2
        if _alike(glance(before), glance(middle)):
            before = middle
        elif _alike(glance(middle), glance(behind)):
            behind = middle
        else:
            return None
    first, last, second = glance(path[0]), glance(before), glance(behind)
    if first is None or last is None or second is None:
        return None
    return behind if show_other_place(last, second) and may_be_one_shot(first, last) else None


def is_one_place(glance: Callable[[int], Glance | None], path: Sequence[int]) -> bool:
    """Whether neighbours among some pictures show the same place."""
    return all(_alike(glance(before), glance(behind)) for before, behind in pairwise(path))


def _alike(first: Glance | None, second: Glance | None) -> bool:
    return first is not None and second is not None and show_same_place(first, second)
