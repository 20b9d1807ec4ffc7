"""Reading a video coarse to fine: what surely shows the same place all the time is not decoded.

A file tells without decoding where its key pictures are and how large every packet is. Where packets rule out that
something else was shown between two key pictures (`marc.video.groups`) and both show the same place
(`marc.video.likeness`), the first stands for what is shown until the second. It does so as well where they look so
different that the camera, as it moved before, cannot have come there: a cut at the second, for a detector to judge.
All other groups of pictures are decoded.

Nothing is sought: packets are read once, in order, and wait until it is known whether they are needed.

Shape legend: N pictures that are left out.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from av.packet import Packet
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from marc.video.alone import LoneDecoder
from marc.video.cuts import Follower, Glances, is_one_place, sole_cut
from marc.video.decoding import Picture, VideoReader
from marc.video.groups import LAYERED, Group, changes_details, groups, lone_packet, may_hide, shown_at, spikes
from marc.video.likeness import (
    HEIGHT,
    WIDTH,
    Glance,
    Glancer,
    are_still,
    drift,
    likeness,
    may_be_one_shot,
    show_other_place,
    show_same_place,
)
from marc.video.requests import LeftOut

STRETCH, LONG_STRETCH = 4.0, 12.0
"""Seconds of quiet groups that one look may pass over, and of those that could hardly be more alike."""
FORCED_STRETCH = 7.0
"""As the first, where groups have one length, so that no key picture is there because of what is shown."""
EVEN_KEYS, EQUAL_KEYS = 0.05, 0.005
"""Shares by which the sizes of neighbouring key packets may differ that are passed over, for each of these."""
HEAD = 16
"""Pictures behind a cut that a detector must see to be sure of it."""
LAYERED_CODECS = ("av1", "vp9")
"""Codecs that may decode pictures far ahead of when they are shown, inside the packets of others."""
SKIPPING_CODECS = ("h264", "hevc")
"""Codecs whose decoders can leave out pictures that no other refers to."""
UNSHOWN = ("vp8",)
"""Codecs with packets of pictures that are never shown."""
REMEMBERED = 4
"""Key pictures that are kept."""
PATIENCE, MOST_UNLOOKED = 2, 16
"""Looks in vain after which groups are decoded without a look, and how many."""
STEADY, FARTHEST, APART = 0.7, 0.35, 6.0
"""How alike pictures of a moving camera must be for it to be foreseen, how far it may come, in sides of the picture,
and how far apart the quarters of the picture, in pixels of a glance."""
LONG = 3
"""Times the head of a group that it must be long for the head to be decoded to foresee the rest."""
SOMETIMES, FLASH = 16, 5
"""Of so many pictures one is looked at where packets tell of nothing, and pictures behind a cut that must stay."""
BRIEF = 2.0
"""Seconds of the shortest event."""
CALM = 1.5
"""Times by which the packets of a group may be larger than those of the one before if nothing begins to move."""
MUCH = 0.1
"""Share of a key picture's bytes from which on a packet might hide that something else comes, if it is coded badly."""


@dataclass(frozen=True)
class Skipped:
    """Pictures that were not decoded.

    Attributes:
        frames: When they are shown, and what may follow.
        stand_in: A picture that stands for them.
    """

    frames: LeftOut
    stand_in: VideoFrame


@dataclass(frozen=True)
class _Look:
    """A picture, when it is shown, and what it looks like."""

    frame: VideoFrame
    seconds: float
    glance: Glance


@dataclass(frozen=True)
class _Span:
    """Pictures of a group in which something may change, by their numbers.

    Attributes:
        first: The first one that is shown when a large packet is, or later ones are.
        last: The last one.
        has_cut: Whether the next key picture shows something else than that of the group.
    """

    first: int
    last: int
    has_cut: bool


@dataclass(frozen=True)
class _Change:
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


def can_skim(reader: VideoReader) -> bool:
    """Whether a file tells enough for `Skimmer`: if not, all of it has to be decoded."""
    return reader.tells_packet_times and not reader.info.starts and reader.info.codec not in UNSHOWN


class Skimmer:
    """Reads a video from its start to its end and leaves out what surely does not change.

    Args:
        reader: The video, of which `can_skim` holds.
    """

    def __init__(self, reader: VideoReader) -> None:
        self._reader = reader
        self._glancer = Glancer()
        self._alone = LoneDecoder(reader.new_decoder)
        self._frames: dict[int, VideoFrame] = {}
        self._looks: dict[int, _Look] = {}
        self._latest: Picture | None = None
        self._given = -math.inf
        self._end = 0.0
        self._standing: _Look | None = None
        self._before: _Look | None = None
        self._unsettled: Skipped | None = None
        self._is_decoding = False
        self._in_vain, self._unlooked = 0, 0
        self._lengths: list[int] = []
        self._sizes_before = np.zeros(0, np.int64)

    def pictures(self) -> Iterator[Picture | Skipped]:
        """All pictures in order, those that were left out as `Skipped`.

        Raises:
            VideoError: The file ends before its video does; the pictures up to there have been given.
        """
        yield from self._events()
        if self._latest is not None:
            self._reader.check_last(self._end)

    def _events(self) -> Iterator[Picture | Skipped]:
        waiting: list[Group] = []
        for group in groups(self._reader.undecoded()):
            if waiting:
                self._lengths = [*self._lengths[-1:], len(waiting[-1].packets)]
                self._sizes_before = _sizes(waiting[-1], group)
                where = self._spikes(waiting[-1], group)
                if where is None or len(where):
                    seen = len(waiting) - 1 - _gives_context(waiting[:-1])
                    yield from self._read(waiting[:seen], waiting[seen])
                    yield from self._decode(waiting[seen:-1])
                    yield from self._read_changing(waiting[-1], group, where)
                    waiting = []
                elif not self._may_pass_over(waiting, group):
                    seen = len(waiting) - (len(waiting) > 1 and _gives_context(waiting))
                    yield from self._read(waiting[:seen], [*waiting, group][seen])
                    waiting = waiting[seen:]
            waiting.append(group)
        if waiting:
            yield from self._read(waiting[:-1], waiting[-1])
            yield from self._read_last(waiting[-1])
        yield from self._noted(self._reader.rest())

    def _spikes(self, group: Group, after: Group | None) -> NDArray[np.intp] | None:
        """Which packets behind a group's first one may bring something else into the picture; None if unknown."""
        if self._reader.has_new_clock or not group.is_whole:
            return None
        if after is not None and not (after.is_whole and group.start < after.start):
            return None
        key = group.key.size if after is None else min(group.key.size, after.key.size)
        return spikes(_sizes(group, after), key)

    def _may_pass_over(self, waiting: Sequence[Group], group: Group) -> bool:
        """Whether the key picture of a group need not be looked at if those before and behind show the same."""
        end = waiting[-1] if len(waiting) > 1 and _gives_context(waiting) else group
        seconds = self._reader.seconds_at(end.start) - self._reader.seconds_at(waiting[0].start)
        if seconds >= LONG_STRETCH:
            return False
        if changes_details(_sizes(waiting[-1], group), waiting[-1].key.size):
            return False
        sizes = waiting[-1].key.size, group.key.size
        most = FORCED_STRETCH if self._lengths == [len(waiting[-1].packets)] * 2 else STRETCH
        return max(sizes) <= (1 + (EVEN_KEYS if seconds < most else EQUAL_KEYS)) * min(sizes)

    def _read(self, stretch: Sequence[Group], after: Group) -> Iterator[Picture | Skipped]:
        """What is shown in quiet groups."""
        if not stretch:
            return
        yield from self._settle("cut")
        if self._unlooked > 0:
            self._unlooked -= len(stretch)
            yield from self._decode(stretch)
        elif self._show_the_same(stretch[0].key, after.key):
            if self._before is None and after.start - stretch[0].start > self._reader.ticks(STRETCH):
                yield from self._read_and_come_back(stretch, after)
                return
            self._in_vain = 0
            yield from self._pass_over(stretch, after)
            self._before = self._look(stretch[0].key)
        elif len(stretch) > 1 and self._in_vain < PATIENCE:
            half = len(stretch) // 2
            yield from self._read(stretch[:half], stretch[half])
            yield from self._read(stretch[half:], after)
        elif len(stretch) == 1:
            yield from self._read_to_another_place(stretch[0], after)
        else:
            yield from self._decode_in_vain(stretch)

    def _read_and_come_back(self, stretch: Sequence[Group], after: Group) -> Iterator[Picture | Skipped]:
        """What is shown for long between two key pictures that show the same, where nothing is known of the camera.

        Its first pictures tell whether it stands, or moves so slowly that it cannot have been elsewhere meanwhile.
        """
        ticks, look, other = _ticks(stretch, after), self._look(stretch[0].key), self._look(after.key)
        assert look is not None and other is not None
        packets = [packet for group in stretch for packet in group.packets]
        latest = None
        if len(ticks) > HEAD + 1:
            latest = yield from self._some_way_on(packets, ticks)
        if latest is None:
            yield from self._decode(stretch)
        elif are_still(look.glance, latest.glance) or _cannot_come(look, latest, other):
            self._in_vain = 0
            yield from self._stand(look)
            yield self._left_out(ticks, self._standing or look, "same")
            self._before = look
        else:
            yield from self._decode_in_vain(stretch)

    def _some_way_on(self, packets: Sequence[Packet], ticks: Sequence[int]) -> Generator[Picture, None, _Look | None]:
        """Look at a picture some way behind the first one; where a detector needs those up to it, they are given."""
        if self._is_decoding:
            yield from self._head(packets, ticks[HEAD])
            return None if self._latest is None else self._looked_at(self._latest)
        return self._peek(packets, ticks)

    def _peek(self, packets: Sequence[Packet], ticks: Sequence[int]) -> _Look | None:
        """Look at a picture some way behind the first one, which is all that is decoded for."""
        latest = None
        for latest in self._lone_pictures(_needed(packets, ticks[HEAD])):
            if latest.frame.pts == ticks[HEAD]:
                break
        return None if latest is None else self._looked_at(latest)

    def _read_last(self, group: Group) -> Iterator[Picture | Skipped]:
        """What is shown in the last group, behind which there is no key picture: its own has to do."""
        where = self._spikes(group, None) if self._in_vain < PATIENCE else None
        look = None if where is None else self._look(group.key)
        if where is None or len(where) or look is None:
            yield from self._read_changing(group, None, where)
            return
        ticks = _ticks([group], None)
        yield from self._settle("cut")
        if self._stands(group, look):
            yield from self._pass_over([group], None)
            return
        if len(ticks) <= HEAD + 1:
            yield from self._decode([group])
            return
        latest = yield from self._some_way_on(group.packets, ticks)
        if latest is not None and show_same_place(look.glance, latest.glance):
            yield from self._stand(look)
            yield self._left_out(ticks, self._standing or look, "same")
        else:
            yield from self._decode([group])

    def _stands(self, group: Group, look: _Look) -> bool:
        """Whether a camera that stood until the last group surely stands in it: no more is changed than before."""
        if self._before is None or not len(self._sizes_before):
            return False
        is_calm = float(_sizes(group, None).mean()) <= CALM * float(self._sizes_before.mean())
        return is_calm and are_still(self._before.glance, look.glance)

    def _read_changing(
        self, group: Group, after: Group | None, where: NDArray[np.intp] | None
    ) -> Iterator[Picture | Skipped]:
        """What is shown in a group in which something may change at some packets, or anywhere.

        It is decoded up to some pictures behind the last of these packets. If that shows what the next key picture
        shows (in the last group, its own), what is between them is left out.
        """
        if where is not None and after is not None and (yield from self._read_around(group, after, where)):
            return
        yield from self._settle("cut" if where is not None and len(where) and where[0] > HEAD else "perhaps")
        ticks = _ticks([group], after) if group.is_whole and (after is None or after.is_whole) else []
        other = None if where is None else self._look((after or group).key)
        if where is None or other is None:
            yield from self._decode([group])
            return
        changed = shown_at(_behind(group, after)[int(where[-1])])
        last = sum(tick <= changed for tick in ticks) + self._reordered()
        if last + HEAD >= len(ticks):
            yield from self._decode([group])
            return
        done = yield from self._feed(group.packets, ticks[last])
        if self._latest is not None and show_same_place(self._glancer(self._latest.frame), other.glance):
            yield from self._noted(self._reader.rest(), ticks[last])
            self._is_decoding, self._before = False, None
            yield self._left_out(ticks, other, "same")
        else:
            for packet in group.packets[done:]:
                yield from self._noted(self._reader.pictures_of(packet))
            self._is_decoding, self._standing, self._before = True, None, None

    def _read_around(
        self, group: Group, after: Group, where: NDArray[np.intp]
    ) -> Generator[Picture | Skipped, None, bool]:
        """What is shown in a group with large packets, if it is one place, or one that surely gives way to another.

        Its first picture stands for the place. If all behind a cut surely shows what the next key picture shows, the
        first picture behind it stands for the other.

        Returns:
            Whether that is so. Else nothing has been given but perhaps the first few pictures.
        """
        look, other, ticks = self._look(group.key), self._look(after.key), _ticks([group], after)
        if look is None or other is None or not after.is_whole:
            return False
        has_cut = show_other_place(look.glance, other.glance)
        span = _span(ticks, _behind(group, after), where, has_cut=has_cut)
        if not (has_cut or show_same_place(look.glance, other.glance)):
            return False
        is_early = span.first <= HEAD and (self._is_decoding or self._unsettled is not None)
        if is_early or span.last >= len(ticks) - len(after.leading()):
            return False
        if self._unlooked > 0:
            self._unlooked -= 1
            return False
        if self._is_decoding:
            yield from self._head(group.packets, ticks[HEAD])
        found = self._tell_cut(group, after, ticks, span) or self._find_change(group, ticks, span, other)
        if found is None or (found.cut is not None) != has_cut:
            self._looked_in_vain()
            return False
        self._in_vain = 0
        yield from self._settle("cut")
        yield from self._stand(look)
        yield self._left_out(ticks[: found.cut], self._standing or look, "cut" if has_cut else "same")
        self._before = look
        if has_cut:
            yield from self._read_behind(found, group, after)
        return True

    def _tell_cut(self, group: Group, after: Group, ticks: Sequence[int], span: _Span) -> _Change | None:
        """A cut shortly before a key picture, told by one large packet: nothing behind it is decoded.

        What is shown from there to the key picture is not seen. If that were something else again, it would be shorter
        than an event; and key pictures at fixed distances are seldom cuts themselves.
        """
        look, other = self._look(group.key), self._look(after.key)
        is_in_order = [shown_at(packet) for packet in group.packets] == list(ticks)
        is_fixed = self._lengths == [len(group.packets)] * 2
        if not (span.has_cut and is_in_order and is_fixed and look and other):
            return None
        place = lone_packet(_sizes(group, after), min(group.key.size, after.key.size))
        if place is None or may_hide(group.packets, self._reader.info.codec):
            return None
        cut, before, latest = place + 1, self._before, look
        if ticks[cut] < after.start - self._reader.ticks(BRIEF) or cut <= HEAD:
            return None
        if before is None:
            before, latest = look, self._peek(group.packets, ticks) or look
        if not _cannot_come(before, latest, other):
            return None
        first = Picture(other.frame, self._reader.seconds_at(ticks[cut]))
        return _Change(cut, [first], iter(()), True)

    def _read_behind(self, found: _Change, group: Group, after: Group) -> Iterator[Picture | Skipped]:
        """What is shown in a group from a cut on."""
        ticks = _ticks([group], after)
        hidden = ticks[(found.cut or 0) + 1 :]
        self._given = ticks[found.cut or 0]
        yield self._latest_is(found.pictures[0])
        behind = self._looked_at(found.pictures[0])
        if not found.leads_on:
            yield from self._noted(iter(found.pictures[1:]))
            if after.leading():
                yield from self._feed(group.packets, math.inf)
            else:
                yield from self._noted(found.rest)
            self._is_decoding, self._standing, self._before = True, None, None
        else:
            self._standing = behind
            self._before = behind if len(hidden) >= HEAD else None
            if hidden:
                yield self._left_out(hidden, behind, "same")

    def _find_change(self, group: Group, ticks: Sequence[int], span: _Span, other: _Look) -> _Change | None:
        """What happens in a group, by as few of its pictures as its packets allow; None if that is not plain."""
        is_in_order = [shown_at(packet) for packet in group.packets] == list(ticks)
        is_layered = self._reader.info.codec == "av1" and is_in_order
        layered = self._alone.layered(group.packets) if is_layered else None
        if layered is None:
            return self._follow(group, ticks, span, other)
        look = self._look(group.key)
        assert look is not None
        hierarchy, glance = layered.hierarchy, Glances(layered, self._glance, look.glance)
        last = max(hierarchy.latest_shown(number) for number in range(span.first, span.last + 1))
        path = hierarchy.path(last)
        cut = sole_cut(glance, path)
        if cut is None:
            around = range(span.first - 1, min(last + FLASH, len(ticks)))
            is_plain = not span.has_cut and is_one_place(glance, path) and is_one_place(glance, around)
            return _Change(None, [], iter(()), True) if is_plain else None
        first = glance.frames[cut]
        if first is None or not span.first <= cut <= last:
            return None
        path = [number for number in hierarchy.path(len(ticks) - 1) if number >= last]
        leads_on = is_one_place(glance, path)
        ends = glance(cut), glance(path[-1])
        leads_on &= ends[0] is not None and may_be_one_shot(ends[0], other.glance)
        leads_on &= ends[1] is not None and show_same_place(ends[1], other.glance)
        return _Change(cut, [self._picture(first)], self._lone_pictures(group.packets), leads_on)

    def _follow(self, group: Group, ticks: Sequence[int], span: _Span, other: _Look) -> _Change | None:
        """What happens in a group, by its pictures from the first to some behind the last large packet."""
        follower, pictures, looked, glance = Follower(), list[Picture](), -SOMETIMES, other.glance
        numbers: dict[int | None, int] = {tick: number for number, tick in enumerate(ticks)}
        sparse = 0
        if self._reader.info.codec in SKIPPING_CODECS:
            wanted = ticks[span.first - 1]
            sparse = next(place for place, packet in enumerate(group.packets) if shown_at(packet) >= wanted)
        last = span.last + (LAYERED if may_hide(group.packets, self._reader.info.codec) else 0)
        rest = self._lone_pictures(group.packets, sparse)
        for picture in rest:
            number = numbers.get(picture.frame.pts, -1)
            if number < 0:
                return None
            if number >= looked + SOMETIMES or number >= span.first - 1:
                glance, looked = self._glancer(picture.frame), number
                if not follower.add(number, glance):
                    return None
            if follower.cut is not None:
                pictures.append(picture)
            if number >= (max(span.last, follower.cut) if follower.cut is not None else last) + FLASH:
                break
        leads_on = show_same_place(glance, other.glance)
        if follower.cut is not None and not leads_on and len(pictures) <= FLASH:
            return None
        return _Change(follower.cut, pictures, rest, leads_on)

    def _lone_pictures(self, packets: Sequence[Packet], sparse: int = 0) -> Iterator[Picture]:
        own = [packet for packet in packets if shown_at(packet) >= shown_at(packets[0])]
        for frame in self._alone.frames(own, sparse=sparse):
            self._reader.decoded.count(frame)
            if frame.pts is not None:
                yield self._picture(frame)

    def _picture(self, frame: VideoFrame) -> Picture:
        assert frame.pts is not None
        return Picture(frame, self._reader.seconds_at(frame.pts))

    def _reordered(self) -> int:
        """How many pictures a packet may be decoded ahead of the one from which on its picture counts."""
        return LAYERED + HEAD if self._reader.info.codec in LAYERED_CODECS else 2 * HEAD

    def _show_the_same(self, first: Packet, second: Packet) -> bool:
        """Whether two key pictures surely show the same place."""
        looks = self._look(first), self._look(second)
        return looks[0] is not None and looks[1] is not None and show_same_place(looks[0].glance, looks[1].glance)

    def _read_to_another_place(self, group: Group, after: Group) -> Iterator[Picture | Skipped]:
        """What is shown in a quiet group whose key picture does not look like the next one."""
        look, ticks = self._look(group.key), _ticks([group], after)
        other = self._look(after.key)
        largest = max(packet.size for packet in _behind(group, after))
        is_too_large = largest > MUCH * min(group.key.size, after.key.size)
        if is_too_large or look is None or other is None or not show_other_place(look.glance, other.glance):
            yield from self._decode_in_vain([group])
            return
        before, latest = self._before, look
        if before is None and len(ticks) > HEAD * LONG:
            before = look
            latest = (yield from self._some_way_on(group.packets, ticks)) or look
        if before is not None and _cannot_come(before, latest, other):
            self._in_vain, self._before = 0, None
            yield from self._stand(look)
            self._unsettled = self._left_out(ticks, self._standing or look, "perhaps")
        else:
            yield from self._decode_in_vain([group])

    def _settle(self, then: Literal["cut", "perhaps"]) -> Iterator[Skipped]:
        """What was left out in front of something that looks different, now that it is known what follows."""
        if self._unsettled is not None:
            seconds_N = self._unsettled.frames.seconds
            yield Skipped(LeftOut(seconds_N, then), self._unsettled.stand_in)
            self._unsettled = None

    def _decode_in_vain(self, stretch: Sequence[Group]) -> Iterator[Picture | Skipped]:
        """Pictures of groups that were looked at for nothing."""
        self._looked_in_vain()
        yield from self._decode(stretch)

    def _looked_in_vain(self) -> None:
        """Have patience for the next groups."""
        self._in_vain += 1
        self._unlooked = min(2 ** (self._in_vain - PATIENCE), MOST_UNLOOKED) if self._in_vain >= PATIENCE else 0

    def _decode(self, stretch: Sequence[Group]) -> Iterator[Picture | Skipped]:
        """All pictures of groups; behind a gap the first one's without those that refer to what was left out."""
        yield from self._settle("perhaps")
        for group in stretch:
            yield from self._feed(group.packets, math.inf)
            self._is_decoding, self._standing, self._before = True, None, None

    def _pass_over(self, stretch: Sequence[Group], after: Group | None) -> Iterator[Picture | Skipped]:
        """The first picture of groups, for all of them, unless the one that stands for those before does as well.

        Behind something that was decoded it is the first few pictures: whether that ended in a cut shows only then.
        """
        ticks, look = _ticks(stretch, after), self._look(stretch[0].key)
        assert look is not None
        if self._is_decoding and len(ticks) <= HEAD + 1:
            yield from self._decode(stretch)
            return
        if self._is_decoding:
            yield from self._head([packet for group in stretch for packet in group.packets], ticks[HEAD])
        yield from self._stand(look)
        yield self._left_out(ticks, self._standing or look, "same")

    def _stand(self, look: _Look) -> Iterator[Picture]:
        """A key picture, unless it has been given or one like it stands for it."""
        if self._standing is None or not are_still(self._standing.glance, look.glance):
            if look.frame.pts is not None and look.frame.pts > self._given:
                yield self._given_alone(look)
            self._standing = look

    def _given_alone(self, look: _Look) -> Picture:
        """A key picture that was decoded alone."""
        assert look.frame.pts is not None
        self._given, self._standing = look.frame.pts, look
        return self._latest_is(Picture(look.frame, look.seconds))

    def _left_out(self, ticks: Sequence[int], stand_in: _Look, then: Literal["same", "cut", "perhaps"]) -> Skipped:
        """Those of some pictures that were not given."""
        self._standing = stand_in
        ticks_N = np.array(ticks, np.int64)
        seconds_N = self._reader.seconds_of(ticks_N[ticks_N > self._given])
        self._end = float(seconds_N[-1]) if len(seconds_N) else self._end
        return Skipped(LeftOut(seconds_N, then), stand_in.frame)

    def _head(self, packets: Sequence[Packet], last: int) -> Iterator[Picture]:
        """The pictures up to one that is shown at a tick; the decoder is as good as new afterwards."""
        yield from self._feed(packets, last)
        yield from self._noted(self._reader.rest(), last)
        self._is_decoding = False

    def _feed(self, packets: Sequence[Packet], last: float) -> Generator[Picture, None, int]:
        """The pictures that the decoder gives for the packets of groups that are needed up to one shown at a tick.

        Behind a gap, pictures that are shown before the first key picture refer to what was left out: they are passed.

        Returns:
            How many packets were needed.
        """
        needed = packets if last == math.inf else _needed(packets, last)
        for packet in needed:
            if self._is_decoding or shown_at(packet) >= shown_at(packets[0]):
                yield from self._noted(self._reader.pictures_of(packet), last)
        return len(needed)

    def _noted(self, pictures: Iterator[Picture], last: float = math.inf) -> Iterator[Picture]:
        """Those of some decoded pictures that were not given before, up to a tick; key pictures are remembered."""
        for picture in pictures:
            tick = picture.frame.pts
            if tick is not None and not self._given < tick <= last:
                continue
            if tick is not None:
                self._given = tick
                if picture.frame.key_frame:
                    _keep(self._frames, tick, picture.frame)
            yield self._latest_is(picture)

    def _latest_is(self, picture: Picture) -> Picture:
        self._latest, self._end = picture, picture.seconds
        return picture

    def _look(self, key: Packet) -> _Look | None:
        """A key picture, decoded alone unless it was seen before; None where that is not possible."""
        tick = shown_at(key)
        if tick not in self._looks:
            frame = self._frames.get(tick) or self._alone.decode_key(key)
            if frame is None:
                return None
            self._reader.decoded.count(frame)
            _keep(self._looks, tick, self._looked_at(Picture(frame, self._reader.seconds_at(tick))))
        return self._looks[tick]

    def _glance(self, frame: VideoFrame) -> Glance:
        """A glance at a picture that was decoded for nothing else."""
        self._reader.decoded.count(frame)
        return self._glancer(frame)

    def _looked_at(self, picture: Picture) -> _Look:
        return _Look(picture.frame, picture.seconds, self._glancer(picture.frame))


def _gives_context(stretch: Sequence[Group]) -> bool:
    """Whether the last of some groups is decoded as well where the next one has to be: a detector looks back."""
    return len(stretch) > 0 and len(stretch[-1].packets) <= 2 * HEAD


def _sizes(group: Group, after: Group | None) -> NDArray[np.int64]:
    return np.array([packet.size for packet in _behind(group, after)], np.int64)


def _behind(group: Group, after: Group | None) -> list[Packet]:
    """The packets of the pictures that are shown between two key pictures, in the order of decoding."""
    return group.following() + (after.leading() if after is not None else [])


def _span(ticks: Sequence[int], packets: Sequence[Packet], where: NDArray[np.intp], *, has_cut: bool) -> _Span:
    first = min(shown_at(packet) for packet in packets[where[0] :])
    last = max(shown_at(packet) for packet in packets[: where[-1] + 1])
    return _Span(ticks.index(first), ticks.index(last), has_cut)


def _needed(packets: Sequence[Packet], last: float) -> Sequence[Packet]:
    """The packets that must be decoded for the pictures up to one that is shown at a tick."""
    return packets[: 1 + max(place for place, packet in enumerate(packets) if shown_at(packet) <= last)]


def _ticks(stretch: Sequence[Group], after: Group | None) -> list[int]:
    """When the pictures are shown from the first key picture of some groups to that of the next, in order."""
    packets = [packet for group in stretch for packet in group.packets] + (
        after.leading() if after is not None else []
    )
    return sorted(tick for tick in map(shown_at, packets) if tick >= stretch[0].start)


def _cannot_come(before: _Look, look: _Look, other: _Look) -> bool:
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


def _keep(kept: dict[int, Any], tick: int, new: Any) -> None:
    kept[tick] = new
    while len(kept) > REMEMBERED:
        del kept[next(iter(kept))]
