"""Reading a video coarse to fine: what surely shows the same place all the time is not decoded.

A file tells without decoding where its key pictures are and how large every packet is. Where packets rule out that
something else was shown between two key pictures (`marc.video.groups`) and both show the same place
(`marc.video.likeness`), the first stands for what is shown until the second. All other groups of pictures are decoded.

Nothing is sought: packets are read once, in order, and wait until it is known whether they are needed.

Shape legend: N pictures that are left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import av
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from marc.video.container import default_stream, open_container
from marc.video.decoding import Picture, VideoReader, decoder_options
from marc.video.groups import Group, groups, is_quiet, shown_at
from marc.video.likeness import Glance, Glancer, likeness

STRETCH = 4.0
"""Seconds of quiet groups that one look may pass over."""
EVEN_KEYS = 0.05
"""Share by which the sizes of neighbouring key packets may differ that are passed over."""
HEAD = 16
"""Pictures behind a cut that a detector must see to be sure of it."""
REMEMBERED = 4
"""Key pictures that are kept."""
PATIENCE, MOST_UNLOOKED = 2, 16
"""Looks in vain after which groups are decoded without a look, and how many."""
SAME_OVERLAP, SAME_ALIKE = 0.6, 0.6
STILL = 6.0
"""Levels by which no block may differ of pictures one of which stands for both."""


@dataclass(frozen=True)
class Skipped:
    """Pictures that were not decoded, because they surely show the place that the picture before them shows.

    Attributes:
        frame: The picture before them.
        seconds: When they are shown, ``float64 [N]``.
    """

    frame: VideoFrame
    seconds: NDArray[np.float64]


@dataclass(frozen=True)
class _Look:
    """A key picture, and what it looks like."""

    frame: VideoFrame
    glance: Glance


def can_skim(reader: VideoReader) -> bool:
    """Whether a file tells enough for `Skimmer`: if not, all of it has to be decoded."""
    return reader.tells_packet_times and not reader.info.starts


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
        self._standing: _Look | None = None
        self._is_decoding = True
        self._in_vain, self._unlooked = 0, 0

    def pictures(self) -> Iterator[Picture | Skipped]:
        """All pictures in order, those that were left out as `Skipped`.

        Raises:
            VideoError: The file ends before its video does; the pictures up to there have been given.
        """
        last = None
        for event in self._events():
            if isinstance(event, Picture):
                last = event
            yield event
        if last is not None:
            self._reader.ends_with(last)

    def _events(self) -> Iterator[Picture | Skipped]:
        waiting: list[Group] = []
        try:
            for group in groups(self._reader.undecoded()):
                if waiting and not self._is_quiet(waiting[-1], group):
                    yield from self._read(waiting[:-1], waiting[-1])
                    yield from self._decode(waiting[-1:])
                    waiting = []
                elif waiting and not self._may_pass_over(waiting, group):
                    yield from self._read(waiting, group)
                    waiting = []
                waiting.append(group)
        finally:
            self._keys.close()
        yield from self._read(waiting[:-1], waiting[-1])
        yield from self._decode(waiting[-1:])
        yield from self._reader.rest()

    def _is_quiet(self, group: Group, after: Group) -> bool:
        """Whether packets rule out that something else is shown between the key pictures of two groups."""
        if self._reader.has_new_clock or not (group.is_whole and after.is_whole and group.start < after.start):
            return False
        sizes_N = np.array([packet.size for packet in [*group.following(), *after.leading()]], np.int64)
        return is_quiet(sizes_N, min(group.key.size, after.key.size))

    def _may_pass_over(self, waiting: Sequence[Group], group: Group) -> bool:
        """Whether the key picture of a group need not be looked at if those before and behind show the same."""
        if self._reader.seconds_at(group.start) - self._reader.seconds_at(waiting[0].start) >= STRETCH:
            return False
        sizes = waiting[-1].key.size, group.key.size
        return max(sizes) <= (1 + EVEN_KEYS) * min(sizes)

    def _read(self, stretch: Sequence[Group], after: Group) -> Iterator[Picture | Skipped]:
        """What is shown in quiet groups."""
        if not stretch:
            return
        if self._unlooked > 0:
            self._unlooked -= len(stretch)
            yield from self._decode(stretch)
        elif self._show_the_same(stretch[0].key, after.key):
            self._in_vain = 0
            yield from self._skip(stretch, after)
        elif len(stretch) > 1 and self._in_vain < PATIENCE:
            half = len(stretch) // 2
            yield from self._read(stretch[:half], stretch[half])
            yield from self._read(stretch[half:], after)
        else:
            self._in_vain += 1
            self._unlooked = min(2 ** (self._in_vain - PATIENCE), MOST_UNLOOKED) if self._in_vain >= PATIENCE else 0
            yield from self._decode(stretch)

    def _show_the_same(self, first: Packet, second: Packet) -> bool:
        """Whether two key pictures surely show the same place."""
        looks = self._look(first), self._look(second)
        if looks[0] is None or looks[1] is None:
            return False
        found = likeness(looks[0].glance, looks[1].glance)
        return found.worst <= STILL or (found.overlap >= SAME_OVERLAP and found.alike >= SAME_ALIKE)

    def _decode(self, stretch: Sequence[Group]) -> Iterator[Picture]:
        """All pictures of groups; behind a gap the first one's without those that refer to what was left out."""
        for group in stretch:
            for packet in group.packets if self._is_decoding else [group.key, *group.following()]:
                yield from self._noted(self._reader.pictures_of(packet))
            self._is_decoding, self._standing = True, None

    def _skip(self, stretch: Sequence[Group], after: Group) -> Iterator[Picture | Skipped]:
        """The first picture of groups, for all of them, unless the one that stands for those before does as well.

        Behind something that was decoded it is the first few pictures: whether that was a cut shows only then.
        """
        packets, start = [packet for group in stretch for packet in group.packets], stretch[0].start
        ticks = sorted(tick for tick in map(shown_at, packets + after.leading()) if tick >= start)
        look = self._look(stretch[0].key)
        assert look is not None
        if self._is_decoding and len(ticks) <= HEAD:
            yield from self._decode(stretch)
            return
        if self._is_decoding:
            yield from self._head(packets, ticks[HEAD])
            ticks = ticks[HEAD + 1 :]
        elif self._standing is None or likeness(self._standing.glance, look.glance).worst > STILL:
            yield Picture(look.frame, self._reader.seconds_at(start))
            ticks = ticks[1:]
        else:
            look = self._standing
        self._standing = look
        yield Skipped(look.frame, np.array([self._reader.seconds_at(tick) for tick in ticks]))

    def _head(self, packets: Sequence[Packet], last: int) -> Iterator[Picture]:
        """The pictures up to one that is shown at a tick; the decoder is as good as new afterwards."""
        needed = max(index for index, packet in enumerate(packets) if shown_at(packet) <= last)
        for packet in packets[: needed + 1]:
            yield from self._until(last, self._reader.pictures_of(packet))
        yield from self._until(last, self._reader.rest())
        self._is_decoding = False

    def _until(self, last: int, pictures: Iterator[Picture]) -> Iterator[Picture]:
        for picture in self._noted(pictures):
            if picture.frame.pts is not None and picture.frame.pts <= last:
                yield picture

    def _noted(self, pictures: Iterator[Picture]) -> Iterator[Picture]:
        """Pictures; those that can be looked at again are remembered."""
        for picture in pictures:
            if picture.frame.key_frame and picture.frame.pts is not None:
                _keep(self._frames, picture.frame.pts, picture.frame)
            yield picture

    def _look(self, key: Packet) -> _Look | None:
        """A key picture, decoded alone unless it was seen before; None where that is not possible."""
        tick = shown_at(key)
        if tick not in self._looks:
            frame = self._frames.get(tick) or self._keys.decode(key)
            if frame is None:
                return None
            self._reader.decoded.count(frame)
            _keep(self._looks, tick, _Look(frame, self._glancer(frame)))
        return self._looks[tick]


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
