"""The memory of one video on disk: its events, their embeddings and thumbnails, in one file.

A memory file belongs to one content and one set of settings. Its name ends in a key, the SHA-256 of both, so a video
that changed and a setting that changed are both simply not found, and a renamed or copied video still is. Files appear
whole or not at all (`marc.io`).

A file is four parts: a line with the format's number, a line with the SHA-256 of everything behind it, a line of JSON,
and the bytes of embeddings, thumbnails and directions of keyframes, whose lengths the JSON gives. What is read back is
the bytes that were written, or a `DamagedMemoryError`.

The content key is the SHA-256 of the whole file: sampling parts of it would take a half-finished download with
reserved space for the finished one. It is computed once and kept in the user's cache folder for as long as the file's
device, inode, size, modification time and change time stay the same.

Shape legend: E events, D embedding dimensions.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from marc.io import (
    file_state,
    make_folders,
    parse_json,
    read_json,
    sealed,
    sha256_file,
    sha256_json,
    sha256_of,
    unsealed,
    write_bytes,
    write_json,
)
from marc.memory.addresses import source_name
from marc.memory.vectors import are_unit_vectors
from marc.types import Event

logger = logging.getLogger(__name__)

FORMAT = 2
SUFFIX = ".marc"
_MARK = b"marc memory "
_OLD_MARK = b"PK"
"""How files of format 1 begin, which had no checksum over the whole."""
KEY_LENGTH = 16
_SETTLED_SECONDS = 1.0
_NAME_BYTES = 200


@dataclass(frozen=True)
class MemorySettings:
    """Everything that a memory depends on besides the video; two memories of equal settings are interchangeable.

    Attributes:
        marc: Version of this package.
        embedder: Fingerprint of the embedding model's configuration and weights.
        precision: Number format of the embedding model, ``"fp32"`` or ``"bf16"``.
        segmenter: Name of the shot detector.
        segmenter_version: What the shot detector rests on, see `marc.memory.detectors.ShotDetector.version`.
        min_seconds: Shorter events were joined.
        max_seconds: Longer events were split.
        seconds_per_frame: One frame in so many seconds was a keyframe.
        thumbnail_width: Width of the thumbnails in pixels.
        format: Version of the file format.
    """

    marc: str
    embedder: str
    precision: str
    segmenter: str
    segmenter_version: str
    min_seconds: float
    max_seconds: float
    seconds_per_frame: float
    thumbnail_width: int
    format: int = FORMAT

    def key(self, content: str) -> str:
        """Key of the memory of a video with this content key."""
        return sha256_json([content, asdict(self)])


@dataclass(frozen=True)
class VideoMemory:
    """What is remembered of one video.

    Attributes:
        source: Absolute path of the video when it was remembered, or its address in an object store.
        content: SHA-256 of the video file.
        events: Events in time order.
        embeddings: Their unit vectors, ``float32 [E, D]``.
        thumbnails: A JPEG picture of each event.
        settings: What the memory was made with.
        versions: Names and versions of the software that made it, for the record.
        looks: Directions of the different keyframes of each event, ``int8 [K, D]``; empty where they are not known, as
            of models that see clips.
    """

    source: str
    content: str
    events: tuple[Event, ...]
    embeddings: NDArray[np.float32] = field(repr=False)
    thumbnails: tuple[bytes, ...] = field(repr=False)
    settings: MemorySettings
    versions: dict[str, str]
    looks: tuple[NDArray[np.int8], ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        if not len(self.events) == len(self.embeddings) == len(self.thumbnails) > 0:
            counts = f"{len(self.events)} events, {len(self.embeddings)} vectors, {len(self.thumbnails)} thumbnails"
            raise ValueError(f"a memory needs a vector and a thumbnail of each of its events, got {counts}")
        assert self.embeddings.dtype == np.float32 and self.embeddings.ndim == 2
        if len(self.looks) not in (0, len(self.events)):
            raise ValueError(f"a memory knows keyframes of all its {len(self.events)} events or of none")

    @property
    def key(self) -> str:
        """SHA-256 of content and settings."""
        return self.settings.key(self.content)


class DamagedMemoryError(ValueError):
    """A memory file that cannot be read back."""


def memory_path(video: str | Path, key: str, folder: str | Path | None = None) -> Path:
    """Where the memory of a video is kept: beside the video, or in ``folder``."""
    video = Path(video)
    name = os.fsencode(video.name)[:_NAME_BYTES].decode(errors="ignore")
    return Path(folder or video.parent) / f"{name}.{key[:KEY_LENGTH]}{SUFFIX}"


def memory_files(video: str | Path, key: str, folder: str | Path | None = None) -> list[Path]:
    """Files that may be the memory of a key: that of the video's name, else those of other names in its folder."""
    expected = memory_path(video, key, folder)
    return [expected] if expected.exists() else sorted(expected.parent.glob(f"*.{key[:KEY_LENGTH]}{SUFFIX}"))


def find_memory(video: str | Path, settings: MemorySettings, folder: str | Path | None = None) -> VideoMemory | None:
    """The memory of exactly this content under exactly these settings, with its path of today, or None.

    A damaged file, or one of an older format, is reported in the log and treated as missing, so that it is made again.
    """
    return find_memory_of(content_key(video), video, settings, folder)


def find_memory_of(
    content: str, video: str | Path, settings: MemorySettings, folder: str | Path | None = None
) -> VideoMemory | None:
    """As `find_memory`, of a video whose content key is known; it is not looked at."""
    key = settings.key(content)
    for path in memory_files(video, key, folder):
        try:
            memory = load_memory(path)
        except DamagedMemoryError as error:
            logger.warning("%s; the video is remembered again", error)
            continue
        if memory.key == key:
            return replace(memory, source=source_name(video))
        logger.warning("%s: the memory of another video, or of other settings; the video is remembered again", path)
    older = memory_path(video, replace(settings, format=settings.format - 1).key(content), folder)
    if older.exists():
        logger.warning(
            "%s: of format %d, which this version no longer reads; the video is remembered again",
            older,
            settings.format - 1,
        )
    return None


def save_memory(memory: VideoMemory, path: str | Path) -> None:
    """Write a memory file that is either complete on the disk or absent, whatever interrupts this.

    Raises:
        OSError: The folder cannot be written, or the disk is full; an older file of that name is still whole.
    """
    with _explained(memory.source, Path(path)):
        write_bytes(path, _packed(memory))


def _packed(memory: VideoMemory) -> bytes:
    """A memory as the bytes of its file."""
    header = {
        "source": memory.source,
        "content": memory.content,
        "settings": asdict(memory.settings),
        "versions": memory.versions,
        "events": [(event.start, event.end) for event in memory.events],
        "dimensions": memory.embeddings.shape[1],
        "thumbnail_bytes": [len(picture) for picture in memory.thumbnails],
        "keyframes": [len(each) for each in memory.looks],
    }
    vectors = memory.embeddings.astype("<f4").tobytes()
    looks = [each.tobytes() for each in memory.looks]
    body = b"".join([json.dumps(header).encode(), b"\n", vectors, *memory.thumbnails, *looks])
    return sealed(b"%s%d" % (_MARK, FORMAT), body)


def make_folder(video: str | Path, folder: str | Path | None = None) -> None:
    """Make the folder where the memory of a video will be kept, so that one fails before the work, not after it.

    Raises:
        OSError: It cannot be made or written to.
    """
    place = memory_path(video, "", folder).parent
    with _explained(str(video), place):
        make_folders(place)
        if not os.access(place, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


@contextmanager
def _explained(video: str, path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        advice = "make room, or choose another folder for memories"
        message = f"cannot write the memory of {video}: {error.strerror}; {advice}"
        raise OSError(error.errno, message, str(path)) from error


def load_memory(path: str | Path) -> VideoMemory:
    """Read a memory file; all its bytes and what they say are verified.

    Raises:
        DamagedMemoryError: The file is not a whole memory file of this format, or cannot be read.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise DamagedMemoryError(f"{path}: the memory cannot be read ({error.strerror})") from error
    except ValueError as error:  # of names that no file can have
        raise DamagedMemoryError(f"{str(path)!r}: no file can be called so") from error
    try:
        memory = _unpacked(content)
        _check(memory)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise DamagedMemoryError(f"{path}: not a whole memory file ({type(error).__name__}: {error})") from error
    return memory


def _unpacked(content: bytes) -> VideoMemory:
    """The memory in the bytes of a file.

    Raises:
        ValueError: They are not those that were written.
        KeyError, TypeError, AttributeError, OverflowError: Whoever wrote them knows the checksum, not the format.
    """
    if content.startswith(_OLD_MARK):
        raise ValueError(f"format 1 of an older version, without a checksum; this version reads format {FORMAT}")
    line, _, arrays = unsealed(b"%s%d" % (_MARK, FORMAT), content).partition(b"\n")
    header = parse_json(line, "header")
    events = tuple(Event(float(start), float(end)) for start, end in header["events"])
    dimensions, keyframes = int(header["dimensions"]), [int(count) for count in header.get("keyframes", ())]
    pictures = [int(length) for length in header["thumbnail_bytes"]]
    lengths = [len(events) * dimensions * 4, *pictures, *(count * dimensions for count in keyframes)]
    if min(lengths) < 0 or sum(lengths) != len(arrays):
        raise ValueError(f"{len(arrays)} bytes of vectors and pictures where {sum(lengths)} should be")
    ends = np.cumsum(lengths).tolist()
    parts = [arrays[start:end] for start, end in pairwise(ends)]
    return VideoMemory(
        source=str(header["source"]),
        content=str(header["content"]),
        events=events,
        embeddings=np.frombuffer(arrays[: ends[0]], "<f4").reshape(len(events), -1).astype(np.float32),
        thumbnails=tuple(parts[: len(pictures)]),
        looks=tuple(np.frombuffer(part, np.int8).reshape(-1, dimensions) for part in parts[len(pictures) :]),
        settings=MemorySettings(**header["settings"]),
        versions=dict(header["versions"]),
    )


def _check(memory: VideoMemory) -> None:
    """Refuses what no memory of a video says.

    Raises:
        ValueError: Naming it.
    """
    if not all(event.start < event.end < np.inf for event in memory.events):
        raise ValueError("an event has no length")
    if memory.events[0].start != 0 or any(before.end != after.start for before, after in pairwise(memory.events)):
        raise ValueError("the events do not follow one another from 0 s on")
    if not are_unit_vectors(memory.embeddings).all():
        raise ValueError("an embedding is no unit vector")
    if not all(len(each) and each.any(axis=1).all() for each in memory.looks):
        raise ValueError("a keyframe has no direction")
    if not all(picture.startswith(b"\xff\xd8") and picture.endswith(b"\xff\xd9") for picture in memory.thumbnails):
        raise ValueError("a thumbnail is no JPEG picture")


def content_key(path: str | Path) -> str:
    """SHA-256 of a whole file in hexadecimal, from the cache while the file is unchanged.

    Raises:
        ValueError: There is no such file, or it changed while it was read.
    """
    path = Path(path).resolve()
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    state = file_state(path)
    cached = cache_folder("content") / f"{sha256_of(os.fsencode(path))}.json"
    if (entry := _read_cached(cached)) and entry.get("state") == list(state):
        return str(entry["sha256"])
    digest = sha256_file(path)
    if file_state(path) != state:
        raise ValueError(f"{path}: the file changed while it was read; wait until it is complete")
    if time.time() - state[-1] / 1e9 > _SETTLED_SECONDS:
        _write_cached(cached, {"state": state, "sha256": digest})
    return digest


def cache_folder(name: str) -> Path:
    """Where the user keeps what can be found out again, by what it is about."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "marc" / name


def _read_cached(path: Path) -> dict[str, Any]:
    try:
        entry = read_json(path)
    except (OSError, ValueError):
        return {}
    return entry if isinstance(entry, dict) else {}


def _write_cached(path: Path, entry: dict[str, Any]) -> None:
    try:
        write_json(path, entry)
    except OSError as error:
        logger.info("content keys are not cached: %s", error)
