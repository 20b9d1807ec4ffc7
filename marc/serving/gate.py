"""What a request meets first: the key, where it comes from, and how large it may be."""

from __future__ import annotations

import hmac
from collections.abc import Collection

from fastapi import Request
from prometheus_client import Counter
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from marc.serving.errors import as_response
from marc.serving.media import MIB, RefusedError
from marc.serving.options import ServeOptions
from marc.serving.origins import is_local, why_foreign, why_no_local_name

BASE64 = 4 / 3
"""Bytes of a data URL for each of its file."""


class Gate:
    """Lets requests through that have the key and are not too large, and counts all.

    Args:
        app: The application behind it.
        options: The server's limits.
        key: What clients must say that they have; None: nothing.
        open_paths: What needs no key.
        requests: Counts them by path and status.
    """

    def __init__(
        self, app: ASGIApp, options: ServeOptions, key: str | None, open_paths: Collection[str], requests: Counter
    ) -> None:
        self._app, self._key, self._open, self._requests = app, key, open_paths, requests
        self._is_local = is_local(options.host)
        self._most = int(options.max_upload_mib * MIB * BASE64) + MIB

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Part of ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def noted(message: Message) -> None:
            if message["type"] == "http.response.start":
                path = getattr(scope.get("route"), "path", "other")
                self._requests.labels(path, str(message["status"])).inc()
            await send(message)

        if refused := self._refused(Request(scope)):
            await as_response(refused)(scope, receive, noted)
        else:
            await self._app(scope, self._counted(receive), noted)

    def _refused(self, request: Request) -> RefusedError | None:
        announced = request.headers.get("content-length", "0")
        if announced.isdecimal() and int(announced) > self._most:
            return self._too_large
        key = self._key
        if key is not None and request.url.path not in self._open and not _has_key(request, key):
            return RefusedError("the API key is wrong or missing", 401)
        problem = why_foreign(request)
        if key is None and self._is_local:
            problem = problem or why_no_local_name(request)
        return RefusedError(problem, 403) if problem else None

    def _counted(self, receive: Receive) -> Receive:
        read = 0

        async def counted() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > self._most:
                raise self._too_large
            return message

        return counted

    @property
    def _too_large(self) -> RefusedError:
        return RefusedError(f"a request may have {self._most / MIB:.0f} MiB", 413)


def _has_key(request: Request, key: str) -> bool:
    given = request.headers.get("authorization", "").removeprefix("Bearer ")
    return hmac.compare_digest(given.encode(), key.encode())
