"""What is known of an object of a store without fetching it: which content it has, and what is said in it.

A note lies with the memories, so that all machines which share their folder know an object that one of them has
remembered. It goes by the object's state: an object that has changed is unknown, and so is one beside which
subtitles have changed.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from marc.io import read_json, write_json
from marc.memory.objects import StoredObject
from marc.video.subtitles import SubtitleLine, Subtitles

_ENDING = ".object.json"


@dataclass(frozen=True)
class ObjectNote:
    """What was found in an object.

    Attributes:
        content: SHA-256 of it, the content key of its memories.
        choice: Which subtitles were read, see `marc.video.read_subtitles`.
        beside: The state of the subtitles that lie beside it, `marc.memory.objects.subtitles_state`; empty where
            those are not read.
        subtitles: What they say.
    """

    content: str
    choice: str
    beside: str
    subtitles: Subtitles


def keep_note(note: ObjectNote, stored: StoredObject, folder: str | Path) -> None:
    """Write a note down.

    Raises:
        OSError: It cannot be written.
    """
    write_json(_place(stored, folder), {"address": stored.address, **asdict(note)})


def find_note(stored: StoredObject, folder: str | Path) -> ObjectNote | None:
    """The note of an object as it is now; None where there is none that can be read."""
    try:
        said = read_json(_place(stored, folder))
        lines = tuple(SubtitleLine(**line) for line in said["subtitles"]["lines"])
        return ObjectNote(
            said["content"], said["choice"], said["beside"], Subtitles(lines, said["subtitles"]["source"])
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _place(stored: StoredObject, folder: str | Path) -> Path:
    return Path(folder) / f"{stored.name}.{stored.state[:16]}{_ENDING}"
