"""Whether the index of an AVI file can be believed.

An AVI file says nowhere when a picture is shown: its number is counted, and after a seek that number is the index's. A
damaged index would so give wrong pictures for right ones.
"""

from __future__ import annotations

import os
import re
from functools import lru_cache
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

MOST_ENTRIES = 2**23
HEADER = 8
ENTRY = np.dtype([("name", "S4"), ("flags", "<u4"), ("offset", "<u4"), ("size", "<u4")])
_NAME = re.compile(rb"\d\d(d[bc]|wb|tx|pc|ix)|ix\d\d|rec ")


def has_true_index(path: str, stream: int, frames: int) -> bool:
    """Whether the index at the end of an AVI file (``idx1``) names the chunks that are there, all and no other.

    An index without a gap that has as many pictures as the header is believed; another is compared with all chunks. A
    file without one has none that could be wrong. Those of OpenDML, inside the file, are not looked at.

    Args:
        path: A file.
        stream: Number of its stream of pictures.
        frames: How many pictures its header says that there are.
    """
    status = os.stat(path)
    return _has_true_index(path, stream, frames, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=8)
def _has_true_index(path: str, stream: int, frames: int, changed: int, size: int) -> bool:
    """Kept for a few files, which are opened several times in a row; `changed` and `size` tell them from others."""
    with open(path, "rb") as file:
        begin, end = _find(file, b"movi", 12, size)
        if not end:
            return True
        start, stop = _find(file, b"idx1", end, size)
        if not stop:
            return True
        file.seek(start)
        count = (stop - start) // ENTRY.itemsize
        if count > MOST_ENTRIES:
            return False
        index = np.frombuffer(file.read(count * ENTRY.itemsize), ENTRY)
        index = index[index["name"] != b"rec "]
        return _is_plain(index, stream, frames, begin, end) or _names_all(file, index, begin, end)


def _find(file: BinaryIO, name: bytes, start: int, end: int) -> tuple[int, int]:
    """Where the body of a chunk, or of a list of that type, begins and ends; zeros if it is not there."""
    while start + HEADER <= end:
        file.seek(start)
        head = file.read(12)
        body, size = start + HEADER, int.from_bytes(head[4:8], "little")
        stop = body + size
        if head[:4] == name:
            return body, min(stop, end)
        if head[:4] == b"LIST" and head[8:12] == name:
            return body, min(stop, end)
        start = stop + size % 2
    return 0, 0


def _is_plain(index: NDArray[np.void], stream: int, frames: int, begin: int, end: int) -> bool:
    """Whether an index names chunks from the first byte of ``[begin, end)`` to the last, and the pictures told of."""
    names, counts = np.unique(index["name"], return_counts=True)
    prefix = b"%02d" % stream
    pictures = sum(count for name, count in zip(names.tolist(), counts, strict=True) if name.startswith(prefix))
    if pictures != frames or not all(_NAME.fullmatch(name) for name in names.tolist()):
        return False
    starts, sizes = index["offset"].astype(np.int64), index["size"].astype(np.int64)
    ends = starts + HEADER + sizes + sizes % 2
    is_one_piece = bool((ends[:-1] == starts[1:]).all()) and ends[-1] - starts[0] == end - begin - 4
    return is_one_piece and starts[0] in (4, begin + 4)


def _names_all(file: BinaryIO, index: NDArray[np.void], begin: int, end: int) -> bool:
    """Whether chunk after chunk of ``[begin, end)``, which begins with the name of the list, is the index's next."""
    place = begin + 4
    shift: int | None = None
    for name, _, offset, size in index.tolist():
        place = _next_chunk(file, place, end)
        if place + HEADER > end or not _NAME.fullmatch(name):
            return False
        file.seek(place)
        if file.read(HEADER) != name.ljust(4, b"\0") + size.to_bytes(4, "little"):
            return False
        shift = place - offset if shift is None else shift
        if offset + shift != place:
            return False
        place += HEADER + size + size % 2
    return _next_chunk(file, place, end) + HEADER > end


def _next_chunk(file: BinaryIO, place: int, end: int) -> int:
    """Where the next chunk with a picture or a sound begins: inside lists, and behind what only fills."""
    while place + HEADER <= end:
        file.seek(place)
        head = file.read(HEADER)
        if head[:4] == b"LIST":
            place += 12
        elif head[:4] == b"JUNK" or head[:2] == b"ix":
            size = int.from_bytes(head[4:8], "little")
            place += HEADER + size + size % 2
        else:
            break
    return place
