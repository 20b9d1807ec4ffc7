"""``marc watch`` plays a file into a memory, and ``marc ask --watch`` asks about it."""

import json
import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from marc.cli import app
from marc.cli.watch import default_name
from marc.memory.live import StoredWatch
from marc.world.export import write_world_video
from marc.world.streams import sample_stream

FAST = ("--segmenter", "uniform", "--max-event-seconds", "4", "--speed", "1000")


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    path = tmp_path_factory.mktemp("films") / "two words.mp4"
    stream = sample_stream("test", 0, 0, 6)
    write_world_video(replace(stream, events=tuple(replace(each, grids=8) for each in stream.events[:2])), path)
    return path  # sixteen seconds


def marc(*arguments):
    return CliRunner().invoke(app, [str(each) for each in arguments])


def test_a_file_is_watched_and_asked_about(film, tmp_path):
    watched = marc("watch", film, "--watch-folder", tmp_path, *FAST)
    assert watched.exit_code == 0, watched.output
    folder = tmp_path / "two-words"
    snapshot = StoredWatch(folder).snapshot()
    assert f"seen to its end at 0:00:16.0, {len(snapshot.events)} events" in watched.output
    assert snapshot.rate == 20
    assert len(snapshot.events) >= 4
    asked = marc("ask", "--watch", folder, "--json", "Which scene comes last?")
    answer = json.loads(asked.stdout)
    assert answer["videos"][0]["source"] == "two-words"
    assert any("seen until 16.0 s" in warning for warning in answer["warnings"])
    assert snapshot.events[-1].span.end == pytest.approx(16)
    assert re.search(r"^0:00:16\.0  event [\d:.]+-0:00:16\.0$", watched.output, re.MULTILINE), watched.output
    again = marc("watch", film, "--watch-folder", tmp_path, *FAST)
    assert "seen to its end at 0:00:16.0 already" in again.output


def test_one_event_is_one_event(tmp_path):
    stream = sample_stream("test", 0, 0, 6)
    write_world_video(replace(stream, events=(replace(stream.events[0], grids=4),)), tmp_path / "film.mp4")
    options = ("--segmenter", "uniform", "--speed", "1000")
    watched = marc("watch", tmp_path / "film.mp4", "--watch-folder", tmp_path / "watch", *options)
    assert watched.output.endswith("film: seen to its end at 0:00:04.0, 1 event\n"), watched.output


def test_a_watch_that_was_killed_goes_on_where_the_disk_ends(film, tmp_path):
    command = [sys.executable, "-m", "marc.cli", "watch", str(film), "--watch-folder", str(tmp_path), *FAST[:-2]]
    with subprocess.Popen([*command, "--speed", "2"], stderr=subprocess.PIPE, text=True) as running:
        assert running.stderr is not None
        while "event" not in running.stderr.readline():
            assert running.poll() is None
        running.kill()
    stopped = StoredWatch(tmp_path / "two-words").snapshot()
    assert stopped.events
    assert stopped.until >= 2  # an event of four seconds was over, and split in its middle
    result = marc(*command[3:], "--speed", "1000")
    assert "goes on at" in result.output, result.output
    whole = StoredWatch(tmp_path / "two-words").snapshot()
    assert [each.span for each in whole.events][: len(stopped.events)] == [each.span for each in stopped.events]
    assert whole.until == pytest.approx(15.8, abs=0.5)
    assert not whole.gaps
    assert all(
        before.span.end == after.span.start for before, after in zip(whole.events, whole.events[1:], strict=False)
    )


def test_what_was_waited_for_is_said_once(tmp_path):
    stream = sample_stream("test", 3, 0, 6)
    write_world_video(replace(stream, events=stream.events[:2]), tmp_path / "film.mp4")
    (item,) = stream.events[1].objects
    tell = ("--tell", f"when a {item.name} appears", "--tell", "Is there a scene of nothing?")
    said = marc("watch", tmp_path / "film.mp4", "--watch-folder", tmp_path, *FAST, *tell)
    assert said.exit_code == 0, said.output
    told = [line for line in said.output.splitlines() if f"when a {item.name} appears" in line]
    assert len(told) == 1
    cut = 2 * stream.events[0].grids * 0.5
    minutes, seconds = told[0].split()[0].split(":")[1:]
    assert cut <= 60 * int(minutes) + float(seconds) <= cut + 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("http://localhost/stream",), "only read with --allow-url"),
        (("file:///etc/passwd", "--allow-url"), "addresses of the kind file:// are not read"),
        (("/dev/null", "--speed", "2"), "a source that is no file leaves nothing for --speed"),
        (("nowhere.mp4",), "nowhere.mp4"),
        (("FILM", "--allow-url"), "a file leaves nothing for --allow-url"),
        (("FILM", "--tell-above", "0.5"), "leaves nothing for --tell-above"),
    ],
)
def test_what_cannot_be_watched_is_said_in_a_line(film, tmp_path, arguments, message):
    named = [film if each == "FILM" else each for each in arguments]
    result = marc("watch", *named, "--watch-folder", tmp_path)
    assert result.exit_code == 2
    assert message in result.output
    assert not list(tmp_path.iterdir())


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


def test_a_source_that_is_lost_is_no_success_and_its_password_is_nowhere(tmp_path, monkeypatch):
    def lost(source, memory, **_):
        assert source == "rtsp://me:secret@localhost/garden"
        memory.push(np.zeros((48, 64, 3), np.uint8), 0.0)
        return False

    monkeypatch.setattr("marc.memory.live.following.follow_live", lost)
    options = ("--allow-url", "--watch-folder", tmp_path, *FAST[:4])
    result = marc("watch", "rtsp://me:secret@localhost/garden", *options)
    assert result.exit_code == 1
    assert "garden: lost at 0:00:00" in result.output
    written = b"".join(path.read_bytes() for path in (tmp_path / "garden").iterdir() if path.is_file())
    assert b"rtsp://localhost/garden" in written and b"secret" not in written
    assert marc("watch", "rtsp://me:secret@localhost", *options).exit_code == 1
    assert (tmp_path / "localhost").exists()


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("/a/b c.mp4", "b-c"),
        ("/dev/video0", "video0"),
        ("rtsp://x/..", "source"),
        ("ä.mp4", "ä"),
        ("http://host:80/video.mjpg?pwd=secret", "video"),
        ("srt://host:9000?passphrase=secret", "host-9000"),
    ],
)
def test_a_source_gives_a_name(source, name):
    assert default_name(source) == name
