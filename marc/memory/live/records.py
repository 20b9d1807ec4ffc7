"""The files of a watched source: records one behind another, only ever added to.

A record is a line that says how long it is, a head (a line of JSON and, if it has one, a vector) and pictures. The
line holds the SHA-256 of the head and the head that of the pictures, so a file is read by its heads alone, and a
picture is verified when it is looked at. What a kill or a loss of power has cut off at the end is left out by readers
and taken away by the next writer; a damaged record in the middle is skipped, and that is said.

Shape legend: D embedding dimensions.
"""

from __future__ import annotations

import json
import logging
import os
import re
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from marc.io import append_bytes, cut_off, parse_json, sha256_of
from marc.memory.vectors import are_unit_vectors

logger = logging.getLogger(__name__)

MARK = b"marc live 1"
_LINE = re.compile(rb"marc live 1 (\d{1,7}) (\d{1,12}) ([0-9a-f]{64})\n")
_LINE_BYTES = 128
"""Longer than any first line of a record."""


class DamagedRecordError(ValueError):
    """A record, or its pictures, that nobody has written so."""


@dataclass(frozen=True, slots=True)
class Record:
    """One record, its pictures left on the disk.

    Attributes:
        said: What it says, in JSON: thousands of records stay in memory, and parsed they take twice as much of it.
        vector: A unit vector ``float32 [D]``; None without.
        file: Where it is.
        place: Of its pictures in the file, in bytes.
        end: Where the record ends.
    """

    said: bytes
    vector: NDArray[np.float32] | None
    file: RecordFile
    place: int
    end: int

    @property
    def head(self) -> Mapping[str, Any]:
        """What it says."""
        head: Mapping[str, Any] = parse_json(self.said, self.file.path)
        return head

    @property
    def size(self) -> int:
        """Bytes of its pictures."""
        return self.end - self.place

    def pictures(self) -> list[bytes]:
        """Its pictures.

        Raises:
            DamagedRecordError: The disk holds something else.
        """
        try:
            content, head = self.file.read(self.place, self.size), self.head
        except OSError as error:
            raise DamagedRecordError(f"{self.file.path}: a picture cannot be read ({error.strerror})") from error
        with as_written(self.file):
            if sha256_of(content) != head["pictures"]:
                raise DamagedRecordError(f"{self.file.path}: a picture is damaged; get the file from a backup")
            ends = np.cumsum([0, *map(int, head["lengths"])]).tolist()
        return [content[start:end] for start, end in pairwise(ends)]


@contextmanager
def as_written(file: RecordFile) -> Iterator[None]:
    """Turns whatever a record says that none of ours does into one error.

    Raises:
        DamagedRecordError: Naming the file.
    """
    try:
        yield
    except DamagedRecordError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        cause = f"{type(error).__name__}: {error}"
        raise DamagedRecordError(f"{file.path}: a record says what none can ({cause}); delete the folder") from error


def packed(head: Mapping[str, Any], vector: NDArray[np.float32] | None, pictures: Sequence[bytes]) -> bytes:
    """The bytes of a record."""
    content = b"".join(pictures)
    said = {**head, "lengths": [len(picture) for picture in pictures], "pictures": sha256_of(content)}
    top = json.dumps(said).encode() + b"\n" + (b"" if vector is None else vector.astype("<f4").tobytes())
    return b"%s %d %d %s\n%s%s" % (MARK, len(top), len(content), sha256_of(top).encode(), top, content)


class RecordFile:
    """A file of records, kept open: its pictures can be read after it was deleted, as long as somebody holds it.

    Args:
        path: An existing file.

    Attributes:
        path: The file.
        whole: Bytes up to the end of the last whole record that was read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.whole = 0
        self._descriptor = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._descriptor)

    def read(self, place: int, count: int) -> bytes:
        """Some bytes, fewer at the end."""
        return os.pread(self._descriptor, count, place)

    def new_records(self) -> Iterator[Record]:
        """The whole records that have been added since they were asked for last."""
        while (record := self._record_at(self.whole)) is not None:
            self.whole = record.end
            yield record

    def _record_at(self, place: int) -> Record | None:
        """The first whole record from a place on; None if there is none yet."""
        length = os.fstat(self._descriptor).st_size
        while place < length:
            match = _LINE.match(self.read(place, _LINE_BYTES))
            record = self._parsed(place, match) if match else None
            if record is not None:
                return record if record.end <= length else None
            following = self._next_mark(place + 1, length)
            if following is None:
                return None
            logger.warning("%s: the bytes from %d to %d are damaged and left out", self.path, place, following)
            place = following
        return None

    def _parsed(self, place: int, line: re.Match[bytes]) -> Record | None:
        """The record that a first line announces; None if its head is not what was written."""
        begin, size = place + line.end(), int(line[1])
        top = self.read(begin, size)
        if len(top) < size or sha256_of(top).encode() != line[3]:
            return None
        said, _, vector = top.partition(b"\n")
        place = begin + size
        with as_written(self):
            numbers = np.frombuffer(vector, "<f4").astype(np.float32) if vector else None
            if numbers is not None and not are_unit_vectors(numbers[None])[0]:
                raise ValueError("a vector is no unit vector")
        parse_json(said, self.path)
        return Record(said, numbers, self, place, place + int(line[2]))

    def _next_mark(self, place: int, length: int) -> int | None:
        step = 1 << 20
        while place < length:
            found = self.read(place, step + len(MARK)).find(MARK)
            if found >= 0:
                return place + found
            place += step
        return None


class RecordWriter:
    """Adds records to a file that nobody else writes.

    Args:
        path: The file; one that is there is cut off behind its last whole record.

    Attributes:
        file: Reads what was written.
        records: Those that were there.
    """

    def __init__(self, path: Path) -> None:
        if not path.exists():
            append_bytes(path, b"")
        self.file = RecordFile(path)
        self.records = list(self.file.new_records())
        while self.records and not _is_whole(self.records[-1]):
            lost = self.records.pop()
            logger.warning("%s: the last record of kind %s is damaged and left out", path, lost.head.get("kind"))
            self.file.whole = self.records[-1].end if self.records else 0
        if path.stat().st_size > self.file.whole:
            cut_off(path, self.file.whole)

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return self.file.whole

    def append(self, content: bytes) -> list[Record]:
        """Adds the bytes of records, durably; all of them or none.

        Raises:
            OSError: They cannot be written, as on a full disk; the file is as before.
        """
        try:
            append_bytes(self.file.path, content)
        except OSError:
            cut_off(self.file.path, self.file.whole)
            raise
        return list(self.file.new_records())


def _is_whole(record: Record) -> bool:
    try:
        record.pictures()
    except DamagedRecordError:
        return False
    return True
