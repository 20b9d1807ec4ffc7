"""A watched source's memory on disk: one process writes it, any number read it.

A folder holds

* ``watch.json``: what is watched, with which embedder and options; written once;
* ``events.N.log``: closed events, chapters, gaps, told questions (`marc.memory.live.records`), only ever added to.
  When more than half of it is of events that have become parts of chapters, the rest is written as
  ``events.N+1.log`` (`marc.memory.live.compaction`), which appears whole, and the old file goes;
* ``recent.N.log``: the frames of the last seconds, a few seconds in each file; old ones go;
* ``.lock``: held by the process that watches; a killed one gives it back.

What is read is a prefix of what was written, so it is consistent at any moment.
"""

from __future__ import annotations

import logging
import os
import re
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from marc.io import clear_leftovers, file_state, make_folders, message_of, read_json, write_json
from marc.memory.live.compaction import Compaction, intact_pictures
from marc.memory.live.options import LiveOptions
from marc.memory.live.records import DamagedRecordError, Record, RecordFile, RecordWriter, as_written, packed
from marc.memory.live.snapshot import KeptFrame, LiveEvent, LiveSnapshot, LiveState

logger = logging.getLogger(__name__)

FORMAT = 1
HEADER = "watch.json"
SLACK = 16 * 2**20
"""Bytes that the log of events may have beyond twice what is in it."""
FILES_OF_RECENT = 3
"""Over which the last seconds are spread."""
COMPACTION_PAUSE = 60.0
"""Seconds until the log of events is tried to be written anew, if that failed."""
_NAME = re.compile(r"[\w-][\w.-]{0,99}")
_ATTEMPTS = 5


def default_folder() -> Path:
    """Where the memories of watched sources are kept unless the user says otherwise."""
    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(data) / "marc" / "watch"


def watch_folder(name: str, folder: str | Path | None = None) -> Path:
    """The folder of a watched source.

    Args:
        name: What it is called.
        folder: Of all of them; ``None``: `default_folder`.

    Raises:
        ValueError: If nothing can be called so.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(f"a watched source is called by letters, digits, dots, dashes and underscores, got {name!r}")
    return Path(folder or default_folder()) / name


def find_watch(name: str) -> Path:
    """The folder of a watched source that is told by its name, or by the path of its folder.

    Raises:
        ValueError: If nothing can be called so.
    """
    path = Path(name)
    return path if (path / HEADER).exists() or path.name != name else watch_folder(name)


class LiveStore:
    """The memory of a source, written by this process alone.

    Args:
        folder: Where it is, or is to be.
        settings: What must stay the same as long as it is added to: name, source, embedder, options.
        options: How much is kept.

    Attributes:
        state: Events, gaps and told questions.
        recent: The last frames, as they were found on disk.

    Raises:
        ValueError: Another process writes it, or it was begun with other settings.
        OSError: It cannot be written.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any], options: LiveOptions) -> None:
        self.folder = folder
        self._options, self._compacted_after = options, 0.0
        self._compaction: Compaction | None = None
        make_folders(folder)
        self._lock = FileLock(folder / ".lock")
        try:
            self._lock.acquire(timeout=0)
        except Timeout as error:
            raise ValueError(f"{folder}: another process watches under this name; choose another --name") from error
        try:
            clear_leftovers(folder, older_than=0.0)  # whoever left them held the lock
            self._check_settings(settings)
            self.state = LiveState()
            self._open_events()
            self._open_recent()
        except BaseException:
            self._lock.release()
            raise

    def _check_settings(self, settings: Mapping[str, Any]) -> None:
        path, wanted = self.folder / HEADER, {"format": FORMAT, **settings}
        if not path.exists():
            write_json(path, wanted)
            return
        found = _settings_of(self.folder)
        if differing := [key for key in wanted if found.get(key) != wanted[key]]:
            key = differing[0]
            raise ValueError(
                f"{self.folder}: this memory was begun with {key} {found.get(key)!r}, not {wanted[key]!r}; choose "
                "another --name, or delete the folder"
            )

    def _open_events(self) -> None:
        numbers = _numbers(self.folder, "events")
        for number in numbers[:-1]:
            _path(self.folder, "events", number).unlink(missing_ok=True)
        self._last_number = numbers[-1] if numbers else 0
        self._events = RecordWriter(_path(self.folder, "events", self._last_number))
        for record in self._events.records:
            self.state.apply(record)
        self._events.records = []

    def _open_recent(self) -> None:
        self._segments: list[tuple[int, float]] = []  # number, and time of the last frame
        self.recent: list[KeptFrame] = []
        for number in _numbers(self.folder, "recent"):
            writer = RecordWriter(_path(self.folder, "recent", number))
            frames = list(_frames_of(writer.records))
            self.recent += frames
            self._segments.append((number, frames[-1].second if frames else 0.0))
        number = self._segments[-1][0] + 1 if self._segments else 0
        self._begin_segment(number)

    def _begin_segment(self, number: int) -> None:
        self._segment, self._number = RecordWriter(_path(self.folder, "recent", number)), number
        self._segment_start: float | None = None

    def add(self, head: Mapping[str, Any], vector: NDArray[np.float32] | None = None, *pictures: bytes) -> None:
        """Writes a record of an event or a note, durably, and takes over what it says.

        Where there is no room to write the log anew it goes on growing, and that is tried again later.

        Raises:
            OSError: It cannot be written; everything is as before.
        """
        self._take_up_compaction()
        content = packed(head, vector, pictures)
        for record in self._events.append(content):
            self.state.apply(record)
        if self._compaction is not None:
            self._compaction.added.append(content)
        elif self._events.size > 2 * self.state.size + SLACK and time.monotonic() >= self._compacted_after:
            self._compaction = Compaction(self.folder, self.state.heads_of_notes(), tuple(self.state.events))
            self._compaction.added += [packed(each, None, []) for each in self.state.heads_of_the_end()]

    def _take_up_compaction(self) -> None:
        """Goes on with the log that was written anew, if one is there."""
        if self._compaction is None or not self._compaction.is_done:
            return
        written, self._compaction = self._compaction, None
        try:
            self._go_on_with(written)
        except (OSError, DamagedRecordError) as error:
            self._compacted_after = time.monotonic() + COMPACTION_PAUSE
            logger.warning("%s: the log of events cannot be written anew: %s", self.folder, message_of(error))

    def _go_on_with(self, written: Compaction) -> None:
        old, state = self._events.file.path, LiveState()
        self._last_number += 1  # never twice: readers know files by their numbers
        path = _path(self.folder, "events", self._last_number)
        try:
            written.put_at(path)
            events = RecordWriter(path)
            for record in events.records:
                state.apply(record)
        except (OSError, DamagedRecordError):
            path.unlink(missing_ok=True)  # whoever reads follows the newest
            raise
        events.records = []
        state.closed, state.next_number, state.ended = self.state.closed, self.state.next_number, self.state.ended
        self._events, self.state = events, state
        old.unlink(missing_ok=True)

    def drop_damaged(self, events: Sequence[LiveEvent]) -> None:
        """Takes events out whose pictures the disk no longer has; that is said.

        Raises:
            OSError: That cannot be noted.
        """
        for event in events:
            if intact_pictures(event) is None:
                self.add({"kind": "lost", "number": event.number})

    def keep(self, frames: Sequence[KeptFrame], open_start: float) -> None:
        """Writes some of the last frames, durably, and deletes files of those that are too old.

        Args:
            frames: In time order.
            open_start: Since when the event lasts that is not over; its frames stay.

        Raises:
            OSError: They cannot be written.
        """
        self._take_up_compaction()
        if not frames:
            return
        content = [
            packed({"kind": "frame", "open": open_start, **_said_of(frame)}, frame.vector, [frame.jpeg])
            for frame in frames
        ]
        self._segment.append(b"".join(content))
        if self._segment_start is None:
            self._segment_start = frames[0].second
        newest = frames[-1].second
        longest = self._options.recent_seconds / (FILES_OF_RECENT - 1)
        largest = self._options.recent_mib * 2**20 / (FILES_OF_RECENT - 1)
        if newest - self._segment_start >= longest or self._segment.size >= largest:
            self._segments.append((self._number, newest))
            self._begin_segment(self._number + 1)
        self._drop_old(min(newest - self._options.recent_seconds, open_start))

    def _drop_old(self, before: float) -> None:
        kept = self._options.recent_mib * 2**20
        sizes = [_size(_path(self.folder, "recent", number)) for number, _ in self._segments]
        while self._segments and (self._segments[0][1] < before or sum(sizes) > kept):
            _path(self.folder, "recent", self._segments.pop(0)[0]).unlink(missing_ok=True)
            sizes.pop(0)

    def close(self) -> None:
        """Lets others write it."""
        try:
            if self._compaction is not None:
                self._compaction.abandon()
        finally:
            self._lock.release()


class StoredWatch:
    """The memory of a source that another process, or this one, writes or has written.

    Args:
        folder: See `watch_folder`.

    Attributes:
        settings: What it was begun with.

    Raises:
        ValueError: There is none, or it is of another format.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._lock = threading.Lock()
        self._open()

    def _open(self) -> None:
        """Begins with what stands there now."""
        try:
            self._begun = file_state(self.folder / HEADER)
            self.settings = _settings_of(self.folder)
        except FileNotFoundError as error:
            raise ValueError(f"{self.folder}: nothing is watched under this name; `marc watch` does it") from error
        self._state, self._generation = LiveState(), -1
        self._file: RecordFile | None = None

    def snapshot(self) -> LiveSnapshot:
        """What is on disk now; of the log of events only what was added since the last snapshot is read.

        Raises:
            ValueError: The files change too fast to be read, or are gone.
        """
        with suppress(FileNotFoundError):
            if file_state(self.folder / HEADER) == self._begun:
                return self._snapshot()
        self._open()  # the folder was deleted since, and perhaps begun anew
        return self._snapshot()

    def _snapshot(self) -> LiveSnapshot:
        for _ in range(_ATTEMPTS):
            with (
                self._lock,
                suppress(FileNotFoundError),
            ):  # a file may have made room between the listing and the opening
                self._read_events()
                records = [
                    record
                    for number in _numbers(self.folder, "recent")
                    for record in RecordFile(_path(self.folder, "recent", number)).new_records()
                ]
                frames = tuple(_frames_of(records))
                opened = float(records[-1].head.get("open", 0.0)) if records else 0.0
                return snapshot_of(self.settings, self._state, frames, opened)
        raise ValueError(f"{self.folder}: its files change faster than they can be read; ask again")

    def _read_events(self) -> None:
        numbers = _numbers(self.folder, "events")
        if numbers and (self._file is None or numbers[-1] != self._generation):
            self._file = RecordFile(_path(self.folder, "events", numbers[-1]))
            self._state, self._generation = LiveState(), numbers[-1]
        if self._file is not None:
            for record in self._file.new_records():
                self._state.apply(record)


def _settings_of(folder: Path) -> dict[str, Any]:
    """What a memory was begun with.

    Raises:
        ValueError: The file says something else.
    """
    found = read_json(folder / HEADER)
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise ValueError(f"{folder}: not a memory of format {FORMAT}; watch the source under another --name")
    is_right = {key: isinstance(found.get(key), str) for key in ("name", "source", "embedder")}
    is_right["rate"] = isinstance(found.get("rate", 0.0), int | float)
    if wrong := [key for key, is_so in is_right.items() if not is_so]:
        raise ValueError(
            f"{folder / HEADER}: {wrong[0]} is {found.get(wrong[0])!r}, which nobody has written so; choose another "
            "--name, or delete the folder"
        )
    return found


def snapshot_of(
    settings: Mapping[str, Any], state: LiveState, recent: Sequence[KeptFrame], open_start: float
) -> LiveSnapshot:
    """A snapshot of a state.

    Args:
        settings: What the memory was begun with.
        state: Events and gaps.
        recent: The last frames.
        open_start: Since when the event lasts that is not over, as far as the last frames knew.
    """
    over = state.events[-1].span.end if state.events else 0.0
    goes_on = state.ended is None or (len(recent) > 0 and recent[-1].second >= state.ended)
    return LiveSnapshot(
        str(settings["name"]),
        str(settings["source"]),
        tuple(state.events),
        tuple(recent),
        max(over, open_start),
        tuple(state.gaps),
        float(settings.get("rate", 0.0)),
        str(settings["embedder"]),
        ended=None if goes_on else state.ended,
    )


def _said_of(frame: KeptFrame) -> dict[str, Any]:
    return {"second": frame.second, "size": list(frame.size), "at": round(frame.at, 3)}


def _frames_of(records: Sequence[Record]) -> Iterator[KeptFrame]:
    """The frames of records; one that is damaged is left out, and that is said."""
    for record in records:
        head = record.head
        try:
            with as_written(record.file):
                width, height = map(int, head["size"])
                (jpeg,) = record.pictures()
                yield KeptFrame(float(head["second"]), jpeg, (width, height), record.vector, float(head["at"]))
        except DamagedRecordError as error:
            logger.warning("%s", error)


def _path(folder: Path, kind: str, number: int) -> Path:
    return folder / f"{kind}.{number}.log"


def _numbers(folder: Path, kind: str) -> list[int]:
    """Numbers of the files of a kind, ascending."""
    names = (path.name.split(".") for path in folder.glob(f"{kind}.*.log"))
    return sorted(int(parts[1]) for parts in names if len(parts) == 3 and parts[1].isdigit())


def _size(path: Path) -> int:
    with suppress(FileNotFoundError):
        return path.stat().st_size
    return 0
