"""Whether the hub can be reached is known at once."""

import socket
import time

import pytest
from huggingface_hub import constants

from marc.hub import hub_answers, is_downloaded


@pytest.fixture(autouse=True)
def direct(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.delenv(name, raising=False)


def test_a_hub_that_accepts_a_connection_answers(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        assert hub_answers()


def test_one_that_refuses_or_has_no_address_does_not(monkeypatch):
    start = time.monotonic()
    for address in ("http://127.0.0.1:1", "https://nowhere.invalid", "nonsense"):
        monkeypatch.setattr(constants, "ENDPOINT", address)
        assert not hub_answers()
    assert time.monotonic() - start < 15


def test_offline_nobody_is_asked(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(socket, "create_connection", lambda *_, **__: pytest.fail("asked"))
    assert not hub_answers()


def test_behind_a_proxy_it_may_answer(monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    assert hub_answers()


def test_what_is_in_the_cache_is_known(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    assert not is_downloaded("someone/model", "config.json")
