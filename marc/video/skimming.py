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
from typing import Literal

import numpy as np
from av.packet import Packet
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from marc.video.changes import HEAD, SKIPPING_CODECS, Change, ChangeFinder, Suspect
from marc.video.decoding import Picture, VideoReader
from marc.video.groups import (
    LAYERED,
    Group,
    between,
    can_come_back,
    changes_details,
    groups,
    needed_for,
    shown_at,
    sizes_between,
    spikes,
    stays_calm,
    ticks_of,
)
from marc.video.likeness import are_still, show_other_place, show_same_place
from marc.video.looks import Look, Looks, cannot_come, stays
from marc.video.requests import LeftOut

STRETCH, LONG_STRETCH = 4.0, 12.0
"""Seconds of quiet groups that one look may pass over, and of those that could hardly be more alike."""
FORCED_STRETCH = 7.0
"""As the first, where groups have one length, so that no key picture is there because of what is shown."""
EVEN_KEYS, EQUAL_KEYS = 0.05, 0.005
"""Shares by which the sizes of neighbouring key packets may differ that are passed over, for each of these."""
LAYERED_CODECS = ("av1", "vp9")
"""Codecs that may decode pictures far ahead of when they are shown, inside the packets of others."""
UNSHOWN = ("vp8",)
"""Codecs with packets of pictures that are never shown."""
PATIENCE, MOST_UNLOOKED = 2, 16
"""Looks in vain after which groups are decoded without a look, and how many."""
LONG = 3
"""Times the head of a group that it must be long for the head to be decoded to foresee the rest."""
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
        self._looks = Looks(reader)
        self._changes = ChangeFinder(reader, self._looks)
        self._latest: Picture | None = None
        self._given = -math.inf
        self._end = 0.0
        self._standing: Look | None = None
        self._before: Look | None = None
        self._unsettled: Skipped | None = None
        self._is_decoding = False
        self._in_vain, self._unlooked = 0, 0
        self._lengths: list[int] = []
        self._sizes_before = np.zeros(0, np.int64)
        self._key, self._has_new_clock = -math.inf, False
        self._last, self._lasts = -math.inf, 0

    def pictures(self) -> Iterator[Picture | Skipped]:
        """All pictures in order, those that were left out as `Skipped`.

        Raises:
            VideoError: The file ends before its video does; the pictures up to there have been given.
        """
        yield from self._events()
        if self._latest is not None:
            self._reader.check_last(self._end, self._lasts / self._reader.ticks(1.0))

    def _events(self) -> Iterator[Picture | Skipped]:
        waiting: list[Group] = []
        for group in groups(self._reader.undecoded()):
            self._note(group)
            if waiting:
                self._lengths = [*self._lengths[-1:], len(waiting[-1].packets)]
                where = self._spikes(waiting[-1], group)
                self._sizes_before = np.zeros(0, np.int64) if where is None else sizes_between(waiting[-1], group)
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

    def _note(self, group: Group) -> None:
        """Take note of where the times fall back, and of how long the picture lasts that is shown last."""
        if group.is_whole:
            self._has_new_clock |= group.start <= self._key
            self._key = group.start
        for packet in group.packets:
            if packet.pts is not None and packet.pts >= self._last:
                self._last, self._lasts = packet.pts, packet.duration or 0

    def _spikes(self, group: Group, after: Group | None) -> NDArray[np.intp] | None:
        """Which packets behind a group's first one may bring something else into the picture; None if unknown.

        Of what follows where the times have fallen back nothing is known.
        """
        is_whole = group.is_whole and (after is None or after.is_whole)
        if self._has_new_clock or self._reader.has_new_clock or not is_whole:
            return None
        key = group.key.size if after is None else min(group.key.size, after.key.size)
        return spikes(sizes_between(group, after), key)

    def _may_pass_over(self, waiting: Sequence[Group], group: Group) -> bool:
        """Whether the key picture of a group need not be looked at if those before and behind show the same."""
        end = waiting[-1] if len(waiting) > 1 and _gives_context(waiting) else group
        seconds = self._reader.seconds_at(end.start) - self._reader.seconds_at(waiting[0].start)
        if seconds >= LONG_STRETCH:
            return False
        if changes_details(sizes_between(waiting[-1], group), waiting[-1].key.size):
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
        elif self._looks.show_the_same(stretch[0].key, after.key):
            if self._before is None and after.start - stretch[0].start > self._reader.ticks(STRETCH):
                yield from self._read_and_come_back(stretch, after)
                return
            self._in_vain = 0
            yield from self._pass_over(stretch, after)
            self._before = self._looks.at_key(stretch[0].key)
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
        look, other = self._looks.at_key(stretch[0].key), self._looks.at_key(after.key)
        assert look is not None and other is not None
        packets, ticks = [packet for group in stretch for packet in group.packets], ticks_of(stretch, after)
        latest = None
        if len(ticks) > HEAD + 1:
            latest = yield from self._some_way_on(packets, ticks)
        if latest is None:
            yield from self._decode(stretch)
        elif are_still(look.glance, latest.glance) or cannot_come(look, latest, other):
            self._in_vain = 0
            yield from self._stand(look)
            yield self._left_out(ticks, self._standing or look, "same")
            self._before = look
        else:
            yield from self._decode_in_vain(stretch)

    def _some_way_on(self, packets: Sequence[Packet], ticks: Sequence[int]) -> Generator[Picture, None, Look | None]:
        """Look at a picture some way behind the first one; where a detector needs those up to it, they are given."""
        if self._is_decoding:
            yield from self._head(packets, ticks[HEAD])
            return None if self._latest is None else self._looks.at(self._latest)
        return self._looks.some_way_on(packets, ticks[HEAD])

    def _read_last(self, group: Group) -> Iterator[Picture | Skipped]:
        """What is shown in the last group, behind which there is no key picture: its own has to do."""
        where = self._spikes(group, None) if self._in_vain < PATIENCE else None
        look = None if where is None else self._looks.at_key(group.key)
        if where is None or len(where) or look is None:
            yield from self._read_changing(group, None, where)
            return
        ticks = ticks_of([group], None)
        yield from self._settle("cut")
        if self._stands(group, look):
            yield from self._pass_over([group], None)
            return
        if len(ticks) <= HEAD + 1:
            yield from self._decode([group])
            return
        latest, sizes_N = (yield from self._some_way_on(group.packets, ticks)), sizes_between(group, None)
        is_calm = stays_calm(sizes_N[:HEAD], sizes_N[HEAD:], group.key.size)
        if is_calm and latest is not None and stays(look, latest, self._reader.seconds_at(ticks[-1])):
            yield from self._stand(look)
            yield self._left_out(ticks, self._standing or look, "same")
        else:
            yield from self._decode([group])

    def _stands(self, group: Group, look: Look) -> bool:
        """Whether a camera that stood until the last group surely stands in it: no more is changed than before."""
        if self._before is None or not are_still(self._before.glance, look.glance):
            return False
        return stays_calm(self._sizes_before, sizes_between(group, None), group.key.size)

    def _read_changing(
        self, group: Group, after: Group | None, where: NDArray[np.intp] | None
    ) -> Iterator[Picture | Skipped]:
        """What is shown in a group in which something may change at some packets, or anywhere.

        It is decoded up to some pictures behind the last of these packets. If that shows what the next key picture
        shows (in the last group, its own), what is between them is left out. All of it is where the packets bring no
        more than a detail into a place that is still there at the end.
        """
        if where is not None and after is not None:
            if self._comes_not_back(group, after):
                yield from self._read([group], after)
                return
            if (yield from self._read_around(group, after, where)):
                return
        yield from self._settle("cut" if where is not None and len(where) and where[0] > HEAD else "perhaps")
        ticks = ticks_of([group], after) if group.is_whole and (after is None or after.is_whole) else []
        other = None if where is None else self._looks.at_key((after or group).key)
        if where is None or other is None:
            yield from self._decode([group])
            return
        changed = shown_at(between(group, after)[int(where[-1])])
        last = sum(tick <= changed for tick in ticks) + self._reordered()
        if last + HEAD >= len(ticks):
            yield from self._decode([group])
            return
        done = yield from self._feed(group.packets, ticks[last])
        sizes_N, calm = sizes_between(group, after), int(where[-1]) + HEAD
        is_calm = after is not None or stays_calm(sizes_N[where[-1] + 1 : calm], sizes_N[calm:], group.key.size)
        look = None if self._latest is None else self._looks.at(self._latest)
        if is_calm and look is not None and self._is_there_to_the_end(other, look, ticks[-1]):
            yield from self._noted(self._reader.rest(), ticks[last])
            self._is_decoding, self._before = False, None
            yield self._left_out(ticks, other, "same")
        else:
            for packet in group.packets[done:]:
                yield from self._noted(self._reader.pictures_of(packet))
            self._is_decoding, self._standing, self._before = True, None, None

    def _is_there_to_the_end(self, key: Look, look: Look, last: int) -> bool:
        """Whether a picture surely shows what the next key picture, or that of the last group, shows, and stays."""
        if key.seconds > look.seconds:
            return show_same_place(look.glance, key.glance)
        return stays(key, look, self._reader.seconds_at(last))

    def _comes_not_back(self, group: Group, after: Group) -> bool:
        """Whether a group surely shows one place, whatever its large packets change in it."""
        key = min(group.key.size, after.key.size)
        if self._reader.info.codec not in SKIPPING_CODECS or can_come_back(sizes_between(group, after), key):
            return False
        return self._looks.show_the_same(group.key, after.key)

    def _read_around(
        self, group: Group, after: Group, where: NDArray[np.intp]
    ) -> Generator[Picture | Skipped, None, bool]:
        """What is shown in a group with large packets, if it is one place, or one that surely gives way to another.

        Its first picture stands for the place. If all behind a cut surely shows what the next key picture shows, the
        first picture behind it stands for the other. A cut behind the first picture leaves nothing out in front of it.

        Returns:
            Whether that is so. Else nothing has been given but perhaps the first few pictures.
        """
        look, other = self._looks.at_key(group.key), self._looks.at_key(after.key)
        if look is None or other is None or not after.is_whole:
            return False
        suspect = Suspect(group, after, (look, other), where)
        is_early = suspect.first <= HEAD and (self._is_decoding or self._unsettled is not None)
        if is_early or not suspect.is_plain or suspect.last >= len(suspect.ticks) - len(after.leading()):
            return False
        if self._unlooked > 0:
            self._unlooked -= 1
            return False
        if self._is_decoding:
            yield from self._head(group.packets, suspect.ticks[HEAD])
        is_fixed = self._lengths == [len(group.packets)] * 2
        found = self._changes.tell_cut(suspect, self._before) if is_fixed else None
        found = found or self._changes.find(suspect)
        if found is None or (found.cut is not None) != suspect.has_cut or found.cut == 1:
            self._looked_in_vain()
            return False
        self._in_vain = 0
        yield from self._settle("cut")
        yield from self._stand(look)
        then: Literal["cut", "same"] = "cut" if suspect.has_cut else "same"
        yield self._left_out(suspect.ticks[: found.cut], self._standing or look, then)
        self._before = look
        if suspect.has_cut:
            yield from self._read_behind(found, suspect)
        return True

    def _read_behind(self, found: Change, suspect: Suspect) -> Iterator[Picture | Skipped]:
        """What is shown in a group from a cut on."""
        hidden = suspect.ticks[(found.cut or 0) + 1 :]
        self._given = suspect.ticks[found.cut or 0]
        yield self._latest_is(found.pictures[0])
        behind = self._looks.at(found.pictures[0])
        if not found.leads_on:
            yield from self._noted(iter(found.pictures[1:]))
            if suspect.after.leading():
                yield from self._feed(suspect.group.packets, math.inf)
            else:
                yield from self._noted(found.rest)
            self._is_decoding, self._standing, self._before = True, None, None
        else:
            self._standing = behind
            self._before = behind if len(hidden) >= HEAD else None
            if hidden:
                yield self._left_out(hidden, behind, "same")

    def _reordered(self) -> int:
        """How many pictures a packet may be decoded ahead of the one from which on its picture counts."""
        return LAYERED + HEAD if self._reader.info.codec in LAYERED_CODECS else 2 * HEAD

    def _read_to_another_place(self, group: Group, after: Group) -> Iterator[Picture | Skipped]:
        """What is shown in a quiet group whose key picture does not look like the next one.

        A decoder that is at work still holds pictures of the group before: it is emptied by some of this one's.
        """
        look, ticks = self._looks.at_key(group.key), ticks_of([group], after)
        other = self._looks.at_key(after.key)
        largest = max(packet.size for packet in between(group, after))
        is_too_large = largest > MUCH * min(group.key.size, after.key.size)
        if is_too_large or look is None or other is None or not show_other_place(look.glance, other.glance):
            yield from self._decode_in_vain([group])
            return
        before, latest = None if self._is_decoding else self._before, look
        if before is None and len(ticks) > HEAD * LONG:
            before = look
            latest = (yield from self._some_way_on(group.packets, ticks)) or look
        if before is not None and cannot_come(before, latest, other):
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
        ticks, look = ticks_of(stretch, after), self._looks.at_key(stretch[0].key)
        assert look is not None
        if self._is_decoding and len(ticks) <= HEAD + 1:
            yield from self._decode(stretch)
            return
        if self._is_decoding:
            yield from self._head([packet for group in stretch for packet in group.packets], ticks[HEAD])
        yield from self._stand(look)
        yield self._left_out(ticks, self._standing or look, "same")

    def _stand(self, look: Look) -> Iterator[Picture]:
        """A key picture, unless it has been given or one like it stands for it."""
        if self._standing is None or not are_still(self._standing.glance, look.glance):
            if look.frame.pts is not None and look.frame.pts > self._given:
                yield self._given_alone(look)
            self._standing = look

    def _given_alone(self, look: Look) -> Picture:
        """A key picture that was decoded alone."""
        assert look.frame.pts is not None
        self._given, self._standing = look.frame.pts, look
        return self._latest_is(Picture(look.frame, look.seconds))

    def _left_out(self, ticks: Sequence[int], stand_in: Look, then: Literal["same", "cut", "perhaps"]) -> Skipped:
        """Those of some pictures that were not given."""
        self._standing = stand_in
        ticks_N = np.array(ticks, np.int64)
        seconds_N = self._reader.seconds_of(ticks_N[ticks_N > self._given])
        self._end = float(seconds_N[-1]) if len(seconds_N) else self._end
        return Skipped(LeftOut(seconds_N, then), stand_in.frame)

    def _head(self, packets: Sequence[Packet], last: int) -> Iterator[Picture]:
        """The pictures up to one that is shown at a tick; the decoder is as good as new afterwards.

        Whoever then wants all of them gives the same packets again.
        """
        yield from self._feed(packets, last)
        yield from self._noted(self._reader.rest(self._reader.seconds_at(shown_at(packets[0]))), last)
        self._is_decoding = False

    def _feed(self, packets: Sequence[Packet], last: float) -> Generator[Picture, None, int]:
        """The pictures that the decoder gives for the packets of groups that are needed up to one shown at a tick.

        Behind a gap, pictures that are shown before the first key picture refer to what was left out: they are passed.

        Returns:
            How many packets were needed.
        """
        needed = packets if last == math.inf else needed_for(packets, last)
        begins = packets[0].pts
        for packet in needed:
            if self._is_decoding or packet.pts is None or begins is None or packet.pts >= begins:
                yield from self._noted(self._reader.pictures_of(packet), last)
        return len(needed)

    def _noted(self, pictures: Iterator[Picture], last: float = math.inf) -> Iterator[Picture]:
        """Those of some decoded pictures that were not given before, up to a tick; key pictures are remembered."""
        for picture in pictures:
            tick = picture.frame.pts
            if tick is not None and not self._reader.has_new_clock and not self._given < tick <= last:
                continue
            if tick is not None:
                self._given = tick
                if picture.frame.key_frame:
                    self._looks.remember(picture.frame)
            yield self._latest_is(picture)

    def _latest_is(self, picture: Picture) -> Picture:
        self._latest, self._end = picture, picture.seconds
        return picture


def _gives_context(stretch: Sequence[Group]) -> bool:
    """Whether the last of some groups is decoded as well where the next one has to be: a detector looks back."""
    return len(stretch) > 0 and len(stretch[-1].packets) <= 2 * HEAD
