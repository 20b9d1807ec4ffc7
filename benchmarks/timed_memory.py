"""Remembers videos with the code of some checkout and writes what that took: the program of `skimming_speed`.

``python timed_memory.py RESULT CHECKOUT VIDEO...`` with the checkout in ``PYTHONPATH``.
"""

from __future__ import annotations

import json
import sys
import time
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import psutil
import torch

from marc.video import write_video

HOMES = (
    ("marc.memory.embedder", "marc.memory.index", "marc.memory.options"),
    ("marc.memory.embedding", "marc.memory.indexing", "marc.memory.indexing"),
)
"""Where the embedder, what builds a memory and its options are now, and where they were up to commit 2fdf5d4."""


def main() -> None:
    """Measure every video."""
    result, _, *videos = sys.argv[1:]
    home = next(modules for modules in HOMES if find_spec(modules[0]))
    embedding, index, options = (import_module(module) for module in home)
    torch.manual_seed(0)
    embedder = embedding.EventEmbedder.untrained("PE-Core-T-16-384")
    warm = Path("warm.mp4")
    write_video(warm, np.random.default_rng(0).integers(0, 256, (100, 64, 64, 3), dtype=np.uint8), fps=25)
    index.build_memory(warm, embedder, options.MemoryOptions())
    found = []
    for video in videos:
        own, decoding = time.process_time(), decoding_seconds()
        memory = index.build_memory(Path(video), embedder, options.MemoryOptions())
        own, decoding = time.process_time() - own, decoding_seconds() - decoding
        cuts = [event.start for event in memory.events[1:]]
        found.append({"decoding": decoding, "all": own + decoding, "cuts": cuts})
    Path(result).write_text(json.dumps(found), encoding="utf-8")


def decoding_seconds() -> float:
    """Processor seconds used so far by the living children of this process, which are its decoders."""
    children = (child.cpu_times() for child in psutil.Process().children(recursive=True))
    return sum(times.user + times.system for times in children)


if __name__ == "__main__":
    main()
