"""Where a server listens: its port is taken before a model is loaded, and it says when it is ready."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

import uvicorn
from fastapi import FastAPI

GRACE = 30
"""Seconds for which a server that is told to end lets its clients have their answers."""


def take_port(host: str, port: int) -> list[socket.socket]:
    """Sockets at a port, one for each address that a host name stands for; nothing is answered there yet.

    Args:
        host: An address of this machine, or a name of some.
        port: 0 is any free one.

    Raises:
        ValueError: The port is in use, or nobody may listen there.
    """
    with _listening(host, port):
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    taken: list[socket.socket] = []
    try:
        for family, *_, address in dict.fromkeys(found):
            with _listening(host, port):
                if one := _bound(family, (address[0], port or _port_of(taken), *address[2:])):
                    taken.append(one)
        if not taken:
            raise ValueError(f"nothing can listen at {host}; choose another --host")
    except ValueError:
        for each in taken:
            each.close()
        raise
    return taken


def address_of(host: str, sockets: Sequence[socket.socket]) -> str:
    """What clients call a server that listens at some sockets.

    Args:
        host: As the user has it.
        sockets: From `take_port`.
    """
    return f"http://{f'[{host}]' if ':' in host else host}:{_port_of(sockets)}"


def run_server(app: FastAPI, host: str, sockets: Sequence[socket.socket], ready: Callable[[], None]) -> None:
    """Answers clients until the process is told to end.

    Args:
        app: Answers them.
        host: Where it listens, for messages.
        sockets: From `take_port`; they are closed in the end.
        ready: Is called once clients are answered.

    Raises:
        ValueError: Another server was faster to listen there.
    """

    class Announced(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            try:
                with _listening(host, _port_of(sockets or ())):
                    await super().startup(sockets)
            except ValueError:
                await self.lifespan.shutdown()
                raise
            ready()

    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=GRACE)
    with suppress(KeyboardInterrupt):
        Announced(config).run(list(sockets))


def _bound(family: int, address: tuple[str | int, ...]) -> socket.socket | None:
    """A socket at an address; None if this machine has no such address."""
    try:
        one = socket.socket(family, socket.SOCK_STREAM)
    except OSError:
        return None
    try:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        one.bind(address)
    except OSError as error:
        one.close()
        if error.errno == errno.EADDRNOTAVAIL:
            return None
        raise
    return one


def _port_of(sockets: Sequence[socket.socket]) -> int:
    return int(sockets[0].getsockname()[1]) if sockets else 0


@contextmanager
def _listening(host: str, port: int) -> Iterator[None]:
    """Turns what the system has against a port into advice."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise ValueError(f"port {port} is in use; choose another with --port") from error
        raise ValueError(f"cannot listen at {host}, port {port}: {error.strerror or error}") from error
