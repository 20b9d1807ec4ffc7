"""Encoded videos on disk: a new process needs no tower, and what changed, was damaged or was forgotten is not used."""

import logging
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from marc import VideoAssistant
from marc.compression.config import override_compression
from marc.model.tiny import build_tiny
from marc.serving.features import SUFFIX, StoredFeatures, identity_of
from marc.serving.media import MediaStore
from marc.types import GenerationOptions
from marc.video import write_video


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    for part in build_tiny():
        part.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def media(tmp_path):
    return MediaStore(tmp_path / "server", max_file=2**20, max_kept=2**24)


@pytest.fixture
def video(tmp_path):
    rng = np.random.default_rng(0)
    write_video(tmp_path / "a.mp4", rng.integers(0, 256, (30, 56, 56, 3), dtype=np.uint8), fps=10)
    return tmp_path / "a.mp4"


def assistant_with(checkpoint, media, *, tower=True):
    """A new assistant; without its tower it can encode nothing."""
    assistant = VideoAssistant.from_pretrained(
        checkpoint, memory=None, generation=GenerationOptions(max_new_tokens=6), device="cpu"
    )
    assistant.store = StoredFeatures(assistant.backend, media)
    if not tower:
        assistant.backend.model.model.visual.forward = refuse
    return assistant


def refuse(*_, **__):
    raise AssertionError("the tower ran")


def stored(media):
    return sorted(media.features.glob(f"*{SUFFIX}"))


def test_a_new_process_answers_without_its_tower(checkpoint, media, video, tmp_path):
    picture = tmp_path / "a.png"
    Image.fromarray(np.full((56, 84, 3), 90, np.uint8)).save(picture)
    first = assistant_with(checkpoint, media)
    expected = [first.ask(each, "What is shown?") for each in (video, picture)]
    assert len(stored(media)) == 2
    again = assistant_with(checkpoint, media, tower=False)
    for each, answer in zip((video, picture), expected, strict=True):
        found = again.ask(each, "What is shown?")
        assert (found.output, found.videos, "vision_tower" in found.seconds) == (answer.output, answer.videos, False)
    copy = tmp_path / "copy.mp4"
    shutil.copy(video, copy)
    assert again.ask(copy, "What is shown?").output == expected[0].output, "by content, whatever it is called"


def test_other_budgets_stretches_and_towers_are_not_found(checkpoint, media, video):
    first = assistant_with(checkpoint, media)
    first.ask(video, "What is shown?")
    again = assistant_with(checkpoint, media, tower=False)
    with pytest.raises(AssertionError, match="the tower ran"):
        again.ask(video, "What is shown?", start=1)
    again.backend.compression = override_compression(again.backend.compression, {"budget": "tokens:2"})
    with pytest.raises(AssertionError, match="the tower ran"):
        again.ask(video, "What is shown?")
    before = identity_of(first.backend)
    with torch.no_grad():
        next(first.backend.model.model.visual.parameters()).add_(1e-3)
    assert identity_of(first.backend) != before


@pytest.mark.parametrize("damage", [lambda content: content[:-1], lambda content: content[:40], lambda content: b""])
def test_a_damaged_file_is_made_again(checkpoint, media, video, damage, caplog):
    expected = assistant_with(checkpoint, media).ask(video, "What is shown?").output
    (path,) = stored(media)
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    with caplog.at_level(logging.WARNING, "marc.serving.features"):
        assert assistant_with(checkpoint, media).ask(video, "What is shown?").output == expected
    assert "cannot be used" in caplog.text and path.read_bytes() == whole


def test_a_full_disk_only_costs_the_features(checkpoint, media, video, monkeypatch, caplog):
    def full(path, content):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr("marc.serving.features.write_bytes", full)
    with caplog.at_level(logging.WARNING, "marc.serving.features"):
        assert assistant_with(checkpoint, media).ask(video, "What is shown?").output
    assert "features are not kept" in caplog.text and not stored(media)


def test_they_go_with_their_video_and_make_room(checkpoint, media, video):
    name = media.add([video.read_bytes()])
    assistant = assistant_with(checkpoint, media)
    assistant.ask(media.path(name), "What is shown?")
    assert [path.name.startswith(name) for path in stored(media)] == [True]
    media.remove(name)
    assert not stored(media) and not list(media.folder.iterdir())
    assistant.forget()
    assistant.ask(video, "What is shown?")
    small = MediaStore(media.folder.parent, max_file=2**20, max_kept=1)
    small.make_room(besides="file-of-another")
    assert not stored(media)
