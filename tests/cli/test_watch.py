"""``marc watch`` plays a file into a memory, and ``marc ask --watch`` asks about it."""

import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from marc.cli import app
from marc.cli.watch import default_name
from marc.memory.live import StoredWatch
from marc.world.export import write_world_video
from marc.world.scenes import sample_video

FAST = ("--segmenter", "uniform", "--max-event-seconds", "8", "--speed", "1000")


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    path = tmp_path_factory.mktemp("films") / "two words.mp4"
    write_world_video(sample_video("easy", "test", 0, 0), path)
    return path


def marc(*arguments):
    return CliRunner().invoke(app, [str(each) for each in arguments])


def test_a_file_is_watched_and_asked_about(film, tmp_path):
    watched = marc("watch", film, "--watch-folder", tmp_path, *FAST)
    assert watched.exit_code == 0, watched.output
    assert "seen to its end at 0:00:3" in watched.output
    folder = tmp_path / "two-words"
    snapshot = StoredWatch(folder).snapshot()
    assert snapshot.rate == 20
    assert len(snapshot.events) >= 4
    asked = marc("ask", "--watch", folder, "--json", "Which scene comes last?")
    answer = json.loads(asked.stdout)
    assert answer["videos"][0]["source"] == "two-words"
    assert any("seen until 31.8 s" in warning for warning in answer["warnings"])
    again = marc("watch", film, "--watch-folder", tmp_path, *FAST)
    assert "already" in again.output


def test_a_watch_that_was_killed_goes_on_where_the_disk_ends(film, tmp_path):
    command = [sys.executable, "-m", "marc.cli", "watch", str(film), "--watch-folder", str(tmp_path), *FAST[:-2]]
    with subprocess.Popen([*command, "--speed", "4"], stderr=subprocess.PIPE, text=True) as running:
        assert running.stderr is not None
        while "event" not in running.stderr.readline():
            assert running.poll() is None
        running.kill()
    stopped = StoredWatch(tmp_path / "two-words").snapshot()
    assert stopped.events
    assert stopped.until >= 6  # an event of eight seconds was over, and split in its middle
    result = marc(*command[3:], "--speed", "1000")
    assert "goes on at" in result.output, result.output
    whole = StoredWatch(tmp_path / "two-words").snapshot()
    assert [each.span for each in whole.events][: len(stopped.events)] == [each.span for each in stopped.events]
    assert whole.until == pytest.approx(31.8, abs=0.5)
    assert not whole.gaps
    assert all(
        before.span.end == after.span.start for before, after in zip(whole.events, whole.events[1:], strict=False)
    )


def test_nothing_is_watched_under_a_name(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    result = marc("ask", "--watch", "nobody", "What?")
    assert result.exit_code == 2
    assert "nothing is watched under this name" in result.output


@pytest.mark.parametrize("name", ["..", "a/b", "", "a b"])
def test_a_name_is_no_path(film, tmp_path, name):
    result = marc("watch", film, "--watch-folder", tmp_path, "--name", name, *FAST)
    assert result.exit_code == 2
    assert "is called by letters" in result.output


@pytest.mark.parametrize(
    ("source", "name"), [("/a/b c.mp4", "b-c"), ("/dev/video0", "video0"), ("rtsp://x/..", "source"), ("ä.mp4", "ä")]
)
def test_a_source_gives_a_name(source, name):
    assert default_name(source) == name
