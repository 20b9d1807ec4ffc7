"""Errors as OpenAI's clients know them."""

from __future__ import annotations

from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from marc.serving.media import RefusedError


def error_body(status: int, message: str) -> dict[str, Any]:
    """An error in OpenAI's format."""
    kind = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}.get(status)
    kind = kind or ("server_error" if status >= 500 else "invalid_request_error")
    return {"error": {"message": message, "type": kind, "param": None, "code": None}}


def as_response(error: RefusedError) -> JSONResponse:
    """The response to a client whose request is refused; it says when to come again where that helps."""
    headers = {"Retry-After": "1"} if error.status in (429, 503) else None
    return JSONResponse(error_body(error.status, str(error)), error.status, headers)


async def refused(_: Request, error: Exception) -> Response:
    """What a client is told of an exception."""
    if isinstance(error, HTTPException):
        error = RefusedError(str(error.detail), error.status_code)
    elif isinstance(error, RequestValidationError):
        error = RefusedError("; ".join(f"{each['loc'][-1]}: {each['msg']}" for each in error.errors()))
    assert isinstance(error, RefusedError)
    return as_response(error)
