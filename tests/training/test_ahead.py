"""The next step's videos are read while this one computes, each once, and training is what it was."""

import threading

import pytest
from tiny_training import make_trainer

from marc.model.tiny import build_tiny
from marc.training.ahead import ReadingAhead
from marc.training.reader import VisualReader, VisualSource
from marc.video.sources import VideoFiles

WAIT = 30


class Slow:
    """Frames of files, read once they may be; notes by whom."""

    def __init__(self):
        self.files, self.may, self.read_by = VideoFiles(max_frames=8), threading.Event(), []

    def read(self, name, limits):
        assert self.may.wait(WAIT)
        self.read_by.append((name, threading.current_thread().name))
        return self.files.read(name, limits)

    def shape(self, name, limits):
        return self.files.shape(name, limits)


def named(path):
    return {"prompt": [{"role": "user", "content": [{"type": "video", "video": str(path)}]}]}


@pytest.fixture
def reader():
    return VisualReader(build_tiny()[1], Slow())


def test_reading_goes_on_beside_and_is_waited_for(reader, files):
    rows = [named(files / "0.mp4"), named(files / "0.mp4"), named(files / "1.mp4")]
    collate = ReadingAhead(reader)
    assert collate(rows) == rows == collate(rows), "nothing is waited for"
    reader.frames.may.set()
    alone = VisualReader(reader.processor, VideoFiles(max_frames=8))
    for number in range(2):
        source = VisualSource("video", str(files / f"{number}.mp4"))
        assert reader.read(source).pixels.equal(alone.read(source).pixels)
    assert sorted(name for name, _ in reader.frames.read_by) == [str(files / f"{number}.mp4") for number in range(2)]
    assert all(thread.startswith("marc-reads-ahead") for _, thread in reader.frames.read_by)


def test_no_more_than_two_announcements_are_kept(reader, files):
    reader.frames.may.set()
    collate = ReadingAhead(reader)
    for number in (0, 1, 2):
        collate([named(files / f"{number}.mp4")])
    assert {source.path for source in reader._coming} == {str(files / "1.mp4"), str(files / "2.mp4")}
    assert reader.read(VisualSource("video", str(files / "0.mp4"))).pixels is not None
    assert (str(files / "0.mp4"), threading.current_thread().name) in reader.frames.read_by


def test_what_cannot_be_read_is_said_when_it_is_wanted(reader, files):
    reader.frames.may.set()
    ReadingAhead(reader)([named(files / "broken.mp4")])
    with pytest.raises(ValueError, match=r"broken\.mp4"):
        reader.read(VisualSource("video", str(files / "broken.mp4")))


def test_a_run_reads_ahead_and_learns_the_same(files, rows, tmp_path, monkeypatch):
    losses = []
    for name in ("ahead", "not"):
        if name == "not":
            monkeypatch.setattr(VisualReader, "read_ahead", lambda self, sources: None)
        frames = Slow()
        frames.may.set()
        trainer = make_trainer(files, rows, tmp_path / name, kwargs={"frames": frames})
        trainer.train()
        losses.append([each["loss"] for each in trainer.state.log_history if "loss" in each])
        assert any(thread.startswith("marc-reads-ahead") for _, thread in frames.read_by) == (name == "ahead")
    assert losses[0] == losses[1]
