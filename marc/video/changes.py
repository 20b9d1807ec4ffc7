"""What happens inside a group of pictures with packets that may show something else, told by few of its pictures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from marc.video.cuts import Follower, Glances, is_one_place, sole_cut
from marc.video.decoding import Picture, VideoReader
from marc.video.groups import LAYERED, Group, between, lone_packet, may_hide, shown_at, sizes_between, ticks_of
from marc.video.likeness import may_be_one_shot, show_other_place, show_same_place
from marc.video.looks import Look, Looks, cannot_come

HEAD = 16
"""Pictures behind a cut that a detector must see to be sure of it."""
SKIPPING_CODECS = ("h264", "hevc")
"""Codecs whose decoders can leave out pictures that no other refers to."""
SOMETIMES, FLASH = 16, 5
"""Of so many pictures one is looked at where packets tell of nothing, and pictures behind a cut that must stay."""
BRIEF = 2.0
"""Seconds of the shortest event."""


@dataclass(frozen=True)
class Change:
    """What happens in a group.

    Attributes:
        cut: Number of the first picture of another place; None if there is none.
        pictures: That one, and those next to it that had to be decoded as well.
        rest: The pictures behind these, and perhaps those before.
        leads_on: Whether all behind surely shows what the next key picture shows.
    """

    cut: int | None
    pictures: list[Picture]
    rest: Iterator[Picture]
    leads_on: bool


class Suspect:
    """A group between two key pictures that can be looked at, with large packets.

    Args:
        group: The group.
        after: The one behind it.
        ends: Looks at the key pictures of both.
        where: The places of the large packets among those between the key pictures.

    Attributes:
        ticks: When its pictures are shown.
        has_cut: Whether the key pictures surely show different places.
        is_plain: Whether that, or the same place, is sure.
        first: Number of the first picture that is shown when a large packet is, or later ones are.
        last: That of the last one.
    """

    def __init__(self, group: Group, after: Group, ends: tuple[Look, Look], where: NDArray[np.intp]) -> None:
        self.group, self.after, self.look, self.other = group, after, *ends
        self.ticks = ticks_of([group], after)
        self.has_cut = show_other_place(self.look.glance, self.other.glance)
        self.is_plain = self.has_cut or show_same_place(self.look.glance, self.other.glance)
        packets = between(group, after)
        self.first = self.ticks.index(min(shown_at(packet) for packet in packets[where[0] :]))
        self.last = self.ticks.index(max(shown_at(packet) for packet in packets[: where[-1] + 1]))

    @property
    def is_in_order(self) -> bool:
        """Whether its packets come as its pictures are shown."""
        return [shown_at(packet) for packet in self.group.packets] == self.ticks


class ChangeFinder:
    """Tells what happens in groups.

    Args:
        reader: The video.
        looks: Looks at its pictures.
    """

    def __init__(self, reader: VideoReader, looks: Looks) -> None:
        self._reader, self._looks = reader, looks
        self._codec = reader.info.codec

    def find(self, suspect: Suspect) -> Change | None:
        """What happens, by as few pictures as the packets allow; None if that is not plain."""
        is_layered = self._codec == "av1" and suspect.is_in_order
        group, ticks = suspect.group, suspect.ticks
        layered = self._looks.alone.layered(group.packets) if is_layered else None
        if layered is None:
            return self._follow(suspect)
        hierarchy, glance = layered.hierarchy, Glances(layered, self._looks.glance, suspect.look.glance)
        last = max(hierarchy.latest_shown(number) for number in range(suspect.first, suspect.last + 1))
        path = hierarchy.path(last)
        cut = sole_cut(glance, path)
        if cut is None:
            around = range(suspect.first - 1, min(last + FLASH, len(ticks)))
            is_plain = not suspect.has_cut and is_one_place(glance, path) and is_one_place(glance, around)
            return Change(None, [], iter(()), True) if is_plain else None
        first = glance.frames[cut]
        if first is None or not suspect.first <= cut <= last:
            return None
        path = [number for number in hierarchy.path(len(ticks) - 1) if number >= last]
        leads_on = is_one_place(glance, path)
        ends = glance(cut), glance(path[-1])
        leads_on &= ends[0] is not None and may_be_one_shot(ends[0], suspect.other.glance)
        leads_on &= ends[1] is not None and show_same_place(ends[1], suspect.other.glance)
        return Change(cut, [self._looks.picture(first)], self._looks.pictures(group.packets), leads_on)

    def _follow(self, suspect: Suspect) -> Change | None:
        """What happens, by the pictures from the first to some behind the last large packet."""
        group, ticks = suspect.group, suspect.ticks
        follower, pictures, looked, glance = Follower(), list[Picture](), -SOMETIMES, suspect.other.glance
        numbers: dict[int | None, int] = {tick: number for number, tick in enumerate(ticks)}
        sparse = 0
        if self._codec in SKIPPING_CODECS:
            wanted = ticks[suspect.first - 1]
            sparse = next(place for place, packet in enumerate(group.packets) if shown_at(packet) >= wanted)
        last = suspect.last + (LAYERED if may_hide(group.packets, self._codec) else 0)
        rest = self._looks.pictures(group.packets, sparse)
        for picture in rest:
            number = numbers.get(picture.frame.pts, -1)
            if number < 0:
                return None
            if number >= looked + SOMETIMES or number >= suspect.first - 1:
                glance, looked = self._looks.at(picture).glance, number
                if not follower.add(number, glance):
                    return None
            if follower.cut is not None:
                pictures.append(picture)
            if number >= (max(suspect.last, follower.cut) if follower.cut is not None else last) + FLASH:
                break
        leads_on = show_same_place(glance, suspect.other.glance)
        if follower.cut is not None and not leads_on and len(pictures) <= FLASH:
            return None
        return Change(follower.cut, pictures, rest, leads_on)

    def tell_cut(self, suspect: Suspect, before: Look | None) -> Change | None:
        """A cut shortly before a key picture at a fixed distance, told by one large packet alone.

        What is shown from there to the key picture is not seen. If that were something else again, it would be shorter
        than an event; and key pictures at fixed distances are seldom cuts themselves.

        Args:
            suspect: The group; those before it are as long.
            before: An earlier key picture of the shot, which tells how the camera moves; None if there is none.
        """
        group, ticks = suspect.group, suspect.ticks
        if not (suspect.has_cut and suspect.is_in_order):
            return None
        place = lone_packet(sizes_between(group, suspect.after), min(group.key.size, suspect.after.key.size))
        if place is None or may_hide(group.packets, self._codec):
            return None
        cut, latest = place + 1, suspect.look
        if ticks[cut] < suspect.after.start - self._reader.ticks(BRIEF) or cut <= HEAD:
            return None
        if before is None:
            before, latest = latest, self._looks.some_way_on(group.packets, ticks[HEAD]) or latest
        if not cannot_come(before, latest, suspect.other):
            return None
        first = Picture(suspect.other.frame, self._reader.seconds_at(ticks[cut]))
        return Change(cut, [first], iter(()), True)
