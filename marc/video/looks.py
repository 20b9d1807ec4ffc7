"""Looks at single pictures of a video, beside the reading of it: key pictures, and some way on from them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from av.packet import Packet
from av.video.frame import VideoFrame

from marc.video.alone import LoneDecoder
from marc.video.decoding import Picture, VideoReader
from marc.video.groups import needed_for, shown_at
from marc.video.likeness import (
    HEIGHT,
    SAME_OVERLAP,
    WIDTH,
    Glance,
    Glancer,
    are_still,
    drift,
    likeness,
    show_same_place,
)

REMEMBERED = 4
"""Key pictures that are kept."""
STEADY, FARTHEST, APART = 0.7, 0.35, 6.0
"""How alike pictures of a moving camera must be for it to be foreseen, how far it may come, in sides of the picture,
and how far apart the quarters of the picture, in pixels of a glance."""

T = TypeVar("T")


@dataclass(frozen=True)
class Look:
    """A picture, when it is shown, and what it looks like.

    Attributes:
        frame: The picture.
        seconds: Since the first picture of the video.
        glance: What it looks like.
    """

    frame: VideoFrame
    seconds: float
    glance: Glance


class Looks:
    """Looks at pictures of a video; the last few key pictures are decoded once.

    Args:
        reader: The video.

    Attributes:
        alone: Decodes single pictures.
    """

    def __init__(self, reader: VideoReader) -> None:
        self._reader = reader
        self._glancer = Glancer()
        self.alone = LoneDecoder(reader.new_decoder)
        self._frames: dict[int, VideoFrame] = {}
        self._keys: dict[int, Look] = {}

    def at_key(self, key: Packet) -> Look | None:
        """A key picture, decoded alone unless it was seen before; None where that is not possible."""
        tick = shown_at(key)
        if tick not in self._keys:
            frame = self._frames.get(tick) or self.alone.decode_key(key)
            if frame is None:
                return None
            self._reader.decoded.count(frame)
            _keep(self._keys, tick, self.at(Picture(frame, self._reader.seconds_at(tick))))
        return self._keys[tick]

    def at(self, picture: Picture) -> Look:
        """A picture that was decoded for more than that."""
        return Look(picture.frame, picture.seconds, self._glancer(picture.frame))

    def glance(self, frame: VideoFrame) -> Glance:
        """A glance at a picture that was decoded for nothing else."""
        self._reader.decoded.count(frame)
        return self._glancer(frame)

    def some_way_on(self, packets: Sequence[Packet], tick: int) -> Look | None:
        """A picture that is shown at a tick behind the first of some packets, which is all that is decoded for."""
        latest = None
        for latest in self.pictures(needed_for(packets, tick)):
            if latest.frame.pts == tick:
                break
        return None if latest is None else self.at(latest)

    def pictures(self, packets: Sequence[Packet], sparse: int = 0) -> Iterator[Picture]:
        """The pictures of a group without those before its key picture: see `LoneDecoder.frames`."""
        own = [packet for packet in packets if shown_at(packet) >= shown_at(packets[0])]
        for frame in self.alone.frames(own, sparse=sparse):
            self._reader.decoded.count(frame)
            if frame.pts is not None:
                yield self.picture(frame)

    def picture(self, frame: VideoFrame) -> Picture:
        """A decoded picture and when it is shown."""
        assert frame.pts is not None
        return Picture(frame, self._reader.seconds_at(frame.pts))

    def remember(self, frame: VideoFrame) -> None:
        """Keep a key picture that has been decoded with its group."""
        assert frame.pts is not None
        _keep(self._frames, frame.pts, frame)

    def show_the_same(self, first: Packet, second: Packet) -> bool:
        """Whether two key pictures surely show the same place."""
        looks = self.at_key(first), self.at_key(second)
        return looks[0] is not None and looks[1] is not None and show_same_place(looks[0].glance, looks[1].glance)


def cannot_come(before: Look, look: Look, other: Look) -> bool:
    """Whether a camera that moved from one picture to the next cannot have come to another by going on like that.

    That is so if it would still show much of what it showed, so that the other one would have been recognised.
    """
    if look.seconds <= before.seconds:
        return False
    found = likeness(before.glance, look.glance)
    moved = drift(before.glance, look.glance)
    ahead = (other.seconds - look.seconds) / (look.seconds - before.seconds)
    farthest = max(abs(moved.common[0]) / HEIGHT, abs(moved.common[1]) / WIDTH) * ahead
    return found.alike >= STEADY and farthest <= FARTHEST and moved.apart * ahead <= APART


def stays(before: Look, look: Look, until: float) -> bool:
    """Whether a camera that goes on as it moved from one picture to the next still shows the same place at a time."""
    if are_still(before.glance, look.glance):
        return True
    moved = drift(before.glance, look.glance)
    times = (until - before.seconds) / (look.seconds - before.seconds)
    sides = zip(moved.common, (HEIGHT, WIDTH), strict=True)
    left = math.prod(max(0.0, 1 - abs(by) * times / side) for by, side in sides)
    is_steady = likeness(before.glance, look.glance).alike >= STEADY and moved.apart * times <= APART
    return is_steady and left >= SAME_OVERLAP


def _keep(kept: dict[int, T], tick: int, new: T) -> None:
    kept[tick] = new
    while len(kept) > REMEMBERED:
        del kept[next(iter(kept))]
