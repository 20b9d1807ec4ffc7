"""Videos and pictures from addresses, of domains that were named, and never from inside the server's own network.

Off unless domains are named (``--allow-domain``). A host name is resolved once: all of its addresses must be public,
and the connection goes to one that was checked, so that no second resolution can say something else. Redirects go the
same way. Size, type and time are limited.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TypeAlias
from urllib.parse import urlsplit

import httpx

from marc.serving.media import MIB, MediaStore, RefusedError

SECONDS = 60.0
"""Time limit of a fetch, redirects included."""
MOST_REDIRECTS = 3
AT_ONCE = 8
"""Fetches at the same time."""
PORT = 443
TYPES = ("video/", "image/", "application/octet-stream")
_DOMAIN = re.compile(r"(?!-)[a-z0-9-]{1,63}(\.[a-z0-9-]{1,63})+")
_UNICAST = ipaddress.ip_network("2000::/3")
_WRAPPED = (ipaddress.ip_network("2002::/16"), ipaddress.ip_network("2001::/32"))
"""Addresses of version 6 in which one of version 4 is hidden: 6to4 and Teredo."""

Resolve: TypeAlias = Callable[[str], Awaitable[Sequence[str]]]
"""Gives the addresses of a host name."""


def is_public(address: str) -> bool:
    """Whether an address is one that everybody on the internet could reach, and stands for no other."""
    parsed = ipaddress.ip_address(address)
    if isinstance(parsed, ipaddress.IPv6Address):
        is_plain = parsed in _UNICAST and not any(parsed in network for network in _WRAPPED)
        return is_plain and parsed.is_global
    return parsed.is_global and not parsed.is_multicast


async def resolve(host: str) -> list[str]:
    """The addresses of a host name, as the system has them.

    Raises:
        OSError: If there are none.
    """
    found = await asyncio.get_running_loop().getaddrinfo(host, PORT, type=socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in found]


class CheckedTransport(httpx.AsyncBaseTransport):
    """Connects to public addresses of named domains only.

    Args:
        domains: Host names, each by itself.
        resolve: Gives the addresses of a host name.
        is_public: Whether an address may be connected to.
        inner: Connects.
        port: The only one.
    """

    def __init__(
        self,
        domains: Sequence[str],
        *,
        resolve: Resolve = resolve,
        is_public: Callable[[str], bool] = is_public,
        inner: httpx.AsyncBaseTransport | None = None,
        port: int = PORT,
    ) -> None:
        self._domains, self._resolve, self._is_public, self._port = frozenset(domains), resolve, is_public, port
        self._inner = inner or httpx.AsyncHTTPTransport(trust_env=False)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Part of httpx.

        Raises:
            RefusedError: If the request leads elsewhere.
        """
        url, host = request.url, request.url.raw_host.decode().lower()
        if url.scheme != "https" or (url.port or PORT) != self._port or url.userinfo:
            raise RefusedError("only https://host/path is fetched: no other schemes, ports or users")
        if host not in self._domains:
            raise RefusedError(f"{host} is no domain that is allowed with --allow-domain", 403)
        checked = httpx.Request(
            request.method,
            url.copy_with(host=await self._address(host)),
            headers=request.headers,
            stream=request.stream,
            extensions={**request.extensions, "sni_hostname": host},
        )
        return await self._inner.handle_async_request(checked)

    async def aclose(self) -> None:
        """Part of httpx."""
        await self._inner.aclose()

    async def _address(self, host: str) -> str:
        """The first of a host's addresses, once it is certain that all may be connected to."""
        try:
            addresses = list(await self._resolve(host))
        except OSError as error:
            raise RefusedError(f"{host} cannot be resolved") from error
        if not addresses or not all(map(self._is_public, addresses)):
            raise RefusedError(f"{host} is not on the public internet", 403)
        return addresses[0]


class Fetcher:
    """Fetches what clients name by an address.

    Args:
        domains: Host names that are allowed.
        media: Keeps what was fetched.
        max_file: Largest file in bytes.
        connect: Makes what connects; None: `CheckedTransport` of the domains.
        seconds: Time limit of a fetch.

    Raises:
        ValueError: If a domain is none.
    """

    def __init__(
        self,
        domains: Sequence[str],
        media: MediaStore,
        *,
        max_file: int,
        connect: Callable[[], httpx.AsyncBaseTransport] | None = None,
        seconds: float = SECONDS,
    ) -> None:
        for domain in domains:
            if not _DOMAIN.fullmatch(domain):
                raise ValueError(f"--allow-domain {domain}: a domain is a name such as videos.example.org, alone")
        self._connect = connect or (lambda: CheckedTransport(domains))
        self._media, self._max_file, self._seconds = media, max_file, seconds
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def fetch(self, url: str) -> str:
        """Keeps what is at an address; gives its name.

        Raises:
            RefusedError: If the address is not allowed, or there is no video or picture within the limits.
        """
        try:
            host = urlsplit(url).hostname
        except ValueError as error:
            raise RefusedError("this is no address") from error
        try:
            return await asyncio.wait_for(self._fetch(url), self._seconds)
        except (TimeoutError, asyncio.TimeoutError) as error:
            raise RefusedError(f"{host} did not send the file within {self._seconds:g} s", 504) from error
        except httpx.TooManyRedirects as error:
            raise RefusedError(f"{host} redirects more than {MOST_REDIRECTS} times") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise RefusedError(f"{host} cannot be read: {type(error).__name__}") from error

    async def _fetch(self, url: str) -> str:
        async with self._turns, self._reply(url) as reply:
            return await self._media.add_stream(reply.aiter_raw())

    @asynccontextmanager
    async def _reply(self, url: str) -> AsyncIterator[httpx.Response]:
        """An answer with a file in it, of which nothing but the head was read."""
        client = httpx.AsyncClient(
            transport=self._connect(),
            follow_redirects=True,
            max_redirects=MOST_REDIRECTS,
            headers={"accept-encoding": "identity", "user-agent": "marc"},
            timeout=self._seconds,
            trust_env=False,
        )
        async with client, client.stream("GET", url) as reply:
            kind = reply.headers.get("content-type", "").lower()
            if reply.status_code != 200:
                raise RefusedError(f"{reply.url.host} answers {reply.status_code}, not with a file")
            if "content-encoding" in reply.headers or not kind.startswith(TYPES):
                raise RefusedError(f"{reply.url.host} sends no video or picture, but {kind or 'something'}"[:200])
            announced = reply.headers.get("content-length", "0")
            if announced.isdecimal() and int(announced) > self._max_file:
                raise RefusedError(f"a file may have {self._max_file / MIB:.0f} MiB", 413)
            yield reply
