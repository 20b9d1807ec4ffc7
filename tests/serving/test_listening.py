"""A port is taken before anything is loaded, and who listens says so."""

import socket

import httpx
import pytest
import uvicorn
from fastapi import FastAPI

from marc.serving.listening import address_of, run_server, take_port


@pytest.fixture
def taken():
    """Sockets that are closed at the end of a test."""
    sockets = []
    yield sockets
    for each in sockets:
        each.close()


def test_a_port_that_is_in_use_is_said_with_advice(taken):
    taken.append(socket.create_server(("127.0.0.1", 0)))
    port = taken[0].getsockname()[1]
    with pytest.raises(ValueError, match=rf"^port {port} is in use; choose another with --port$"):
        take_port("127.0.0.1", port)


def test_a_port_that_somebody_else_was_faster_to_listen_at_is_said_alike(taken):
    sockets = take_port("127.0.0.1", 0)
    taken.extend(take_port("127.0.0.1", sockets[0].getsockname()[1]))
    taken[0].listen()
    with pytest.raises(ValueError, match=r"is in use; choose another with --port"):
        run_server(FastAPI(), "127.0.0.1", sockets, lambda: pytest.fail("nobody is answered"))
    sockets[0].close()


@pytest.mark.parametrize("host", ["192.0.2.1", "nowhere.invalid"])
def test_where_nobody_can_listen_is_said(host):
    with pytest.raises(ValueError, match=rf"listen at {host}"):
        take_port(host, 0)


def test_it_is_ready_when_it_answers(monkeypatch):
    app, said, replies = FastAPI(), [], []

    @app.get("/")
    def greet() -> str:
        return "hello"

    sockets = take_port("localhost", 0)
    address = address_of("localhost", sockets)

    async def ask_once(server):
        assert said == ["ready"]
        async with httpx.AsyncClient(trust_env=False) as client:
            replies.append((await client.get(address)).json())

    monkeypatch.setattr(uvicorn.Server, "main_loop", ask_once)
    run_server(app, "localhost", sockets, lambda: said.append("ready"))
    assert replies == ["hello"] and {each.fileno() for each in sockets} == {-1}


def test_an_address_of_version_6_stands_in_brackets(taken):
    try:
        taken.append(socket.create_server(("::1", 0), family=socket.AF_INET6))
    except OSError:
        pytest.skip("this machine has no IPv6")
    assert address_of("::1", taken) == f"http://[::1]:{taken[0].getsockname()[1]}"
