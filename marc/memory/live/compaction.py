"""A log of events written anew, without what no longer counts, while others go on adding to it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from marc.io import append_bytes, put_in_place, sync, temporary_path
from marc.memory.live.records import DamagedRecordError, packed
from marc.memory.live.snapshot import LiveEvent

logger = logging.getLogger(__name__)


class Compaction:
    """Writes records of events and notes in a thread, and behind them what is added meanwhile.

    Args:
        folder: Of the log.
        notes: Heads of the records that are no events.
        events: Those that count; of one whose pictures are damaged nothing is written, and that is said.

    Attributes:
        added: Bytes of the records that were added to the log since.
    """

    def __init__(self, folder: Path, notes: Sequence[Mapping[str, Any]], events: Sequence[LiveEvent]) -> None:
        self.added: list[bytes] = []
        self._is_wanted = True
        self._path = temporary_path(folder, ".log")
        executor = ThreadPoolExecutor(1, "compaction")
        self._written = executor.submit(self._write, notes, events)
        executor.shutdown(wait=False)

    @property
    def is_done(self) -> bool:
        """Whether the thread has ended."""
        return self._written.done()

    def _write(self, notes: Sequence[Mapping[str, Any]], events: Sequence[LiveEvent]) -> None:
        try:
            self._fill(notes, events)
            if self._is_wanted:
                sync(self._path)
        except BaseException:
            self._path.unlink(missing_ok=True)  # at once: the log itself may need the room
            raise

    def _fill(self, notes: Sequence[Mapping[str, Any]], events: Sequence[LiveEvent]) -> None:
        with open(self._path, "wb") as file:
            for head in notes:
                file.write(packed(head, None, []))
            for event in events:
                if not self._is_wanted:
                    return
                if (pictures := intact_pictures(event)) is not None:
                    head = {key: value for key, value in event.record.head.items() if key != "replaces"}
                    file.write(packed(head, event.vector, pictures))

    def put_at(self, path: Path) -> None:
        """Puts all of it in place, durably, once the thread has ended.

        Raises:
            OSError: It cannot be written.
        """
        try:
            self._written.result()
            append_bytes(self._path, b"".join(self.added))
            put_in_place(self._path, path)
        finally:
            self._path.unlink(missing_ok=True)

    def abandon(self) -> None:
        """Ends the thread, and leaves nothing behind."""
        self._is_wanted = False
        try:
            self._written.exception()
        finally:
            self._path.unlink(missing_ok=True)


def intact_pictures(event: LiveEvent) -> list[bytes] | None:
    """The pictures of an event; None if the disk no longer has them, which is said."""
    try:
        return event.record.pictures()
    except DamagedRecordError as error:
        place = event.record.file.path.parent
        logger.warning("%s: %.1f-%.1f s are lost: %s", place, event.span.start, event.span.end, error)
        return None
