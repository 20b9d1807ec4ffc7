import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest

from marc.memory import detectors
from marc.memory.detectors import register_detector
from marc.memory.store import load_memory
from marc.memory.workers import EmbedderUnavailableError, failure, remember_all
from marc.video import VideoError

HELPERS = Path(__file__).parent / "helpers"


@pytest.fixture
def video(write_colours, tmp_path) -> Path:
    return write_colours(tmp_path / "rgb.mp4", "red", "green", "blue")


def test_many_videos_go_on_when_some_fail_and_skip_what_is_done(tmp_path, colours, write_colours):
    good = [
        str(write_colours(tmp_path / f"good{index}.mp4", "red", "blue", "green", seed=index)) for index in range(3)
    ]
    text, missing = tmp_path / "letter.mp4", tmp_path / "missing.mp4"
    text.write_text("Dear reader")
    deadly = write_colours(tmp_path / "deadly.mp4", "red", seed=9)
    videos = [good[0], str(text), str(deadly), good[1], str(missing), good[2], good[0]]

    def run():
        outcomes = remember_all(videos, colours.ColourEmbedder, colours.OPTIONS, workers=2)
        return {outcome.video: outcome for outcome in outcomes}

    first, second = run(), run()
    for outcomes in (first, second):
        assert set(outcomes) == set(videos)
        assert {video for video, outcome in outcomes.items() if outcome.error} == {
            str(text),
            str(deadly),
            str(missing),
        }
        assert "letter.mp4" in outcomes[str(text)].error
        assert outcomes[str(missing)].error.startswith(f"{missing}: there is no such file")
        assert outcomes[str(deadly)].error.startswith(f"{deadly}: the process that worked on it died")
        assert all(outcomes[str(bad)].error.count(str(bad)) == 1 for bad in (text, missing, deadly))
        assert all(len(outcomes[video].memory.events) == 3 for video in good)
    assert all(second[video].known for video in good)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_video_whose_worker_was_killed_is_tried_once_more(tmp_path, colours, write_colours, workers):
    names = ["once.mp4", "patient and deadly.mp4", "good.mp4"]
    videos = [
        str(write_colours(tmp_path / name, "red", "blue", "green", seed=index)) for index, name in enumerate(names)
    ]
    outcomes = {
        Path(outcome.video).name: outcome
        for outcome in remember_all(videos, colours.ColourEmbedder, colours.OPTIONS, workers=workers)
    }
    assert set(outcomes) == set(names)
    assert {name for name in names if outcomes[name].memory} == {"once.mp4", "good.mp4"}
    assert "died, twice" in outcomes["patient and deadly.mp4"].error


def test_a_name_that_is_not_utf_8_stops_nothing(tmp_path, colours, write_colours):
    good = write_colours(tmp_path / "good.mp4", "red", "blue", "green")
    strange = tmp_path / os.fsdecode(b"caf\xe9 \x1b[31m.mp4")
    strange.write_bytes(good.read_bytes() + bytes(10))
    impossible = [str(tmp_path / name) for name in ("a\0b.mp4", "x" * 5000 + ".mp4", "half \ud800.mp4")]
    videos = [*impossible, str(strange), str(good)]
    outcomes = {one.video: one for one in remember_all(videos, colours.ColourEmbedder, colours.OPTIONS)}
    assert set(outcomes) == set(videos)
    assert {video for video in videos if outcomes[video].memory} == {str(strange), str(good)}


def test_missing_files_are_found_before_a_process_starts(tmp_path):
    missing, empty = tmp_path / "gone.mp4", tmp_path / "empty.mp4"
    empty.touch()
    videos = [str(tmp_path), str(missing), str(empty)]
    told = []
    with mock.patch("marc.memory.workers.ProcessPoolExecutor", side_effect=AssertionError("a process")):
        outcomes = list(remember_all(videos, print, progress=told.append))
    assert [one.video for one in outcomes] == videos and told[-1] == 1
    for one, problem in zip(outcomes, ("this is a folder", "there is no such file", "the file is empty"), strict=True):
        assert one.error.startswith(f"{one.video}: {problem}") and one.memory is None


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (VideoError("a.mp4: cut off"), "a.mp4: cut off"),
        (ValueError("too short"), "a.mp4: too short"),
        (OSError(28, "No space left on device", "b.marc"), "a.mp4: b.marc: No space left on device"),
        (RuntimeError("foreign"), "a.mp4: RuntimeError: foreign"),
        (KeyError("x"), "a.mp4: KeyError: 'x'"),
    ],
)
def test_the_class_of_an_error_is_named_where_its_text_is_not_for_users(error, said):
    assert failure("a.mp4", error).error == said


def test_an_embedder_that_cannot_be_loaded_ends_the_run(video, colours):
    with pytest.raises(EmbedderUnavailableError, match="no weights here"):
        list(remember_all([str(video)], colours.missing_embedder, colours.OPTIONS))


def test_kill_9_loses_only_the_work_in_hand_and_leaves_no_process(tmp_path, write_colours):
    videos = [str(write_colours(tmp_path / f"{index}.mp4", "red", "green", "blue", seed=index)) for index in range(6)]
    folder = tmp_path / "memories"
    command = [sys.executable, str(HELPERS / "colours.py"), str(folder), *videos]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        finished = {process.stdout.readline().split()[0] for _ in range(2)}
        process.kill()
    deadline = time.monotonic() + 20
    while session_members(process.pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert session_members(process.pid) == []
    again = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    states = dict(line.split()[:2] for line in again.splitlines())
    assert set(states) == set(videos)
    assert {states[video] for video in finished} == {"known"}
    assert len(list(folder.glob("*.marc"))) == 6


def test_two_processes_may_remember_the_same_video(video, tmp_path):
    folder = tmp_path / "memories"
    command = [sys.executable, str(HELPERS / "colours.py"), str(folder), str(video)]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as first,
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as second,
    ):
        outputs = [process.communicate()[0] for process in (first, second)]
    assert all(str(video) in output for output in outputs)
    (path,) = folder.iterdir()
    assert len(load_memory(path).events) == 3


def session_members(session: int) -> list[int]:
    """Processes that a killed process has left behind."""
    members = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.getsid(int(entry)) == session and Path(f"/proc/{entry}/stat").read_text().split()[2] != "Z":
                members.append(int(entry))
        except (ProcessLookupError, FileNotFoundError):
            continue
    return members


def test_workers_know_a_detector_that_was_registered(video, colours, monkeypatch):
    monkeypatch.setattr(detectors, "_REGISTERED", {})
    register_detector("pairs", colours.TwoSeconds)
    options = replace(colours.OPTIONS, segmenter="pairs")
    (outcome,) = remember_all([str(video)], colours.ColourEmbedder, options)
    assert (outcome.error, len(outcome.memory.events)) == (None, 3)
    assert outcome.memory.settings.segmenter == "pairs"


def test_the_progress_of_many_videos_is_told(video, colours):
    told = []
    options = replace(colours.OPTIONS, segmenter="scenedetect")
    outcomes = remember_all([str(video)], colours.ColourEmbedder, options, progress=told.append)
    assert len(list(outcomes)) == 1
    assert told == sorted(told)
    assert told[0] >= 0 and told[-1] == 1


def test_what_is_said_comes_with_the_memory_and_is_no_part_of_it(video, colours):
    def outcome(subtitles="auto"):
        (one,) = remember_all([str(video)], colours.ColourEmbedder, colours.OPTIONS, subtitles=subtitles)
        return one

    before = outcome()
    assert (before.known, before.texts, before.subtitles, before.remark) == (False, ("", "", ""), "", None)
    file = video.with_suffix(".srt")
    file.write_text("1\n00:00:01,000 --> 00:00:02,500\nred\n\n2\n00:00:05,000 --> 00:00:06,000\nblue\n")
    after = outcome()
    assert (after.known, after.texts, after.subtitles) == (True, ("red", "", "blue"), "rgb.srt")
    assert after.memory.key == before.memory.key
    assert outcome("none").texts == ("", "", "")
    file.write_text("Dear reader")
    bad = outcome()
    assert bad.error is None and bad.texts == ("", "", "")
    assert "subtitles that cannot be read are left out" in bad.remark and "rgb.srt" in bad.remark
    assert "rgb.srt: these are no subtitles" in outcome(str(file)).error


def test_the_number_of_workers_is_checked(colours):
    with pytest.raises(ValueError, match="workers must be at least 1"):
        list(remember_all([], colours.ColourEmbedder, workers=0))
