"""What ``marc serve`` makes of its options; the server itself is tested in ``tests/serving``."""

import pytest
import uvicorn
from typer.testing import CliRunner

from marc.cli import app


@pytest.fixture
def started(monkeypatch):
    """The applications that were started."""
    applications = []
    monkeypatch.setattr(uvicorn, "run", lambda application, **_: applications.append(application))
    return applications


@pytest.mark.parametrize("page", [True, False])
def test_the_page_is_there_if_it_is_asked_for(started, tmp_path, page):
    options = ["--page"] if page else []
    result = CliRunner().invoke(app, ["serve", "--no-memory", "--device", "cpu", "--folder", str(tmp_path), *options])
    assert result.exit_code == 0, result.output
    (application,) = started
    assert ("/" in {getattr(route, "path", None) for route in application.routes}) == page
    assert ("the page is at http://127.0.0.1:8000" in result.stderr) == page


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--library", "x"], "--library x: it is the page that searches it; give --page, too"),
        (["--library", "x", "--page", "--no-memory"], "--no-memory leaves nothing for --library to do"),
    ],
)
def test_a_library_that_nobody_could_search_is_refused(started, tmp_path, options, message):
    result = CliRunner().invoke(app, ["serve", "--folder", str(tmp_path), *options])
    assert result.exit_code != 0 and message in result.stderr and not started
