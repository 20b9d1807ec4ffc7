"""Requests that another web site has a visitor's browser send are told from those of the page and of other programs.

A server on one's own machine can be reached by every page that one's browser shows. Such a page cannot read the
replies, but it could upload files and ask; and if its own name is made to point to this machine (DNS rebinding), its
browser takes it for the server's own page. Programs send no ``Origin`` and name the address that they call.
"""

from __future__ import annotations

from contextlib import suppress
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.requests import Request

SAFE = ("GET", "HEAD")
"""Methods that change nothing; a link on another site may lead to the page."""


def why_foreign(request: Request) -> str | None:
    """Why a request was made by another site's page; None if it was not.

    Browsers say so themselves (``Sec-Fetch-Site``) where the connection is secure or local; else ``Origin`` does.
    """
    if request.method in SAFE:
        return None
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    if site is not None:
        is_ours = site in ("same-origin", "none")
    else:
        is_ours = origin is None or _split(origin)[0] == request.headers.get("host")
    return None if is_ours else "requests of other sites' pages are not answered"


def why_no_local_name(request: Request) -> str | None:
    """Why a request does not name this machine as only its own programs can; None if it does."""
    _, name = _split(f"//{request.headers.get('host', '')}")
    return None if is_local(name) else f"without an API key this server answers to localhost, not to {name!r}"


def is_local(host: str) -> bool:
    """Whether a name or an address is this machine's for itself."""
    with suppress(ValueError):
        return ip_address(host).is_loopback
    return host.lower() == "localhost"


def _split(url: str) -> tuple[str, str]:
    """Name with port, and name alone, of an address; empty ones if it is none."""
    with suppress(ValueError):
        parts = urlsplit(url)
        return parts.netloc, parts.hostname or ""
    return "", ""
