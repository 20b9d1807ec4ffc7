import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from marc.memory.index import (
    EmbedderUnavailableError,
    MemoryOptions,
    build_memory,
    remember,
    remember_all,
)
from marc.memory.select import VisualMemoryRetriever
from marc.memory.store import load_memory
from marc.types import Event
from marc.video import VideoError, write_video

HELPERS = Path(__file__).parent / "helpers"
FPS = 5


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def colours(monkeypatch):
    monkeypatch.syspath_prepend(HELPERS)
    import colours

    return colours


def write_colours(path: Path, *names: str, seed: int = 0) -> Path:
    """Two seconds of each colour, with noise so that no two files are equal."""
    values = {"red": (220, 20, 20), "green": (20, 220, 20), "blue": (20, 20, 220)}
    frames = np.concatenate([np.full((2 * FPS, 48, 64, 3), values[name], np.uint8) for name in names])
    noise = np.random.default_rng(seed).integers(0, 16, frames.shape, dtype=np.uint8)
    write_video(path, frames + noise, fps=FPS)
    return path


@pytest.fixture
def video(tmp_path) -> Path:
    return write_colours(tmp_path / "rgb.mp4", "red", "green", "blue")


def test_events_are_embedded_from_their_own_frames(video, colours):
    memory = build_memory(video, colours.ColourEmbedder(), colours.OPTIONS, segment=colours.two_second_events)
    assert memory.events == (Event(0, 2), Event(2, 4), Event(4, 6))
    assert memory.embeddings.argmax(axis=1).tolist() == [0, 1, 2]
    retriever = VisualMemoryRetriever(colours.ColourEmbedder())
    assert [retriever.retrieve(memory, colour, k=1).kept for colour in ("red", "green", "blue")] == [(0,), (1,), (2,)]


def test_thumbnails_show_the_events(video, colours, tmp_path):
    memory = build_memory(video, colours.ColourEmbedder(), colours.OPTIONS, segment=colours.two_second_events)
    for index, picture in enumerate(memory.thumbnails):
        (tmp_path / "picture.jpg").write_bytes(picture)
        image = Image.open(tmp_path / "picture.jpg")
        assert image.width == 160
        assert np.asarray(image).reshape(-1, 3).mean(axis=0).argmax() == index


def test_the_second_time_nothing_is_decoded(video, colours):
    calls = []

    def counted(*args, **kwargs):
        calls.append(args)
        return colours.two_second_events(*args, **kwargs)

    embedder = colours.ColourEmbedder()
    first = remember(video, embedder, colours.OPTIONS, segment=counted)
    again = remember(video, embedder, colours.OPTIONS, segment=counted)
    assert len(calls) == 1
    np.testing.assert_array_equal(first.embeddings, again.embeddings)
    remember(video, embedder, replace(colours.OPTIONS, seconds_per_frame=1.0), segment=counted)
    assert len(calls) == 2


def test_a_folder_that_cannot_be_made_is_told_before_the_work(video, colours, tmp_path):
    def never(*args, **kwargs):
        pytest.fail("the video was cut before the folder was known to be bad")

    with pytest.raises(OSError, match=r"cannot write the memory of .*rgb\.mp4: .*choose another folder"):
        remember(video, colours.ColourEmbedder(), colours.OPTIONS, folder=video / "memories", segment=never)


def test_the_real_segmenter_is_the_default(video, colours):
    memory = remember(video, colours.ColourEmbedder(), colours.OPTIONS)
    assert memory.events[0].start == 0
    assert memory.events[-1].end == pytest.approx(6, abs=0.01)
    assert memory.versions["embedder"] == "colours"


def test_the_progress_of_a_video_and_of_many_is_told(video, colours):
    told = []
    remember(video, colours.ColourEmbedder(), replace(colours.OPTIONS, segmenter="scenedetect"), progress=told.append)
    assert told == sorted(told)
    assert 0.9 < told[-1] <= 1
    told.clear()
    outcomes = remember_all([str(video)], colours.ColourEmbedder, colours.OPTIONS, progress=told.append)
    assert len(list(outcomes)) == 1
    assert told == sorted(told)
    assert told[0] >= 0 and told[-1] == 1


def test_a_file_that_is_no_video_is_named(tmp_path, colours):
    text = tmp_path / "letter.mp4"
    text.write_text("Dear reader")
    with pytest.raises(VideoError, match=r"letter\.mp4"):
        remember(text, colours.ColourEmbedder(), colours.OPTIONS)
    assert list(tmp_path.glob("*.marc")) == []


def test_many_videos_go_on_when_some_fail_and_skip_what_is_done(tmp_path, colours):
    good = [
        str(write_colours(tmp_path / f"good{index}.mp4", "red", "blue", "green", seed=index)) for index in range(3)
    ]
    text, missing = tmp_path / "letter.mp4", tmp_path / "missing.mp4"
    text.write_text("Dear reader")
    deadly = write_colours(tmp_path / "deadly.mp4", "red", seed=9)
    videos = [good[0], str(text), str(deadly), good[1], str(missing), good[2], good[0]]

    def run():
        outcomes = remember_all(
            videos, colours.ColourEmbedder, colours.OPTIONS, workers=2, segment=colours.two_second_events
        )
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
        assert "no such file" in outcomes[str(missing)].error
        assert "died" in outcomes[str(deadly)].error
        assert all(len(outcomes[video].memory.events) == 3 for video in good)
    assert all(second[video].known for video in good)


def test_an_embedder_that_cannot_be_loaded_ends_the_run(video, colours):
    with pytest.raises(EmbedderUnavailableError, match="no weights here"):
        list(remember_all([str(video)], colours.missing_embedder, colours.OPTIONS))


def test_kill_9_loses_only_the_work_in_hand_and_leaves_no_process(tmp_path, colours):
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


@pytest.mark.parametrize("wrong", [{"seconds_per_frame": 0}, {"thumbnail_width": 0}])
def test_options_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        MemoryOptions(**wrong)


def test_the_number_of_workers_is_checked(colours):
    with pytest.raises(ValueError, match="workers must be at least 1"):
        list(remember_all([], colours.ColourEmbedder, workers=0))
