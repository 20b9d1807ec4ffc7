"""The page for browsers, and what it asks for beside chat completions: events with key frames, frames, a search.

The page is a few files that are sent as they are. They fetch nothing from any other address, and the headers that they
come with forbid it. Everything else that the page does goes through routes that any client may use, with the server's
limits and key.
"""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from anyio import CapacityLimiter, to_thread
from fastapi import FastAPI
from fastapi.responses import FileResponse, StreamingResponse
from pydantic import BaseModel, Field

from marc.compression.config import budget_name
from marc.inference.query import Query
from marc.inference.selectors import RetrievingSelector
from marc.inference.subtitles import LazySubtitles
from marc.io import message_of
from marc.memory.index import memory_settings, remember
from marc.memory.keyframes import jpeg
from marc.memory.select import VisualMemoryRetriever
from marc.memory.store import VideoMemory, find_memory
from marc.serving.app import Server
from marc.serving.media import RefusedError
from marc.serving.searching import PIXELS, WIDTH, Searcher, picture_url
from marc.types import Clip
from marc.video import probe, read_frames
from marc.video.pictures import is_picture
from marc.video.subtitles import event_texts

logger = logging.getLogger(__name__)

STATIC = Path(__file__).parent / "static"
FILES = {"/": "page.html", **{f"/page/{name}": name for name in ("page.css", "page.js", "server.js", "drawing.js")}}
"""What is sent under which path."""
POLICY = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "img-src": "'self' data:",
    "media-src": "blob:",
    "connect-src": "'self'",
    "form-action": "'none'",
    "base-uri": "'none'",
    "frame-ancestors": "'none'",
    "require-trusted-types-for": "'script'",
}
HEADERS = {
    "Content-Security-Policy": "; ".join(f"{name} {value}" for name, value in POLICY.items()),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-cache",
}
STEP = 0.002
"""Share of a video after whose reading progress is told again."""


class EventsRequest(BaseModel):
    """What ``POST /page/events`` takes.

    Attributes:
        file: The id of an uploaded file, or an allowed path.
        question: What the events' scores are for; without one there are none.
    """

    file: str
    question: str = ""


class FramesRequest(BaseModel):
    """What ``POST /page/frames`` takes.

    Attributes:
        file: The id of an uploaded file, or an allowed path.
        seconds: Times of the frames, which do not fall.
    """

    file: str
    seconds: list[float] = Field(min_length=1)


class SearchRequest(BaseModel):
    """What ``POST /page/search`` takes.

    Attributes:
        question: What to look for.
        files: The videos of the client; the library, if the server has one, is searched beside them.
        k: How many events are wanted.
    """

    question: str
    files: list[str] = Field([], max_length=256)
    k: int = Field(5, ge=1, le=50)


class GoneError(Exception):
    """Nobody waits any more for what is being done."""


class Page:
    """What the page's routes do.

    Videos are cut into events one at a time, in a thread of their own: questions are answered meanwhile.

    Args:
        server: Has the files, the limits and the memory.
    """

    def __init__(self, server: Server) -> None:
        self._server, self._assistant = server, server.assistant
        self._subtitles = server.assistant.subtitles
        selector = server.assistant.selector
        self._memory = selector if isinstance(selector, RetrievingSelector) else None
        self._cutting, self._reading = CapacityLimiter(1), CapacityLimiter(2)
        self._searcher = Searcher(self._memory, server.media, server.options.library)

    @property
    def settings(self) -> dict[str, Any]:
        """What the page says about the server."""
        options = self._server.options
        return {
            "model": self._assistant.name,
            "budget": budget_name(self._server.desk.usual.compression),
            "has_memory": self._memory is not None,
            "has_library": options.library is not None,
            "max_upload_mib": options.max_upload_mib,
            "max_frames": self._assistant.frames.max_frames,
        }

    @property
    def is_cutting(self) -> bool:
        """Whether a video is being cut into events."""
        return self._cutting.borrowed_tokens > 0

    async def events(self, asked: EventsRequest) -> StreamingResponse:
        """The events of a video, as a stream: shares of it that were read, then the events or an error.

        Raises:
            RefusedError: If there is no such file, it cannot be read, or too many wait.
        """
        path = await to_thread.run_sync(self._found, asked.file)
        if self._cutting.statistics().tasks_waiting >= self._server.options.max_waiting:
            raise RefusedError("too many videos wait to be cut into events; try again", 429)
        return StreamingResponse(self._told(path, asked.question.strip()), media_type="text/event-stream")

    async def frames(self, asked: FramesRequest) -> dict[str, list[str]]:
        """Small pictures of a video at some times.

        Raises:
            RefusedError: If there is no such file, or there cannot be such frames.
        """
        most = self._assistant.frames.max_frames
        if len(asked.seconds) > most:
            raise RefusedError(f"{len(asked.seconds)} frames at once; at most {most} are allowed")
        path = await to_thread.run_sync(self._found, asked.file)
        read = partial(read_frames, path, asked.seconds, max_pixels=PIXELS, min_pixels=1, factor=4)
        try:
            frames = await to_thread.run_sync(read, limiter=self._reading)
        except (ValueError, OSError) as error:
            raise RefusedError(_without_path(error, path)) from error
        return {"pictures": [picture_url(jpeg(rgb_HWC, WIDTH)) for rgb_HWC in frames.rgb]}

    async def search(self, asked: SearchRequest) -> dict[str, Any]:
        """The events of the client's videos, and of the library, that are nearest to a question.

        Raises:
            RefusedError: If nothing can be searched.
        """
        return await to_thread.run_sync(partial(self._searcher.search, asked.question, asked.files, asked.k))

    def _found(self, file: str) -> Path:
        """A file of which it is certain that it can be read and is within the limits."""
        path = self._server.media.find(file)
        self._server.check(Query((Clip(path),), "What is shown?"))
        return path

    async def _told(self, path: Path, question: str) -> AsyncIterator[str]:
        loop, shares = asyncio.get_running_loop(), asyncio.Queue[float | None]()
        is_gone, told = threading.Event(), -1.0

        def progress(share: float) -> None:
            nonlocal told
            if is_gone.is_set():
                raise GoneError
            if share >= told + STEP:
                told = share
                loop.call_soon_threadsafe(shares.put_nowait, share)

        work = asyncio.create_task(self._described(path, question, progress))
        work.add_done_callback(lambda _: shares.put_nowait(None))
        try:
            while (share := await shares.get()) is not None:
                yield _event({"share": share})
            yield _event(_outcome(work, path))
        finally:
            is_gone.set()
            work.cancel()

    async def _described(self, path: Path, question: str, progress: Callable[[float], None]) -> dict[str, Any]:
        if await to_thread.run_sync(is_picture, path):
            return {"duration": 0.0, "events": [], "remark": "A picture has no events."}
        duration = (await to_thread.run_sync(probe, path)).duration
        if self._memory is None:
            return {"duration": duration, "events": [], "remark": "This server does not cut videos into events."}
        memory = await to_thread.run_sync(self._known, path)
        if memory is None:
            cut = partial(self._cut, path, progress)
            memory = await to_thread.run_sync(cut, limiter=self._cutting)
        return {"duration": duration, "events": await to_thread.run_sync(self._records, memory, question)}

    def _known(self, path: Path) -> VideoMemory | None:
        assert self._memory is not None
        settings = memory_settings(self._memory.options, self._memory.embedder)
        return find_memory(path, settings, self._memory.retrieval.folder)

    def _cut(self, path: Path, progress: Callable[[float], None]) -> VideoMemory:
        assert self._memory is not None
        progress(0.0)
        selector = self._memory
        folder = selector.retrieval.folder
        return remember(path, selector.embedder, selector.options, folder=folder, progress=progress)

    def _records(self, memory: VideoMemory, question: str) -> list[dict[str, Any]]:
        assert self._memory is not None
        said = LazySubtitles(memory.source, self._subtitles, self._assistant.frames.timeout).read()
        texts = event_texts(said, memory.events) if said.lines else [""] * len(memory.events)
        scores: Sequence[float | None] = [None] * len(memory.events)
        if question:
            scores = VisualMemoryRetriever(self._memory.embedder).retrieve(memory, question).scores
        told = zip(memory.events, scores, texts, memory.thumbnails, strict=True)
        return [
            {"start": event.start, "end": event.end, "score": score, "text": text, "picture": picture_url(picture)}
            for event, score, text, picture in told
        ]


def add_page(app: FastAPI) -> None:
    """Adds the page to the server.

    Args:
        app: What `marc.serving.app.make_app` made.
    """
    server: Server = app.state.server
    page = app.state.page = Page(server)
    for path, name in FILES.items():
        app.add_api_route(path, _sends(STATIC / name), include_in_schema=False)
    server.open |= set(FILES)

    @app.get("/page/settings")
    async def settings() -> dict[str, Any]:
        return page.settings

    @app.post("/page/events")
    async def events(asked: EventsRequest) -> StreamingResponse:
        return await page.events(asked)

    @app.post("/page/frames")
    async def frames(asked: FramesRequest) -> dict[str, list[str]]:
        return await page.frames(asked)

    @app.post("/page/search")
    async def search(asked: SearchRequest) -> dict[str, Any]:
        return await page.search(asked)


def _sends(file: Path) -> Callable[[], Awaitable[FileResponse]]:
    async def send() -> FileResponse:
        return FileResponse(file, headers=HEADERS)

    return send


def _outcome(work: asyncio.Task[dict[str, Any]], path: Path) -> dict[str, Any]:
    """The events of a video, or why there are none."""
    try:
        return work.result()
    except (ValueError, OSError) as error:
        return {"error": {"message": _without_path(error, path)}}
    except Exception:
        logger.exception("a video could not be cut into events")
        return {"error": {"message": "this video could not be cut into events"}}


def _without_path(error: BaseException, path: Path) -> str:
    return message_of(error).replace(str(path), "the video")


def _event(values: dict[str, Any]) -> str:
    return f"data: {json.dumps(values)}\n\n"
