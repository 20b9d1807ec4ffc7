from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from marc.memory import detectors, index
from marc.memory.descriptors import Descriptors
from marc.memory.detectors import Transition, register_detector
from marc.memory.index import build_memory, memory_settings, remember
from marc.memory.options import MemoryOptions
from marc.memory.select import VisualMemoryRetriever
from marc.memory.shots import Shots
from marc.memory.store import load_memory, memory_path, save_memory
from marc.types import Event, Frames
from marc.video import VideoError


@pytest.fixture
def video(write_colours, tmp_path) -> Path:
    return write_colours(tmp_path / "rgb.mp4", "red", "green", "blue")


def test_events_are_embedded_from_their_own_frames(video, colours):
    memory = build_memory(video, colours.ColourEmbedder(), colours.OPTIONS)
    assert memory.events == (Event(0, 2), Event(2, 4), Event(4, 6))
    assert memory.embeddings.argmax(axis=1).tolist() == [0, 1, 2]
    retriever = VisualMemoryRetriever(colours.ColourEmbedder())
    assert [retriever.retrieve(memory, colour, k=1).kept for colour in ("red", "green", "blue")] == [(0,), (1,), (2,)]


def test_thumbnails_show_the_events(video, colours, tmp_path):
    memory = build_memory(video, colours.ColourEmbedder(), colours.OPTIONS)
    for number, picture in enumerate(memory.thumbnails):
        (tmp_path / "picture.jpg").write_bytes(picture)
        image = Image.open(tmp_path / "picture.jpg")
        assert image.width == 160
        assert np.asarray(image).reshape(-1, 3).mean(axis=0).argmax() == number


@pytest.mark.parametrize("named", ["by place", "by a registered name"])
def test_the_second_time_nothing_is_decoded(video, colours, monkeypatch, named):
    calls = []

    class Counted(colours.TwoSeconds):
        def start(self, info):
            calls.append(info.source)

    monkeypatch.setattr(detectors, "_REGISTERED", {})
    if named == "by place":
        monkeypatch.setattr(colours, "TwoSeconds", Counted)
        options = colours.OPTIONS
    else:
        register_detector("counted", Counted)
        options = replace(colours.OPTIONS, segmenter="counted")
    embedder = colours.ColourEmbedder()
    first = remember(video, embedder, options)
    again = remember(video, embedder, options)
    assert len(calls) == 1
    np.testing.assert_array_equal(first.embeddings, again.embeddings)
    remember(video, embedder, replace(options, seconds_per_frame=1.0))
    assert len(calls) == 2


def test_another_detector_of_the_same_name_makes_another_memory(video, colours, monkeypatch):
    keys = []
    for detector in (colours.TwoSeconds, colours.SlowTwoSeconds):
        monkeypatch.setattr(detectors, "_REGISTERED", {"mine": detector})
        settings = memory_settings(replace(colours.OPTIONS, segmenter="mine"), colours.ColourEmbedder())
        assert f"colours:{detector.__name__} " in settings.segmenter_version
        keys.append(settings.key("content"))
    assert keys[0] != keys[1]


def test_settings_name_what_the_options_say(colours):
    options = MemoryOptions("uniform", 1.5, 9.0, 3.0, 80)
    settings = memory_settings(options, colours.ColourEmbedder())
    assert (settings.segmenter, settings.segmenter_version) == ("uniform", "")
    assert (settings.min_seconds, settings.max_seconds) == (1.5, 9.0)
    assert (settings.seconds_per_frame, settings.thumbnail_width) == (3.0, 80)
    assert (settings.embedder, settings.precision) == ("c" * 64, "fp32")


def test_long_events_are_split_where_the_keyframes_change_if_there_are_any(video, colours, monkeypatch):
    """The small pictures change at 12 s, the keyframes at 22 s."""
    seconds = np.arange(0, 35, 1.0)
    blocks = Descriptors(seconds, (seconds >= 12)[:, None].astype(np.float64))
    found = Shots((Transition(4.96, 5.0, 5.0),), 35.0, blocks)
    taken = np.arange(2.0, 35, 4)
    rgb = np.zeros((len(taken), 16, 16, 3), np.uint8)
    rgb[taken < 22, ..., 0] = rgb[taken >= 22, ..., 2] = 200

    def with_keyframes(_video, _detector, consumers, *, progress):
        consumers[0].consume(Frames(rgb, taken, "made"))
        return found

    monkeypatch.setattr(index, "find_shots", with_keyframes)
    options = replace(colours.OPTIONS, min_event_seconds=2.0, max_event_seconds=20.0)
    memory = build_memory(video, colours.ColourEmbedder(), options)
    assert memory.events == (Event(0, 5), Event(5, 20), Event(20, 35))
    monkeypatch.setattr(index, "find_shots", lambda *_, **__: found)
    memory = build_memory(video, colours.ColourEmbedder(), options)
    assert memory.events[:2] == (Event(0, 5), Event(5, 11.5))


def test_a_folder_that_cannot_be_made_is_told_before_the_work(video, colours, monkeypatch):
    monkeypatch.setattr(index, "build_memory", lambda *_: pytest.fail("it was cut before the folder was known bad"))
    with pytest.raises(OSError, match=r"cannot write the memory of .*rgb\.mp4: .*choose another folder"):
        remember(video, colours.ColourEmbedder(), colours.OPTIONS, folder=video / "memories")


def test_a_segmenter_of_ours_goes_all_the_way(video, colours):
    memory = remember(video, colours.ColourEmbedder(), replace(colours.OPTIONS, segmenter="uniform"))
    assert memory.events[0].start == 0
    assert memory.events[-1].end == pytest.approx(6, abs=0.01)
    assert memory.versions["embedder"] == "colours"


def test_the_progress_of_a_video_is_told(video, colours):
    told = []
    remember(video, colours.ColourEmbedder(), replace(colours.OPTIONS, segmenter="scenedetect"), progress=told.append)
    assert told == sorted(told)
    assert told[-1] == 1, "a bar that ends below it would go on counting"


def test_a_file_that_is_no_video_is_named(tmp_path, colours):
    text = tmp_path / "letter.mp4"
    text.write_text("Dear reader")
    with pytest.raises(VideoError, match=r"letter\.mp4"):
        remember(text, colours.ColourEmbedder(), colours.OPTIONS)
    assert list(tmp_path.glob("*.marc")) == []


def test_a_memory_that_does_not_fit_its_video_is_made_again_and_that_is_said(video, colours, caplog):
    embedder = colours.ColourEmbedder()
    good = remember(video, embedder, colours.OPTIONS)
    path = memory_path(video, good.key)
    longer = replace(good, events=(*good.events[:-1], Event(4, 60)))
    wider = replace(good, embeddings=np.pad(good.embeddings, ((0, 0), (0, 2))), looks=())
    for wrong, said in ((longer, "events up to 60 s"), (wider, "vectors of 5 dimensions, not 3")):
        save_memory(wrong, path)
        assert remember(video, embedder, colours.OPTIONS).events == good.events
        assert said in caplog.text and "remembered again" in caplog.text
        np.testing.assert_array_equal(load_memory(path).embeddings, good.embeddings)
