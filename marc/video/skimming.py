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

import av
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from marc.video.container import default_stream, open_container
from marc.video.decoding import Picture, VideoReader, decoder_options
from marc.video.groups import LAYERED, Group, changes_details, groups, shown_at, spikes
from marc.video.likeness import HEIGHT, WIDTH, Glance, Glancer, drift, likeness
from marc.video.requests import LeftOut

STRETCH = 4.0
"""Seconds of quiet groups that one look may pass over."""
EVEN_KEYS = 0.05
"""Share by which the sizes of neighbouring key packets may differ that are passed over."""
HEAD = 16
"""Pictures behind a cut that a detector must see to be sure of it."""
LAYERED_CODECS = ("av1", "vp9")
"""Codecs that may decode pictures far ahead of when they are shown, inside the packets of others."""
UNSHOWN = ("vp8",)
"""Codecs with packets of pictures that are never shown."""
REMEMBERED = 4
"""Key pictures that are kept."""
PATIENCE, MOST_UNLOOKED = 2, 16
"""Looks in vain after which groups are decoded without a look, and how many."""
SAME_OVERLAP, SAME_ALIKE = 0.9, 0.6
"""How much two pictures of one shot must have in common: a cut between two views of a place moves it farther."""
OTHER_ALIKE, OTHER_PATTERN, TEXTURED = 0.1, 0.5, 0.2
"""Share of alike blocks up to which two pictures show different places, correlation of their brightness up to which it
is not the same one in another light, and share of blocks that must show something."""
STEADY, FARTHEST, APART = 0.7, 0.35, 6.0
"""How alike pictures of a moving camera must be for it to be foreseen, how far it may come, in sides of the picture,
and how far apart the quarters of the picture, in pixels of a glance."""
LONG = 3
"""Times the head of a group that it must be long for the head to be decoded to foresee the rest."""
MUCH = 0.1
"""Share of a key picture's bytes from which on a packet might hide that something else comes, if it is coded badly."""
STILL = 6.0
"""Levels by which no block may differ of pictures one of which stands for both."""


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
        self._keys = _KeyDecoder(reader.path)
        self._frames: dict[int, VideoFrame] = {}
        self._looks: dict[int, _Look] = {}
        self._latest: Picture | None = None
        self._given = -math.inf
        self._end = 0.0
        self._standing: _Look | None = None
        self._before: _Look | None = None
        self._unsettled: Skipped | None = None
        self._is_decoding = True
        self._in_vain, self._unlooked = 0, 0

    def pictures(self) -> Iterator[Picture | Skipped]:
        """All pictures in order, those that were left out as `Skipped`.

        Raises:
            VideoError: The file ends before its video does; the pictures up to there have been given.
        """
        try:
            yield from self._events()
        finally:
            self._keys.close()
        if self._latest is not None:
            self._reader.check_last(self._end)

    def _events(self) -> Iterator[Picture | Skipped]:
        waiting: list[Group] = []
        for group in groups(self._reader.undecoded()):
            if waiting:
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
        if self._reader.seconds_at(group.start) - self._reader.seconds_at(waiting[0].start) >= STRETCH:
            return False
        if changes_details(_sizes(waiting[-1], group), waiting[-1].key.size):
            return False
        sizes = waiting[-1].key.size, group.key.size
        return max(sizes) <= (1 + EVEN_KEYS) * min(sizes)

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
        if len(ticks) <= HEAD + 1:
            yield from self._decode(stretch)
            return
        yield from self._head([packet for group in stretch for packet in group.packets], ticks[HEAD])
        assert self._latest is not None
        latest = self._looked_at(self._latest)
        if likeness(look.glance, latest.glance).worst <= STILL or _cannot_come(look, latest, other):
            self._in_vain = 0
            yield self._left_out(ticks, look, "same")
            self._before = look
        else:
            yield from self._decode_in_vain(stretch)

    def _read_last(self, group: Group) -> Iterator[Picture | Skipped]:
        """What is shown in the last group, behind which there is no key picture: its own has to do."""
        where = self._spikes(group, None)
        if where is not None and not len(where):
            yield from self._settle("cut")
            where = np.zeros(1, np.intp)
        yield from self._read_changing(group, None, where)

    def _read_changing(
        self, group: Group, after: Group | None, where: NDArray[np.intp] | None
    ) -> Iterator[Picture | Skipped]:
        """What is shown in a group in which something may change at some packets, or anywhere.

        It is decoded up to some pictures behind the last of these packets. If that shows what the next key picture
        shows (in the last group, its own), what is between them is left out.
        """
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
        if self._latest is not None and _are_alike(self._looked_at(self._latest), other):
            yield from self._noted(self._reader.rest(), ticks[last])
            self._is_decoding, self._before = False, None
            yield self._left_out(ticks, other, "same")
        else:
            for packet in group.packets[done:]:
                yield from self._noted(self._reader.pictures_of(packet))
            self._is_decoding, self._standing, self._before = True, None, None

    def _reordered(self) -> int:
        """How many pictures a packet may be decoded ahead of the one from which on its picture counts."""
        return LAYERED + HEAD if self._reader.info.codec in LAYERED_CODECS else 2 * HEAD

    def _show_the_same(self, first: Packet, second: Packet) -> bool:
        """Whether two key pictures surely show the same place."""
        looks = self._look(first), self._look(second)
        return looks[0] is not None and looks[1] is not None and _are_alike(looks[0], looks[1])

    def _read_to_another_place(self, group: Group, after: Group) -> Iterator[Picture | Skipped]:
        """What is shown in a quiet group whose key picture does not look like the next one."""
        look, ticks = self._look(group.key), _ticks([group], after)
        other = self._look(after.key)
        largest = max(packet.size for packet in _behind(group, after))
        is_too_large = largest > MUCH * min(group.key.size, after.key.size)
        if is_too_large or look is None or other is None or not _are_apart(look, other):
            yield from self._decode_in_vain([group])
            return
        before, latest = self._before, look
        if before is None and len(ticks) > HEAD * LONG:
            yield from self._head(group.packets, ticks[HEAD])
            assert self._latest is not None
            before, latest = look, self._looked_at(self._latest)
        elif before is not None and self._standing is None:
            yield self._given_alone(look)
        if before is not None and _cannot_come(before, latest, other):
            self._in_vain, self._before = 0, None
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
        """Pictures of groups that were looked at for nothing, and patience for the next."""
        self._in_vain += 1
        self._unlooked = min(2 ** (self._in_vain - PATIENCE), MOST_UNLOOKED) if self._in_vain >= PATIENCE else 0
        yield from self._decode(stretch)

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
        if self._is_decoding:
            if len(ticks) <= HEAD + 1:
                yield from self._decode(stretch)
                return
            yield from self._head([packet for group in stretch for packet in group.packets], ticks[HEAD])
        elif self._standing is None or likeness(self._standing.glance, look.glance).worst > STILL:
            yield self._given_alone(look)
        else:
            look = self._standing
        yield self._left_out(ticks, look, "same")

    def _given_alone(self, look: _Look) -> Picture:
        """A key picture that was decoded alone."""
        assert look.frame.pts is not None
        self._given, self._standing = look.frame.pts, look
        return self._latest_is(Picture(look.frame, look.seconds))

    def _left_out(self, ticks: Sequence[int], stand_in: _Look, then: Literal["same", "perhaps"]) -> Skipped:
        """Those of some pictures that were not given."""
        self._standing = stand_in
        seconds_N = np.array([self._reader.seconds_at(tick) for tick in ticks if tick > self._given])
        self._end = float(seconds_N[-1])
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
        whole = last == math.inf
        needed = len(packets) if whole else 1 + max(i for i, each in enumerate(packets) if shown_at(each) <= last)
        for packet in packets[:needed]:
            if self._is_decoding or shown_at(packet) >= shown_at(packets[0]):
                yield from self._noted(self._reader.pictures_of(packet), last)
        return needed

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
            frame = self._frames.get(tick) or self._keys.decode(key)
            if frame is None:
                return None
            self._reader.decoded.count(frame)
            _keep(self._looks, tick, self._looked_at(Picture(frame, self._reader.seconds_at(tick))))
        return self._looks[tick]

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


def _ticks(stretch: Sequence[Group], after: Group | None) -> list[int]:
    """When the pictures are shown from the first key picture of some groups to that of the next, in order."""
    packets = [packet for group in stretch for packet in group.packets] + (
        after.leading() if after is not None else []
    )
    return sorted(tick for tick in map(shown_at, packets) if tick >= stretch[0].start)


def _are_alike(first: _Look, second: _Look) -> bool:
    """Whether two pictures surely show the same place."""
    found = likeness(first.glance, second.glance)
    return found.worst <= STILL or (found.overlap >= SAME_OVERLAP and found.alike >= SAME_ALIKE)


def _are_apart(first: _Look, second: _Look) -> bool:
    """Whether two pictures have hardly anything in common, also in another light, and show enough to tell."""
    found = likeness(first.glance, second.glance)
    return found.textured >= TEXTURED and found.alike <= OTHER_ALIKE and found.pattern <= OTHER_PATTERN


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


class _KeyDecoder:
    """Decodes key pictures alone, beside the decoder that reads the video.

    One that is told to give key pictures only loses most of an open group's (they count as incomplete before it has
    come to the next); one that is given a single packet and then no more gives just its picture.

    Args:
        path: The file.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._opened: tuple[InputContainer, VideoCodecContext] | None = None

    def decode(self, key: Packet) -> VideoFrame | None:
        """The picture of a key packet, or None if it is not whole by itself."""
        decoder = self._decoder()
        decoder.flush_buffers()
        try:
            frames = [*decoder.decode(key), *decoder.decode(None)]
        except av.FFmpegError:
            return None
        if len(frames) == 1 and frames[0].pts == key.pts and frames[0].key_frame and not frames[0].is_corrupt:
            return frames[0]
        return None

    def close(self) -> None:
        """Close the file."""
        if self._opened is not None:
            self._opened[0].close()

    def _decoder(self) -> VideoCodecContext:
        if self._opened is None:
            container = open_container(self._path)
            decoder = default_stream(self._path, container).codec_context
            decoder.options, decoder.thread_count = decoder_options(rough=False), 1
            self._opened = container, decoder
        return self._opened[1]
