"""Which frames of an AV1 stream others refer to, as the headers in its packets say: nothing is decoded.

Encoders of AV1 code pictures in layers: one in 8 to 32 refers to the last of these, the ones between to their
neighbours. Many are decoded long before they are shown. Who knows the references gets at a picture by decoding a few.

Only what must be read of the headers is read (AV1 specification, sections 5.3 to 5.9); streams with features beyond
those that encoders of videos use are refused as a whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

_SEQUENCE, _DELIMITER, _FRAME_HEADER, _TILES, _FRAME, _REPEATED_HEADER, _TILE_LIST = 1, 2, 3, 4, 6, 7, 8
_KEY, _INTER, _SWITCH = 0, 1, 3
_SLOTS, _REFERENCES = 8, 7
_CHOSEN_BY_FRAME = 2
_LONGEST_HEADER = 64
"""Bytes at the start of a frame that hold all that is read of it."""
_MOST_LEVELS_WITHOUT_TIER = 7


class _UnusualError(Exception):
    """A stream has something that is not followed here."""


@dataclass(frozen=True)
class Frame:
    """A coded frame.

    Attributes:
        packet: Which packet of the group it is in.
        start: Its first byte there.
        end: The byte behind its last.
        needs: Frames that it refers to, by their numbers in the order of decoding.
        is_shown: Whether it is shown when its packet is.
    """

    packet: int
    start: int
    end: int
    needs: frozenset[int]
    is_shown: bool


@dataclass(frozen=True)
class Hierarchy:
    """The frames of a group, and which of them each packet shows.

    Attributes:
        frames: In the order of decoding; the first is the key picture.
        shown: Of each packet, the number of the frame that it shows.
        shows_again: Of each packet, the bytes that show a frame that was decoded before; none where it shows its own.
    """

    frames: tuple[Frame, ...]
    shown: tuple[int, ...]
    shows_again: tuple[tuple[int, int] | None, ...]

    def needed(self, frame: int) -> list[int]:
        """All frames that must be decoded for one, itself included, in order."""
        found, open_ = {frame}, [frame]
        while open_:
            new = self.frames[open_.pop()].needs - found
            found |= new
            open_ += new
        return sorted(found)

    def path(self, packet: int) -> list[int]:
        """The packets that show the pictures that one refers to, directly or not, up to it, in order."""
        needed = set(self.needed(self.shown[packet]))
        return [number for number in range(packet + 1) if self.shown[number] in needed]

    def latest_shown(self, packet: int) -> int:
        """The packet that shows the last one of the pictures that are coded in a packet."""
        inside = {number for number, frame in enumerate(self.frames) if frame.packet == packet}
        return max((later for later, number in enumerate(self.shown) if number in inside), default=packet)


def read_hierarchy(packets: Sequence[bytes], extradata: bytes | None) -> Hierarchy | None:
    """How the frames of a group refer to each other; None if something about it is unusual.

    Args:
        packets: Of a group that begins with a key picture, in order.
        extradata: What the container says about the stream, for a sequence header that is not in the packets.
    """
    try:
        return _Reader(extradata).read(packets)
    except (_UnusualError, IndexError):
        return None


class _Reader:
    """Follows the eight slots in which a decoder keeps frames that others refer to."""

    def __init__(self, extradata: bytes | None) -> None:
        self._sequence: _Sequence | None = None
        self._slots: list[int | None] = [None] * _SLOTS
        self._frames: list[Frame] = []
        if extradata and len(extradata) > 4:
            for kind, _, body, end in _units(extradata[4:]):
                if kind == _SEQUENCE:
                    self._sequence = _read_sequence(_Bits(extradata[4:][body:end]))

    def read(self, packets: Sequence[bytes]) -> Hierarchy:
        shown, again = [], []
        for number, data in enumerate(packets):
            frame, span = self._read_packet(number, data)
            shown.append(frame)
            again.append(span)
        return Hierarchy(tuple(self._frames), tuple(shown), tuple(again))

    def _read_packet(self, packet: int, data: bytes) -> tuple[int, tuple[int, int] | None]:
        shows: list[tuple[int, tuple[int, int] | None]] = []
        for kind, start, body, end in _units(data):
            if kind == _SEQUENCE:
                self._sequence = _read_sequence(_Bits(data[body:end]))
            elif kind in (_FRAME, _FRAME_HEADER):
                bits = _Bits(data[body : min(end, body + _LONGEST_HEADER)])
                if bits.flag():
                    frame = self._slots[bits.number(3)]
                    if frame is None or frame == 0:
                        raise _UnusualError
                    shows.append((frame, (start, end)))
                else:
                    frame_end = end if kind == _FRAME else _end_of_tiles(data, end)
                    is_shown = self._read_frame(bits, packet, start, frame_end)
                    shows += [(len(self._frames) - 1, None)] if is_shown else []
            elif kind in (_REPEATED_HEADER, _TILE_LIST):
                raise _UnusualError
        if len(shows) != 1:
            raise _UnusualError
        return shows[0]

    def _read_frame(self, bits: _Bits, packet: int, start: int, end: int) -> bool:
        if self._sequence is None:
            raise _UnusualError
        header = _read_header(bits, self._sequence, is_first=not self._frames)
        needs = {number for slot in header.slots if (number := self._slots[slot]) is not None}
        if len({self._slots[slot] for slot in header.slots}) != len(needs) or header.is_key == bool(self._frames):
            raise _UnusualError
        number = len(self._frames)
        self._frames.append(Frame(packet, start, end, frozenset(needs), header.is_shown))
        for slot in range(_SLOTS):
            if header.refreshed >> slot & 1:
                self._slots[slot] = number
        return header.is_shown


@dataclass(frozen=True)
class _Sequence:
    order_bits: int
    screen_content: int
    integer_motion: int


@dataclass(frozen=True)
class _Header:
    is_key: bool
    is_shown: bool
    refreshed: int
    slots: tuple[int, ...]


class _Bits:
    """Numbers of some bits each, one after the other."""

    def __init__(self, data: bytes) -> None:
        self._value, self._left = int.from_bytes(data, "big"), 8 * len(data)

    def number(self, bits: int) -> int:
        self._left -= bits
        if self._left < 0:
            raise _UnusualError
        return self._value >> self._left & ((1 << bits) - 1)

    def flag(self) -> bool:
        return self.number(1) == 1


def _units(data: bytes) -> Iterator[tuple[int, int, int, int]]:
    """The units of a packet: kind, first byte, first byte of what it holds, and the byte behind its last."""
    start = 0
    while start < len(data):
        header = data[start]
        body = start + (2 if header & 4 else 1)
        if header & 2:
            length, shift = 0, 0
            while True:
                length |= (data[body] & 127) << shift
                shift += 7
                body += 1
                if data[body - 1] < 128 or shift > 28:
                    break
        else:
            length = len(data) - body
        if body + length > len(data):
            raise _UnusualError
        yield header >> 3 & 15, start, body, body + length
        start = body + length


def _end_of_tiles(data: bytes, start: int) -> int:
    """Where the tiles end that follow the header of a frame."""
    end = start
    for kind, _, _, unit_end in _units(data[start:]):
        if kind != _TILES:
            break
        end = start + unit_end
    return end


def _read_sequence(bits: _Bits) -> _Sequence:
    bits.number(3 + 1)
    is_reduced, has_timing = bits.flag(), bits.flag()
    if is_reduced or has_timing:
        raise _UnusualError
    has_delay, points = bits.flag(), bits.number(5)
    if points:
        raise _UnusualError
    bits.number(12)
    if bits.number(5) > _MOST_LEVELS_WITHOUT_TIER:
        bits.number(1)
    if has_delay and bits.flag():
        bits.number(4)
    width_bits, height_bits = bits.number(4), bits.number(4)
    bits.number(width_bits + 1)
    bits.number(height_bits + 1)
    if bits.flag():
        raise _UnusualError
    bits.number(3 + 4)
    has_order = bits.flag()
    if has_order:
        bits.number(2)
    screen_content = _CHOSEN_BY_FRAME if bits.flag() else bits.number(1)
    integer_motion = _CHOSEN_BY_FRAME
    if screen_content and not bits.flag():
        integer_motion = bits.number(1)
    return _Sequence(bits.number(3) + 1 if has_order else 0, screen_content, integer_motion)


def _read_header(bits: _Bits, sequence: _Sequence, *, is_first: bool) -> _Header:
    """The header of a frame behind the bit that says that it is none that was decoded before."""
    kind, is_shown = bits.number(2), bits.flag()
    if is_first != (kind == _KEY) or (kind == _KEY and not is_shown) or kind == _SWITCH:
        raise _UnusualError
    is_showable = is_shown or bits.flag()
    is_resilient = kind == _KEY or bits.flag()
    if not is_showable or (is_resilient and kind != _KEY):
        raise _UnusualError
    bits.number(1)
    has_screen_content = bits.flag() if sequence.screen_content == _CHOSEN_BY_FRAME else sequence.screen_content
    if has_screen_content and sequence.integer_motion == _CHOSEN_BY_FRAME:
        bits.number(1)
    bits.number(1 + sequence.order_bits)
    if kind == _KEY:
        return _Header(True, True, (1 << _SLOTS) - 1, ())
    if kind == _INTER:
        bits.number(3)
    refreshed = bits.number(_SLOTS)
    if kind != _INTER:
        return _Header(False, is_shown, refreshed, ())
    if sequence.order_bits and bits.flag():
        raise _UnusualError
    return _Header(False, is_shown, refreshed, tuple(bits.number(3) for _ in range(_REFERENCES)))
