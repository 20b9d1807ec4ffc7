"""What ``marc serve`` makes of its options; the server itself is tested in ``tests/serving``."""

import re
import socket

import pytest
import uvicorn
from typer.testing import CliRunner

from marc.cli import app

PLAIN = ("serve", "--no-memory", "--device", "cpu", "--port", "0")


@pytest.fixture
def started(monkeypatch):
    """The applications that were started; each ends as soon as it is ready."""
    applications = []

    async def note(server):
        applications.append(server.config.app)

    monkeypatch.setattr(uvicorn.Server, "main_loop", note)
    # It would close what was the error stream when rouge_score was imported (findings/absl_closes_a_lent_stream.sh).
    monkeypatch.setattr(uvicorn.Config, "configure_logging", lambda self: None)
    monkeypatch.delenv("MARC_API_KEY", raising=False)
    return applications


@pytest.mark.parametrize("page", [True, False])
def test_the_page_is_there_if_it_is_asked_for_and_the_address_is_said(started, tmp_path, page):
    options = ["--page"] if page else []
    result = CliRunner().invoke(app, [*PLAIN, "--folder", str(tmp_path), *options])
    assert result.exit_code == 0, result.output
    (application,) = started
    assert ("/" in {getattr(route, "path", None) for route in application.routes}) == page
    what = "the page is" if page else "ready"
    assert re.fullmatch(rf"marc serve: {what} at http://127\.0\.0\.1:[1-9]\d*\n", result.stderr), result.stderr


@pytest.mark.parametrize(
    ("host", "key", "is_warned"),
    [("0.0.0.0", None, True), ("0.0.0.0", "", True), ("0.0.0.0", "secret", False), ("localhost", None, False)],
)
def test_who_lets_everybody_ask_is_warned_once(started, tmp_path, monkeypatch, host, key, is_warned):
    if key is not None:
        monkeypatch.setenv("MARC_API_KEY", key)
    result = CliRunner().invoke(app, [*PLAIN, "--host", host, "--folder", str(tmp_path)])
    assert result.exit_code == 0 and len(started) == 1, result.output
    assert result.stderr.count("set MARC_API_KEY") == is_warned


def test_a_port_that_is_in_use_is_refused_before_a_model_is_loaded(started, tmp_path, monkeypatch):
    monkeypatch.setattr("marc.cli.setting.Setting.load", lambda _: pytest.fail("the model was loaded"))
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        result = CliRunner().invoke(app, [*PLAIN[:-1], str(port), "--folder", str(tmp_path)])
    assert (result.exit_code, started) == (2, [])
    assert result.stderr == f"marc serve: port {port} is in use; choose another with --port\n"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--library", "x"], "--library x: it is the page that searches it; give --page, too"),
        (["--library", "x", "--page", "--no-memory"], "--no-memory leaves nothing for --library to do"),
    ],
)
def test_a_library_that_nobody_could_search_is_refused(started, tmp_path, options, message):
    result = CliRunner().invoke(app, ["serve", "--port", "0", "--folder", str(tmp_path), *options])
    assert result.exit_code != 0 and message in result.stderr and not started
