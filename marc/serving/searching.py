"""Search in what clients have sent, and in the library that the server opens to them.

A client finds events of those videos only that it can name: an id is the hash of a file's content, so whoever knows it
has had the file. The library is open to all; what is found in it is lent to clients under such an id.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from marc.inference.selectors import RetrievingSelector
from marc.io import message_of
from marc.memory.index import memory_settings
from marc.memory.keyframes import jpeg
from marc.memory.library import MemoryLibrary, RecalledEvent
from marc.memory.store import VideoMemory, content_key, find_memory, memory_path, save_memory
from marc.memory.vectors import cosine_scores
from marc.serving.media import MediaStore, RefusedError
from marc.types import Event
from marc.video import read_frames

PIXELS = 160 * 120
"""Most pixels of the picture of an event."""
WIDTH = 160
"""Its width."""
SPARE = 4
"""So many times more events are recalled than are wanted, as some may be of files that are gone."""


@dataclass(frozen=True)
class FoundEvent:
    """An event that fits a question.

    Attributes:
        file: The id under which its video can be asked about.
        name: What the video is called, if the server knows.
        event: When it is.
        score: Cosine similarity of the question with it.
        picture: A JPEG picture of it.
        text: What is said in it.
    """

    file: str
    name: str
    event: Event
    score: float
    picture: bytes
    text: str = ""

    @property
    def record(self) -> dict[str, Any]:
        """Plain values, for ``json.dumps``."""
        values = {"file": self.file, "name": self.name, "start": self.event.start, "end": self.event.end}
        return {**values, "score": self.score, "text": self.text, "picture": picture_url(self.picture)}


class Searcher:
    """Searches videos for events.

    Args:
        memory: Remembers videos; None: nothing can be searched.
        media: Has the clients' videos.
        library: Address of the library that is open to clients; None: there is none.
    """

    def __init__(self, memory: RetrievingSelector | None, media: MediaStore, library: str | None) -> None:
        self._memory, self._media = memory, media
        self._library = MemoryLibrary(library) if library is not None else None

    def search(self, question: str, files: Sequence[str], k: int) -> dict[str, Any]:
        """The k events that fit a question best, best first, and what the client should know.

        Raises:
            RefusedError: If the server has no memory, the question is empty, or the library cannot be read.
        """
        if self._memory is None:
            raise RefusedError("this server does not cut videos into events: there is nothing to search")
        if not question.strip():
            raise RefusedError("the question is empty")
        remembered = {file: self._remembered(file) for file in files}
        query = self._memory.embedder.embed_question(question).vector
        found = list(self._in_library(question, k))
        for file, memory in remembered.items():
            found += _in_video(file, memory, cosine_scores(query, memory.embeddings).tolist()) if memory else []
        unique = {(one.file, one.event): one for one in found}
        best = sorted(unique.values(), key=lambda one: -one.score)[:k]
        missing = sum(memory is None for memory in remembered.values())
        warnings = [f"{missing} of your videos are left out: they are gone or not cut into events"] if missing else []
        return {"events": [one.record for one in best], "warnings": warnings}

    def _remembered(self, file: str) -> VideoMemory | None:
        """What is remembered of a video; None if nothing, or it is gone."""
        assert self._memory is not None
        settings = memory_settings(self._memory.options, self._memory.embedder)
        try:
            return find_memory(self._media.find(file), settings, self._memory.retrieval.folder)
        except ValueError:
            return None

    def _in_library(self, question: str, k: int) -> Iterable[FoundEvent]:
        if self._library is None:
            return
        assert self._memory is not None
        try:
            recalled = self._library.recall(self._memory.embedder, question, SPARE * k)
        except (ValueError, OSError) as error:
            raise RefusedError(message_of(error).replace(self._library.address, "the library")) from error
        for one in [one for one in recalled if _is_as_remembered(one)][:k]:
            self._take_over(Path(one.source))
            name = self._media.lend(one.content, Path(one.source))
            frames = read_frames(one.source, [one.event.middle], max_pixels=PIXELS, min_pixels=1, factor=4)
            yield FoundEvent(name, Path(one.source).name, one.event, one.score, jpeg(frames.rgb[0], WIDTH), one.text)

    def _take_over(self, video: Path) -> None:
        """Keeps what lies remembered beside a video with the server's memories, so that it need not be cut again."""
        assert self._memory is not None
        settings = memory_settings(self._memory.options, self._memory.embedder)
        folder = self._memory.retrieval.folder
        if find_memory(video, settings, folder) is None and (memory := find_memory(video, settings)) is not None:
            save_memory(memory, memory_path(video, memory.key, folder))


def picture_url(picture: bytes) -> str:
    """A JPEG picture as an address that holds it."""
    return f"data:image/jpeg;base64,{base64.b64encode(picture).decode()}"


def _in_video(file: str, memory: VideoMemory, scores: Sequence[float]) -> list[FoundEvent]:
    told = zip(memory.events, scores, memory.thumbnails, strict=True)
    return [FoundEvent(file, "", event, score, picture) for event, score, picture in told]


def _is_as_remembered(found: RecalledEvent) -> bool:
    return Path(found.source).is_file() and content_key(found.source) == found.content
