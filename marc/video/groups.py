"""Groups of pictures as the packets of a stream announce them: a key picture and what is coded as changes since.

How large packets are tells what cannot have happened between two key pictures: a picture of something else costs about
what a key picture costs, or a different amount than those around it. Where sizes cannot tell, `is_quiet` says no.

Shape legend: N packets of a group behind its key packet.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import av
import numpy as np
from av.packet import Packet
from numpy.typing import NDArray

MOST_BYTES = 2**25
"""Of one group; a longer one is handed on in parts, which nothing is known about."""
FEWEST, SETTLING = 8, 4
"""Packets of a group that can be judged, and those at its start that may still refine the key picture."""
WHOLE_PICTURE = 0.35
"""Share of a key picture's bytes above which a packet may hold a picture of something else."""
LITTLE = 0.04
"""Share of a key picture's bytes up to which a packet changes no more than a detail."""
SPIKE = 4.0
USUAL = 85
"""Percentile of a group's packets that a spike stands out from."""
LEVEL_OVER = 16
"""Packets over which the level of a group is taken: longer than the patterns in which encoders vary them."""
UNEVEN = 4.0
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
        return [packet for packet in self.packets[1:] if shown_at(packet) < self.start]

    def following(self) -> list[Packet]:
        """Packets of pictures that are shown after the key picture."""
        return [packet for packet in self.packets[1:] if shown_at(packet) > self.start]


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
            if is_timed_key or size > MOST_BYTES:
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


def is_quiet(sizes_N: NDArray[np.int64], key: int) -> bool:
    """Whether packets between two key pictures rule out that something else is shown in between for a while.

    No packet may be so large that it could hold a whole picture; none may stand out from those around it by more
    than a detail costs, but for the first, which refine the key picture; and the level must stay, because a picture
    of something plain costs less than the others.
    Packets of one size are padded and say nothing.

    Args:
        sizes_N: Bytes of the packets, in the order of decoding.
        key: Bytes of the smaller one of the two key packets.
    """
    if len(sizes_N) < FEWEST or sizes_N.max() > WHOLE_PICTURE * key:
        return False
    settled_N = sizes_N[SETTLING:]
    if settled_N.max() > max(LITTLE * key, SPIKE * np.percentile(settled_N, USUAL)):
        return False
    low, high = np.percentile(settled_N, [25, 75])
    if low > PADDED_BYTES and high < PADDED * low:
        return False
    width = min(LEVEL_OVER, len(settled_N))
    level = np.convolve(settled_N, np.full(width, 1 / width), "valid")
    return bool(level.max() <= max(UNEVEN * level.min(), LITTLE * key))


def shown_at(packet: Packet) -> int:
    """When the picture of a packet is shown, in ticks; it must say so."""
    assert packet.pts is not None
    return packet.pts
