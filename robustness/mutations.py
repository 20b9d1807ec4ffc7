"""Mutations of files that know how the files are built: boxes, elements, chunks, packets, segments; and of bytes.

A file is seen as regions, each with a header and a body. They are dropped, doubled, swapped, given another size or
name, or changed inside, with checksums made right again where a format has them, so that more than the first
check is met.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random

TS_PACKET = 188
NUMBERS = (0, 1, 2, 7, 127, 128, 255, 2**15, 2**16 - 1, 2**24, 2**31 - 1, 2**31, 2**32 - 1)
BOXES_OF_BOXES = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts", b"udta", b"moof", b"traf", b"mvex", b"meta")
BOXES_BESIDE = (b"udta", b"free", b"skip")
ELEMENTS_OF_ELEMENTS = (
    0x18538067,
    0x1654AE6B,
    0xAE,
    0xE0,
    0x1F43B675,
    0x1C53BB6B,
    0xBB,
    0x1254C367,
    0x7373,
    0x1549A966,
)
ELEMENTS_BESIDE = (0xEC, 0x1254C367, 0x1C53BB6B, 0x114D9B74)
"""Filling, tags, and the two indices."""


@dataclass(frozen=True)
class Region:
    """A part of a file, ``[start, end)``, whose own content begins at `body`.

    Attributes:
        is_beside: Whether no picture depends on what its body holds.
    """

    start: int
    body: int
    end: int
    is_beside: bool = False


def boxes(data: bytes, start: int = 0, end: int | None = None) -> Iterator[Region]:
    """Those of MP4, QuickTime and AVIF, inner ones included."""
    end = len(data) if end is None else end
    while start + 8 <= end:
        size, name = int.from_bytes(data[start : start + 4], "big"), data[start + 4 : start + 8]
        size = end - start if size == 0 else size
        if size < 8 or start + size > end:
            return
        yield Region(start, start + 8, start + size, name in BOXES_BESIDE)
        if name in BOXES_OF_BOXES:
            yield from boxes(data, start + 8 + 4 * (name == b"meta"), start + size)
        start += size


def elements(data: bytes, start: int = 0, end: int | None = None) -> Iterator[Region]:
    """Those of EBML: Matroska and WebM, inner ones included."""
    end = len(data) if end is None else end
    while start < end:
        id_bytes = _leading(data[start])
        at = start + id_bytes
        if at >= end or not id_bytes:
            return
        size_bytes = _leading(data[at])
        body = at + size_bytes
        size = int.from_bytes(data[at:body], "big") & ~(1 << 7 * size_bytes)
        stop = end if size == (1 << 7 * size_bytes) - 1 else body + size
        if not size_bytes or stop > end:
            return
        number = int.from_bytes(data[start:at], "big")
        yield Region(start, body, stop, number in ELEMENTS_BESIDE)
        if number in ELEMENTS_OF_ELEMENTS:
            yield from elements(data, body, stop)
        start = stop


def _leading(first: int) -> int:
    """How many bytes a number of EBML has, by its first; 0 for none."""
    return 9 - first.bit_length() if first else 0


def chunks(data: bytes, start: int = 0, end: int | None = None) -> Iterator[Region]:
    """Those of RIFF: AVI and WebP, inner ones included."""
    end = len(data) if end is None else end
    while start + 8 <= end:
        name, size = data[start : start + 4], int.from_bytes(data[start + 4 : start + 8], "little")
        stop = min(start + 8 + size + size % 2, end)
        yield Region(start, start + 8, stop, name in (b"JUNK", b"idx1"))
        if name in (b"RIFF", b"LIST"):
            yield from chunks(data, start + 12, stop)
        start = stop


def transport_packets(data: bytes) -> Iterator[Region]:
    """Those of a transport stream; beside it are those that only fill it or name the service."""
    for start in range(0, len(data) - TS_PACKET + 1, TS_PACKET):
        pid = int.from_bytes(data[start + 1 : start + 3], "big") & 0x1FFF
        yield Region(start, start + 4, start + TS_PACKET, pid in (17, 0x1FFF))


def png_chunks(data: bytes) -> Iterator[Region]:
    """Those of PNG, checksum included."""
    start = 8
    while start + 12 <= len(data):
        size = int.from_bytes(data[start : start + 4], "big")
        yield Region(start, start + 8, min(start + 12 + size, len(data)), data[start + 4 : start + 8] == b"tEXt")
        start += 12 + size


def jpeg_segments(data: bytes) -> Iterator[Region]:
    """Those of JPEG up to its scan, which is the last."""
    start = 2
    while start + 4 <= len(data) and data[start] == 0xFF:
        end = start + 2 + int.from_bytes(data[start + 2 : start + 4], "big")
        is_scan = data[start + 1] == 0xDA
        yield Region(start, start + 4, len(data) if is_scan else min(end, len(data)), data[start + 1] == 0xFE)
        if is_scan:
            return
        start = end


def gif_blocks(data: bytes) -> Iterator[Region]:
    """Extensions and pictures of GIF."""
    if len(data) < 13:
        return
    start = 13 + (3 << (data[10] & 7) + 1 if data[10] & 0x80 else 0)
    while start + 2 < len(data) and data[start] in (0x21, 0x2C):
        if data[start] == 0x21:
            body = start + 2
        elif start + 10 > len(data):
            return
        else:
            flags = data[start + 9]
            body = start + 11 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
        end = body
        while end < len(data) and data[end]:
            end += data[end] + 1
        yield Region(start, body, min(end + 1, len(data)), data[start : start + 2] == b"\x21\xfe")
        start = end + 1


def flv_tags(data: bytes) -> Iterator[Region]:
    """Those of FLV."""
    start = 13
    while start + 15 <= len(data):
        end = start + 15 + int.from_bytes(data[start + 1 : start + 4], "big")
        yield Region(start, start + 11, min(end, len(data)))
        start = end


def lines(data: bytes) -> Iterator[Region]:
    """Those of text."""
    start = 0
    for line in data.splitlines(keepends=True):
        yield Region(start, start, start + len(line))
        start += len(line)


def blocks(data: bytes) -> Iterator[Region]:
    """Stretches of a file whose structure is not known here."""
    step = max(len(data) // 24, 16)
    for start in range(0, len(data), step):
        yield Region(start, min(start + 4, len(data)), min(start + step, len(data)))


Structure = Callable[[bytes], Iterator[Region]]


def mutated(data: bytes, structure: Structure, chance: Random, others: list[bytes]) -> bytes:
    """A file with one to four changes.

    Args:
        data: The file.
        structure: How it is built.
        chance: Where all decisions come from.
        others: Files of which parts may be put in.
    """
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        if not data:
            break
        regions = list(structure(data))
        if regions and chance.random() < 0.6:
            data = _restructured(data, regions, chance)
        else:
            data = _damaged(data, chance, others)
    return with_right_checksums(data) if data.startswith(b"\x89PNG") and chance.random() < 0.8 else data


def mutated_beside(data: bytes, structure: Structure, chance: Random) -> bytes | None:
    """A file of the same length that differs only where no picture depends on it; None where it has no such place."""
    regions = [region for region in structure(data) if region.is_beside and region.end - region.body > 4]
    if not regions:
        return None
    region, changed = chance.choice(regions), bytearray(data)
    end = region.end - (4 if data.startswith(b"\x89PNG") else 1 if data.startswith(b"GIF") else 0)
    for _ in range(chance.randrange(1, 9)):
        changed[chance.randrange(region.body + data.startswith(b"GIF"), end)] = chance.randrange(1, 255)
    return with_right_checksums(bytes(changed)) if data.startswith(b"\x89PNG") else bytes(changed)


def with_right_checksums(data: bytes) -> bytes:
    """A PNG whose chunks have the checksums of what they hold."""
    fixed = bytearray(data)
    for region in png_chunks(data):
        if region.end - region.start >= 12:
            fixed[region.end - 4 : region.end] = zlib.crc32(data[region.start + 4 : region.end - 4]).to_bytes(4, "big")
    return bytes(fixed)


def _restructured(data: bytes, regions: list[Region], chance: Random) -> bytes:
    one, other = sorted(chance.choices(regions, k=2), key=lambda region: region.start)
    part = data[one.start : one.end]
    match chance.randrange(7):
        case 0:
            return data[: one.start] + data[one.end :]
        case 1:
            return data[: one.end] + part + data[one.end :]
        case 2 if one.end <= other.start:
            moved = data[other.start : other.end] + data[one.end : other.start] + part
            return data[: one.start] + moved + data[other.end :]
        case 3:
            return _number_put(data, chance.randrange(one.start, max(one.body, one.start + 1)), chance)
        case 4:
            return data[: one.start] + data[other.start : other.end] + data[one.end :]
        case 5:
            return data[: one.body] + chance.randbytes(chance.randrange(9)) + data[one.body :]
        case _:
            for _ in range(chance.randrange(1, 4)):
                data = _number_put(data, chance.randrange(one.start, max(one.end, one.start + 1)), chance)
            return data


def _number_put(data: bytes, at: int, chance: Random) -> bytes:
    """A number that readers find hard, in place of another."""
    width = chance.choice((1, 1, 2, 4, 4, 8))
    number = chance.choice((*NUMBERS, chance.randrange(2**32))) % 2 ** (8 * width)
    return data[:at] + number.to_bytes(width, chance.choice(("big", "little"))) + data[at + width :]


def _damaged(data: bytes, chance: Random, others: list[bytes]) -> bytes:
    at = chance.randrange(len(data))
    if chance.random() < 0.3:
        at = min(at, chance.randrange(256))
    end = min(len(data), at + chance.choice((1, 4, 16, 200, 2000)))
    other = chance.choice(others)
    match chance.randrange(7):
        case 0:
            return data[:at]
        case 1:
            return data[:at] + bytes(byte ^ 1 << chance.randrange(8) for byte in data[at : at + 1]) + data[at + 1 :]
        case 2:
            return data[:at] + chance.randbytes(end - at) + data[end:]
        case 3:
            return data[:at] + data[end:]
        case 4:
            return data[:at] + chance.randbytes(chance.randrange(1, 40)) + data[at:]
        case 5:
            return data[:at] + bytes(end - at) + data[end:]
        case _:
            begin = chance.randrange(len(other))
            return data[:at] + other[begin : begin + chance.choice((16, 500, 5000))] + data[end:]
