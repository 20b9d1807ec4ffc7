"""Dummies that worker processes can import: an embedder whose vectors are mean colours, and detectors with a fuse.

``python colours.py FOLDER VIDEO...`` remembers videos slowly, for tests that kill it.
"""

import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from marc.memory import MemoryOptions, ShotDetector, Transition, remember_all

COLOURS = {"red": (1.0, 0.1, 0.1), "green": (0.1, 1.0, 0.1), "blue": (0.1, 0.1, 1.0)}


class TwoSeconds(ShotDetector):
    """Events of two seconds; a video called ``deadly`` kills the process, one called ``once`` the first time.

    A deadly one that is ``patient``, too, leaves it to the one called ``once`` to be first.
    """

    frame_size = None
    slowness = 0.0

    def start(self, info):
        if "deadly" in Path(info.source).name:
            if "patient" in Path(info.source).name:
                wait_for_death(Path(info.source).with_name("once.mp4"))
            os.kill(os.getpid(), signal.SIGKILL)
        if "once" in Path(info.source).name and not (died := Path(f"{info.source}.died")).exists():
            died.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(self.slowness)

    def finish(self, duration):
        return [Transition(second, second, second) for second in (2.0, 4.0)]


def wait_for_death(video):
    """Until a video called ``once`` has killed its process: if its pool breaks before, it has only one try left."""
    patience = time.monotonic() + 30
    while not Path(f"{video}.died").exists() and time.monotonic() < patience:
        time.sleep(0.01)


class SlowTwoSeconds(TwoSeconds):
    slowness = 0.4


OPTIONS = MemoryOptions(segmenter="colours:TwoSeconds", min_event_seconds=1.0, max_event_seconds=3.0)


class ColourEmbedder:
    name = "colours"
    device = "cpu"
    image_size = 16
    dimension = 3

    @property
    def identity(self):
        return {"fingerprint": "c" * 64, "precision": "fp32"}

    def embed_frames(self, frames):
        return np.stack([unit(frame.reshape(-1, 3).mean(axis=0)) for frame in frames])

    def embed_question(self, question):
        return SimpleNamespace(vector=unit(COLOURS[question]), text=question, truncated=False)


class SlowColourEmbedder(ColourEmbedder):
    def embed_frames(self, frames):
        time.sleep(0.2)
        return super().embed_frames(frames)


class ClipEmbedder(ColourEmbedder):
    """Sees clips of two frames."""

    clip_frames = 2

    def embed_events(self, frames_per_event, seconds_per_event):
        clips = zip(frames_per_event, seconds_per_event, strict=True)
        return np.stack([unit(frames.mean(axis=(0, 1, 2)) + seconds.sum()) for frames, seconds in clips])


class FuseEmbedder(ColourEmbedder):
    """Green kills it."""

    def embed_frames(self, frames):
        if any(np.argmax(frame.reshape(-1, 3).mean(axis=0)) == 1 for frame in frames):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().embed_frames(frames)


class HeldEmbedder(ColourEmbedder):
    """Embeds once a file of a folder is there; how many pictures it sees at once stands in others."""

    def __init__(self, folder):
        self._folder, self._passes = Path(folder), 0

    def embed_frames(self, frames):
        self._passes += 1
        (self._folder / f"{self._passes}.of{len(frames)}").touch()
        while not (self._folder / "go").exists():
            time.sleep(0.01)
        return super().embed_frames(frames)


def unit(vector):
    return (np.asarray(vector) / np.linalg.norm(vector)).astype(np.float32)


def missing_embedder():
    raise ValueError("no weights here")


if __name__ == "__main__":
    folder, *videos = sys.argv[1:]
    slow = replace(OPTIONS, segmenter="colours:SlowTwoSeconds")
    for outcome in remember_all(videos, ColourEmbedder, slow, folder=folder, workers=2):
        print(outcome.video, "known" if outcome.known else "new", os.getpid(), flush=True)
