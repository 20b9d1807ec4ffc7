"""The web server: OpenAI's chat completions over the assistant, with uploads, health and metrics.

A request's way: its body is read up to a limit, its files are kept (`marc.serving.media`) and looked at, it waits at
the desk (`marc.serving.desk`), and its answer goes back whole or piece by piece. What a client did wrong is an error
in OpenAI's format; what is said of a file never names a path.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
import uuid
from collections.abc import AsyncIterator, Callable
from concurrent.futures import CancelledError
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from fastapi import FastAPI, Request, Response, UploadFile
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from pydantic import ValidationError
from starlette.exceptions import HTTPException

from marc.inference.assistant import VideoAssistant
from marc.inference.hf import HFBackend
from marc.inference.listening import Listener
from marc.inference.query import Query
from marc.inference.selectors import RetrievingSelector
from marc.io import message_of
from marc.memory.live.records import DamagedRecordError
from marc.memory.options import RetrievalOptions
from marc.records import AnswerRecord, as_json
from marc.serving.desk import BusyError, Desk, Setting, Work
from marc.serving.errors import error_body, refused
from marc.serving.features import StoredFeatures
from marc.serving.fetching import Fetcher
from marc.serving.gate import Gate
from marc.serving.media import MIB, MediaStore, RefusedError
from marc.serving.options import ServeOptions
from marc.serving.requests import ChatRequest, StreamOptions, names_of
from marc.types import Answer, Clip
from marc.version import __version__
from marc.video import probe
from marc.video.pictures import is_picture, picture_size

logger = logging.getLogger(__name__)

_Made = TypeVar("_Made")

OPEN = ("/health",)
"""What needs no key."""
LOOKING = 0.2
"""Seconds between looks whether a client is still there."""


class Server:
    """What the routes share.

    Args:
        assistant: Answers.
        options: What is allowed.
        allowed: Folders below which files may be named by their paths.
        key: What clients must say that they have; None: nothing.
        domains: From where files may be fetched.

    Attributes:
        open: Paths that need no key.
    """

    def __init__(
        self,
        assistant: VideoAssistant,
        options: ServeOptions,
        allowed: tuple[Path, ...],
        key: str | None,
        domains: tuple[str, ...],
    ) -> None:
        self.assistant, self.options, self.key = assistant, options, key
        self.media = MediaStore(
            options.kept_in,
            max_file=int(options.max_upload_mib * MIB),
            max_kept=int(options.max_kept_mib * MIB),
            allowed=allowed,
            watch_folder=options.watched,
        )
        if isinstance(selector := assistant.selector, RetrievingSelector) and selector.retrieval.folder is None:
            selector.retrieval = _kept_beside(selector, self.media)
        most = int(options.max_upload_mib * MIB)
        self.fetcher = Fetcher(domains, self.media, max_file=most) if domains else None
        if options.keep_features:
            assistant.store = _features_of(assistant, self.media)
        self.desk = Desk(assistant, options)
        self.open = set(OPEN)
        self.begun = int(time.time())
        self.metrics = Metrics(self.desk)

    async def complete(self, asked: ChatRequest, request: Request) -> Response:
        """Answers a request.

        Raises:
            RefusedError: If it cannot be answered.
        """
        if asked.model not in (None, self.assistant.name):
            raise RefusedError(f"this server has no model {asked.model!r}, but {self.assistant.name!r}", 404)
        if self.fetcher is not None:
            for media in asked.addresses:
                media.url = await self.fetcher.fetch(media.url)
        query = await run_in_threadpool(self._looked_at, asked)
        setting = _or_refused(lambda: asked.setting(self.desk.usual))
        if asked.stream:
            return self._stream(query, setting, asked.stream_options)
        work = Work(query, setting)
        self._submit(work)
        try:
            answer = await asyncio.wait_for(self._while_there(work, request), self.options.request_seconds)
        except asyncio.TimeoutError as error:
            work.leave()
            raise RefusedError(f"no answer within {self.options.request_seconds:g} s", 504) from error
        self.metrics.of(answer)
        message = {"role": "assistant", "content": answer.output}
        choice = {"index": 0, "message": message, "finish_reason": _reason(answer)}
        return JSONResponse({**self._head("chat.completion"), "choices": [choice], **_end_of(answer, query)})

    def _looked_at(self, asked: ChatRequest) -> Query:
        """The query, once it is certain that its files can be read and are within the limits."""
        query = _or_refused(lambda: asked.query(self.media, self.assistant.prompt_style))
        self.check(query)
        return query

    def check(self, query: Query) -> None:
        """Looks at the files of a query.

        Raises:
            RefusedError: If one cannot be read, or is beyond the limits.
        """
        for path, name in names_of(query).items():
            try:
                self._look_at(path, query)
            except RefusedError:
                raise
            except (ValueError, OSError) as error:
                raise RefusedError(_without_paths(message_of(error), query)) from error
            except Exception as error:
                raise RefusedError(f"{name} cannot be read") from error

    def _look_at(self, path: Path, query: Query) -> None:
        assert isinstance(query.video, tuple)
        if is_picture(path):
            picture_size(path)
            return
        info = probe(path, timeout=self.assistant.frames.timeout)
        if info.duration > self.options.max_video_seconds:
            most = self.options.max_video_seconds
            raise RefusedError(f"a video of {info.duration:.0f} s; at most {most:.0f} s are allowed", 413)
        for clip in query.video:
            if isinstance(clip, Clip) and Path(clip.source) == path:
                clip.within(info.duration)

    def _submit(self, work: Work) -> None:
        try:
            self.desk.submit(work)
        except BusyError as error:
            raise RefusedError("too many requests wait; try again", 429) from error

    async def _while_there(self, work: Work, request: Request) -> Answer:
        """The answer, as long as somebody waits for it."""
        future = asyncio.wrap_future(work.answer)
        try:
            while not (await asyncio.wait([future], timeout=LOOKING))[0]:
                if await request.is_disconnected():
                    work.leave()
                    raise RefusedError("the client has gone", 499)
            return _answer_of(work)
        finally:
            future.cancel()

    def _stream(self, query: Query, setting: Setting, options: StreamOptions | None) -> Response:
        loop, pieces = asyncio.get_running_loop(), asyncio.Queue[str | None]()

        def tell(piece: str) -> None:
            if piece:
                loop.call_soon_threadsafe(pieces.put_nowait, piece)

        work = Work(query, setting, Listener(tell))
        self._submit(work)
        work.answer.add_done_callback(lambda _: loop.call_soon_threadsafe(pieces.put_nowait, None))

        async def events() -> AsyncIterator[str]:
            head = self._head("chat.completion.chunk")
            try:
                yield _event(head, {"role": "assistant", "content": ""})
                while (piece := await pieces.get()) is not None:
                    yield _event(head, {"content": piece})
                try:
                    answer = _answer_of(work)
                except RefusedError as error:
                    yield f"data: {json.dumps(error_body(error.status, str(error)))}\n\n"
                    return
                self.metrics.of(answer)
                yield _event(head, {}, _reason(answer))
                if options and options.include_usage:
                    last = {**head, "choices": [], **_end_of(answer, query)}
                    yield f"data: {json.dumps(last)}\n\n"
                yield "data: [DONE]\n\n"
            finally:
                work.leave()

        return StreamingResponse(events(), media_type="text/event-stream")

    def _head(self, kind: str) -> dict[str, Any]:
        now = int(time.time())
        return {"id": f"chatcmpl-{uuid.uuid4().hex}", "object": kind, "created": now, "model": self.assistant.name}


class Metrics:
    """What `/metrics` says."""

    def __init__(self, desk: Desk) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter("marc_requests", "Requests by status.", ["path", "status"], registry=self.registry)
        self.seconds = Histogram("marc_stage_seconds", "Seconds by stage.", ["stage"], registry=self.registry)
        self.tokens = Counter(
            "marc_visual_tokens", "Visual tokens before and after compression.", ["when"], registry=self.registry
        )
        waiting = Gauge("marc_waiting_requests", "Requests that nobody works on yet.", registry=self.registry)
        waiting.set_function(lambda: desk.waiting)

    def of(self, answer: Answer) -> None:
        """Counts an answer."""
        for stage, seconds in answer.seconds.items():
            self.seconds.labels(stage).observe(max(seconds, 0.0))
        self.tokens.labels("before").inc(answer.visual_tokens_before)
        self.tokens.labels("after").inc(answer.visual_tokens_after)


def make_app(
    assistant: VideoAssistant,
    options: ServeOptions | None = None,
    *,
    allowed: tuple[Path, ...] = (),
    key: str | None = None,
    domains: tuple[str, ...] = (),
) -> FastAPI:
    """The server as an ASGI application.

    Args:
        assistant: Answers; nobody else may use it meanwhile.
        options: What is allowed.
        allowed: Folders below which clients may name files by their paths.
        key: What clients must say that they have (``Authorization: Bearer KEY``); None: nothing.
        domains: From where files may be fetched that clients name by ``https`` addresses; by default from nowhere.
    """
    server = Server(assistant, options or ServeOptions(), allowed, key, domains)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await run_in_threadpool(server.desk.close)

    app = FastAPI(title="marc", version=__version__, lifespan=lifespan)
    app.state.server = server
    app.add_middleware(
        Gate, options=server.options, key=server.key, open_paths=server.open, requests=server.metrics.requests
    )
    for kind in (RefusedError, RequestValidationError, HTTPException):
        app.add_exception_handler(kind, refused)
    _add_routes(app, server)
    return app


def _add_routes(app: FastAPI, server: Server) -> None:
    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        model = {"id": server.assistant.name, "object": "model", "created": server.begun, "owned_by": "marc"}
        return {"object": "list", "data": [model]}

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(generate_latest(server.metrics.registry), media_type=CONTENT_TYPE_LATEST)

    @app.post("/v1/chat/completions")
    async def chat_completions(request: Request) -> Response:
        return await server.complete(await _read(request, server.options.request_seconds), request)

    @app.post("/v1/files")
    async def upload(file: UploadFile) -> dict[str, Any]:
        name = await server.media.add_stream(_parts_of(file))
        size = server.media.path(name).stat().st_size
        return {
            "id": name,
            "object": "file",
            "bytes": size,
            "created_at": int(time.time()),
            "filename": file.filename or "",
            "purpose": "user_data",
        }

    @app.delete("/v1/files/{name}")
    async def remove(name: str) -> dict[str, Any]:
        await run_in_threadpool(server.media.remove, name)
        return {"id": name, "object": "file", "deleted": True}


async def _read(request: Request, seconds: float) -> ChatRequest:
    try:
        return ChatRequest.model_validate_json(await asyncio.wait_for(request.body(), seconds))
    except asyncio.TimeoutError as error:
        raise RefusedError(f"the request did not come within {seconds:g} s", 408) from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where, problem = ".".join(map(str, first["loc"])), first["msg"].removeprefix("Value error, ")
        raise RefusedError(f"{where}: {problem}" if where else problem) from error


async def _parts_of(file: UploadFile) -> AsyncIterator[bytes]:
    while part := await file.read(MIB):
        yield part


def _or_refused(make: Callable[[], _Made]) -> _Made:
    """What is made; a `ValueError` is what the client did wrong."""
    try:
        return make()
    except RefusedError:
        raise
    except ValueError as error:
        raise RefusedError(str(error)) from error


def _answer_of(work: Work) -> Answer:
    """What came back.

    Raises:
        RefusedError: If that is no answer.
    """
    try:
        return work.answer.result(timeout=0)
    except CancelledError as error:
        raise RefusedError("the server is closing; ask again", 503) from error
    except DamagedRecordError as error:
        raise RefusedError("a part of what was seen of this source is damaged", 500) from error
    except (ValueError, OSError) as error:
        raise RefusedError(_without_paths(message_of(error), work.query)) from error
    except Exception as error:
        logger.exception("a request failed")
        raise RefusedError("this request could not be answered", 500) from error


def _without_paths(text: str, query: Query) -> str:
    for path, name in names_of(query).items():
        text = text.replace(str(path), name)
    return text


def _reason(answer: Answer) -> str:
    return "length" if answer.is_cut else "stop"


def _end_of(answer: Answer, query: Query) -> dict[str, Any]:
    """Numbers of tokens, and what OpenAI's interface has no word for."""
    generated = answer.output_tokens if answer.generated_tokens is None else answer.generated_tokens
    usage = {
        "prompt_tokens": answer.input_tokens,
        "completion_tokens": generated,
        "total_tokens": answer.input_tokens + generated,
    }
    record = json.loads(_without_paths(json.dumps(as_json(AnswerRecord.of(answer))), query))
    return {"usage": usage, "marc": record}


def _event(head: dict[str, Any], delta: dict[str, str], reason: str | None = None) -> str:
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    return f"data: {json.dumps({**head, 'choices': [choice]})}\n\n"


def _features_of(assistant: VideoAssistant, media: MediaStore) -> StoredFeatures:
    if not isinstance(assistant.backend, HFBackend):
        raise ValueError("--keep-features is for the engine of transformers: another keeps its features itself")
    return StoredFeatures(assistant.backend, media)


def _kept_beside(selector: RetrievingSelector, media: MediaStore) -> RetrievalOptions:
    return replace(selector.retrieval, folder=str(media.memories))
