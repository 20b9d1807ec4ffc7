"""Groups of pictures as the packets of a stream announce them: a key picture and what is coded as changes since.

How large packets are tells what cannot have happened between two key pictures: a picture of something else costs about
what a key picture costs, or a different amount than those around it. `spikes` says where that may be, and where sizes
cannot tell.

Shape legend: N packets of a group behind its key packet.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import av
import numpy as np
from av.packet import Packet
from numpy.typing import NDArray

MOST_BYTES, MOST_PACKETS = 2**25, 2**15
"""Of one group; a longer one is handed on in parts, which nothing is known about."""
FEWEST, SETTLING = 8, 4
"""Packets of a group that can be judged, and those at its start that may still refine the key picture; of so many some
are always among the smaller ones."""
WHOLE_PICTURE = 0.2
"""Share of a key picture's bytes above which a packet may hold a picture of something else."""
LITTLE, TRIFLE = 0.04, 0.005
"""Shares of a key picture's bytes up to which a packet changes no more than a detail, and nothing that is seen."""
SOON = 8
"""Packets in which a picture of something else comes, if the first one holds it only roughly."""
SPIKE = 4.0
USUAL = 0.85
"""Share of a group's packets that are no larger than what a spike stands out from."""
LAYERED, ENOUGH = 32, 4
"""Packets after which the pattern of an encoder repeats itself at the latest, and how often it must be seen."""
LEVEL_OVER = 16
"""Packets over which the level of a group is taken: longer than the patterns in which encoders vary them."""
CALM = 1.5
"""Times by which that may be higher than before if nothing begins to move."""
UNEVEN, LOW = 4.0, 0.03
"""Times by which the level of a group may vary, and share of a key picture's bytes up to which it may anyway."""
MOST_USUAL = 0.75
"""Share of a group's packets that must not stand out."""
SUPERFRAME, SUPERFRAME_MASK = 0xC0, 0xE0
"""How the last byte of a packet of VP9 begins that holds several frames."""
NEW_PICTURE, SMALL_BESIDE = 0.3, 0.3
"""Share of a key picture's bytes that a new one takes at least, and share of these that others take at most."""
PADDED, PADDED_BYTES = 1.02, 1000


@dataclass
class Group:
    """The packets of one group, or a part of them, in the order of decoding.

    Attributes:
        packets: With those of pictures that are shown before the key picture and may refer to the group before.
        is_whole: Whether they begin with a key packet and are followed by another, or by the end of the stream.
    """

    packets: list[Packet] = field(default_factory=list)
    is_whole: bool = True

    @property
    def key(self) -> Packet:
        """The packet of the key picture."""
        return self.packets[0]

    @property
    def start(self) -> int:
        """When the key picture is shown, in ticks."""
        assert self.key.pts is not None
        return self.key.pts

    def leading(self) -> list[Packet]:
        """Packets of pictures that are shown before the key picture."""
        start = self.start
        return [packet for packet in self.packets[1:] if shown_at(packet) < start]

    def following(self) -> list[Packet]:
        """Packets of pictures that are shown after the key picture."""
        start = self.start
        return [packet for packet in self.packets[1:] if shown_at(packet) > start]


def groups(packets: Iterable[Packet]) -> Iterator[Group]:
    """The groups of a stream from its first packet on.

    Raises:
        av.FFmpegError: The stream cannot be read on; what was read has been given.
    """
    group = Group(is_whole=False)
    size, fault = 0, None
    try:
        for packet in packets:
            if not packet.size:
                continue
            is_timed_key = packet.is_keyframe and packet.pts is not None
            if is_timed_key or size > MOST_BYTES or len(group.packets) >= MOST_PACKETS:
                if group.packets:
                    yield group if is_timed_key else Group(group.packets, is_whole=False)
                group, size = Group(is_whole=is_timed_key), 0
            group.packets.append(packet)
            group.is_whole &= packet.pts is not None
            size += packet.size
    except av.FFmpegError as error:
        fault = error
    if group.packets:
        yield group
    if fault is not None:
        raise fault


def spikes(sizes_N: NDArray[np.int64], key: int) -> NDArray[np.intp] | None:
    """Which packets between two key pictures may bring something else into the picture; None if sizes do not tell.

    Those are packets so large that they, or they and the next few, could hold a whole picture, and stand out from the
    ones around; the first, which refine the key picture, only if one could hold a whole one. The level of the others
    must stay, because a picture of something plain costs less. Packets of one size are padded and say nothing.

    Args:
        sizes_N: Bytes of the packets, in the order of decoding.
        key: Bytes of the smaller one of the two key packets.
    """
    if len(sizes_N) < FEWEST:
        return None
    settled_N = sizes_N[SETTLING:]
    ordered_N = np.sort(settled_N)
    low, high = ordered_N[len(ordered_N) // 4], ordered_N[3 * len(ordered_N) // 4]
    if low > PADDED_BYTES and high < PADDED * low:
        return None
    usual = _usual(settled_N)
    soon_N = np.convolve(sizes_N, np.ones(SOON), "full")[SOON - 1 :]
    stands_out_N = (sizes_N > max(LITTLE * key, SPIKE * usual)) & (soon_N > WHOLE_PICTURE * key)
    stands_out_N |= soon_N > WHOLE_PICTURE * key + SOON * usual
    stands_out_N[:SETTLING] = False
    stands_out_N |= sizes_N > WHOLE_PICTURE * key
    usual_N = settled_N[~stands_out_N[SETTLING:]]
    if len(usual_N) < MOST_USUAL * len(settled_N):
        return None
    width = min(LEVEL_OVER, len(usual_N))
    level = np.convolve(usual_N, np.full(width, 1 / width), "valid")
    return np.flatnonzero(stands_out_N) if level.max() <= max(UNEVEN * level.min(), LOW * key) else None


def lone_packet(sizes_N: NDArray[np.int64], key: int) -> int | None:
    """The only packet between two key pictures, by its place, that can hold a picture of something else, if it must.

    It is so large as a new picture, all others are small against it, and none of them is anything out of the ordinary:
    a dissolve, a fast movement or something that comes and goes takes several large ones.

    Args:
        sizes_N: As for `spikes`, of pictures that are shown in this order.
        key: Likewise.
    """
    if len(sizes_N) <= SETTLING:
        return None
    place = int(sizes_N.argmax())
    others_N = np.delete(sizes_N, place)
    is_lone = sizes_N[place] >= NEW_PICTURE * key and others_N.max() <= SMALL_BESIDE * sizes_N[place]
    return place if is_lone and others_N.mean() <= LOW * key else None


def stays_calm(before_N: NDArray[np.int64], sizes_N: NDArray[np.int64], key: int) -> bool:
    """Whether packets change no more than those before them, where these change least: nothing begins to move.

    Args:
        before_N: Bytes of those, in which it is known what happens.
        sizes_N: As for `spikes`.
        key: Likewise.
    """
    if len(before_N) < SETTLING:
        return False
    width = min(LEVEL_OVER, len(sizes_N))
    level = np.convolve(sizes_N, np.full(width, 1 / width), "valid").max() if width else 0.0
    quiet = np.convolve(before_N, np.full(SETTLING, 1 / SETTLING), "valid").min()
    return bool(level <= max(CALM * quiet, TRIFLE * key))


def can_come_back(sizes_N: NDArray[np.int64], key: int) -> bool:
    """Whether packets between two key pictures of one place may hold a picture of it again, after something else.

    Where pictures refer to the last few only, that costs as much as a new one, unless the else was as short.

    Args:
        sizes_N: As for `spikes`.
        key: Likewise.
    """
    return float(np.convolve(sizes_N, np.ones(SOON)).max(initial=0)) >= NEW_PICTURE * key


def changes_details(sizes_N: NDArray[np.int64], key: int) -> bool:
    """Whether some packets between two key pictures, of which `spikes` finds none, stand out all the same.

    Args:
        sizes_N: As for `spikes`.
        key: Likewise.
    """
    settled_N = sizes_N[SETTLING:]
    return bool(settled_N.max() > max(TRIFLE * key, SPIKE * _usual(settled_N)))


def _usual(sizes_N: NDArray[np.int64]) -> float:
    """How large the larger packets of a group usually are.

    Encoders that put pictures in layers code one in 16 or 32 far better than the others, so in a long group it is the
    largest of each stretch of that length.
    """
    usual = float(np.sort(sizes_N)[min(round(USUAL * len(sizes_N)), len(sizes_N) - 1)])
    stretches = len(sizes_N) // LAYERED
    if stretches < ENOUGH:
        return usual
    largest = sizes_N[: stretches * LAYERED].reshape(stretches, LAYERED).max(axis=1)
    return max(usual, float(np.median(largest)))


def may_hide(packets: Iterable[Packet], codec: str) -> bool:
    """Whether some packets may hold pictures that others show later: those of VP9 tell by their last byte."""
    if codec == "vp9":
        return any(bytes(packet)[-1] & SUPERFRAME_MASK == SUPERFRAME for packet in packets)
    return codec == "av1"


def shown_at(packet: Packet) -> int:
    """When the picture of a packet is shown, in ticks; it must say so."""
    assert packet.pts is not None
    return packet.pts


def between(group: Group, after: Group | None) -> list[Packet]:
    """The packets of the pictures that are shown between two key pictures, in the order of decoding."""
    return group.following() + (after.leading() if after is not None else [])


def sizes_between(group: Group, after: Group | None) -> NDArray[np.int64]:
    """The bytes of each of them ``[N]``."""
    return np.array([packet.size for packet in between(group, after)], np.int64)


def ticks_of(stretch: Sequence[Group], after: Group | None) -> list[int]:
    """When the pictures are shown from the first key picture of some groups to that of the next, in order."""
    packets = [packet for group in stretch for packet in group.packets]
    packets += after.leading() if after is not None else []
    return sorted(tick for tick in map(shown_at, packets) if tick >= stretch[0].start)


def needed_for(packets: Sequence[Packet], last: float) -> Sequence[Packet]:
    """The packets that must be decoded for the pictures up to one that is shown at a tick."""
    return packets[: 1 + max(place for place, packet in enumerate(packets) if shown_at(packet) <= last)]
