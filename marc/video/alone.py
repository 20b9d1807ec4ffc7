"""Single pictures of a file, decoded beside the reading of it and without most of what stands before them.

A key picture is decoded from its own packet. Any other picture of AV1 is got at by decoding only the frames that it
refers to, which `marc.video.av1` knows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import av
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame

from marc.video.av1 import Hierarchy, read_hierarchy

_MOST_WAITING = 2
"""Decoders, each behind a key picture."""


class LoneDecoder:
    """Decodes single pictures, and groups from their key picture on.

    Where a key picture comes out of the decoder at once, its group can be read on without decoding it again: that is
    kept for the last two of them.

    Args:
        new_decoder: Makes a decoder of the video: `VideoReader.new_decoder`.
    """

    def __init__(self, new_decoder: Callable[[], VideoCodecContext]) -> None:
        self._new_decoder = new_decoder
        self._decoders: list[VideoCodecContext] = []
        self._keys: list[VideoFrame | None] = []

    def decode_key(self, key: Packet) -> VideoFrame | None:
        """The picture of a key packet, or None if it is not whole by itself.

        A decoder that is told to give key pictures only loses most of an open group's (they count as incomplete before
        it has come to the next); one that is given a single packet and then no more gives just its picture.
        """
        number = self._idle()
        decoder = self._decoders[number]
        try:
            frames = decoder.decode(key)
            is_immediate = len(frames) > 0
            frames += [] if is_immediate else decoder.decode(None)
        except av.FFmpegError:
            return None
        if len(frames) != 1 or frames[0].pts != key.pts or not frames[0].key_frame or frames[0].is_corrupt:
            return None
        self._keys[number] = frames[0] if is_immediate else None
        return frames[0]

    def frames(self, packets: Sequence[Packet], *, sparse: int = 0) -> Iterator[VideoFrame]:
        """The pictures of a group without any that refer to the group before, in order.

        Args:
            packets: From that of the key picture on.
            sparse: So many packets at the beginning are decoded only if others refer to their pictures.

        Raises:
            av.FFmpegError: The group is damaged.
        """
        number = self._at(packets[0])
        decoder, key = self._decoders[number], self._keys[number]
        self._keys[number] = None
        if key is not None:
            yield key
        try:
            for place, packet in enumerate(packets[key is not None :], int(key is not None)):
                decoder.skip_frame = "NONREF" if 0 < place < sparse else "DEFAULT"
                yield from decoder.decode(packet)
            yield from decoder.decode(None)
        finally:
            decoder.skip_frame = "DEFAULT"

    def layered(self, packets: Sequence[Packet]) -> LayeredGroup | None:
        """The pictures of a group of AV1; None where its references cannot be followed."""
        number = self._at(packets[0])
        decoder, key = self._decoders[number], self._keys[number]
        hierarchy = read_hierarchy([bytes(packet) for packet in packets], decoder.extradata)
        if hierarchy is None:
            return None
        self._keys[number] = None
        return LayeredGroup(decoder, packets, hierarchy, has_key=key is not None)

    def _at(self, key: Packet) -> int:
        """The decoder that has just given a key picture, or one that has given none."""
        for number, frame in enumerate(self._keys):
            if frame is not None and frame.pts == key.pts:
                return number
        return self._idle()

    def _idle(self) -> int:
        """A decoder that is as good as new: the one that has waited for longest."""
        if len(self._decoders) < _MOST_WAITING:
            self._decoders.append(self._new_decoder())
            self._keys.append(None)
        number = self._keys.index(None) if None in self._keys else 0
        self._decoders.append(self._decoders.pop(number))
        self._keys.append(self._keys.pop(number))
        self._decoders[-1].flush_buffers()
        self._keys[-1] = None
        return len(self._decoders) - 1


class LayeredGroup:
    """Pictures of a group of AV1, each by decoding only what it refers to.

    Cheapest where they are asked for in the order of decoding: else decoding begins anew.

    Args:
        decoder: Decodes nothing else meanwhile.
        packets: Of the group.
        hierarchy: How they refer to each other.
        has_key: Whether the decoder has decoded the key picture and nothing else.
    """

    def __init__(
        self, decoder: VideoCodecContext, packets: Sequence[Packet], hierarchy: Hierarchy, *, has_key: bool
    ) -> None:
        self._decoder, self._packets, self.hierarchy = decoder, packets, hierarchy
        self._decoded = {0} if has_key else set[int]()

    def picture(self, packet: int) -> VideoFrame | None:
        """The picture that a packet shows, or None if it cannot be decoded."""
        needed = self.hierarchy.needed(self.hierarchy.shown[packet])
        missing = [number for number in needed if number not in self._decoded]
        if not missing or missing[0] < max(self._decoded, default=-1):
            self._decoder.flush_buffers()
            self._decoded, missing = set(), needed
        try:
            frames = [out for number in missing for out in self._decode(number)]
            frames += self._show(packet)
        except av.FFmpegError:
            return None
        is_it = len(frames) > 0 and frames[-1].pts == self._packets[packet].pts and not frames[-1].is_corrupt
        return frames[-1] if is_it else None

    def _decode(self, number: int) -> list[VideoFrame]:
        self._decoded.add(number)
        frame = self.hierarchy.frames[number]
        return self._given(frame.packet, 0 if number == 0 else frame.start, frame.end)

    def _show(self, packet: int) -> list[VideoFrame]:
        span = self.hierarchy.shows_again[packet]
        return self._given(packet, *span) if span is not None else []

    def _given(self, number: int, start: int, end: int) -> list[VideoFrame]:
        whole = self._packets[number]
        part = Packet(bytes(whole)[start:end])
        part.pts, part.dts, part.time_base = whole.pts, whole.dts, whole.time_base
        return self._decoder.decode(part)
