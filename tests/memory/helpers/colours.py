"""Stand-ins that worker processes can import: an embedder whose vectors are mean colours, and a segmenter with a fuse.

``python colours.py FOLDER VIDEO...`` remembers videos slowly, for tests that kill it.
"""

import functools
import os
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from marc.memory.index import MemoryOptions, remember_all
from marc.types import Event

COLOURS = {"red": (1.0, 0.1, 0.1), "green": (0.1, 1.0, 0.1), "blue": (0.1, 0.1, 1.0)}
OPTIONS = MemoryOptions(segmenter="uniform", min_seconds=1.0, max_seconds=2.0)


class ColourEmbedder:
    name = "colours"
    image_size = 16

    @property
    def identity(self):
        return {"fingerprint": "c" * 64, "precision": "fp32"}

    def embed_frames(self, frames):
        return np.stack([unit(frame.reshape(-1, 3).mean(axis=0)) for frame in frames])

    def embed_question(self, question):
        return SimpleNamespace(vector=unit(COLOURS[question]), text=question, truncated=False)


def unit(vector):
    return (np.asarray(vector) / np.linalg.norm(vector)).astype(np.float32)


def missing_embedder():
    raise ValueError("no weights here")


def two_second_events(video, *, slowness=0.0, **_):
    """Three events; a video called ``deadly`` kills the process, one called ``slow`` takes its time."""
    if "deadly" in Path(video).name:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(slowness)
    return [Event(0, 2), Event(2, 4), Event(4, 6)]


if __name__ == "__main__":
    folder, *videos = sys.argv[1:]
    slow = functools.partial(two_second_events, slowness=0.4)
    for outcome in remember_all(videos, ColourEmbedder, OPTIONS, folder=folder, workers=2, segment=slow):
        print(outcome.video, "known" if outcome.known else "new", os.getpid(), flush=True)
