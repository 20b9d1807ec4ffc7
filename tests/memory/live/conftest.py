"""A source whose scenes are of one colour each, and a memory of it that needs no network."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from marc.memory import MemoryOptions
from marc.memory.live import LiveMemory, LiveOptions

SHADES = {"red": (220, 20, 20), "green": (20, 220, 20), "blue": (20, 20, 220)}


@pytest.fixture
def open_memory(tmp_path: Path, colours) -> Iterator[Callable[..., LiveMemory]]:
    """Opens a memory of a name in a folder of the test; all are closed at its end."""
    opened: list[LiveMemory] = []

    def open_one(name: str = "camera", options: LiveOptions | None = None, **others) -> LiveMemory:
        cutting = others.pop("memory", None) or MemoryOptions("jumps:Jumps", 1.0, 20.0, 2.0)
        memory = LiveMemory(name, colours.ColourEmbedder(), options, cutting, folder=tmp_path / "watch", **others)
        opened.append(memory)
        return memory

    yield open_one
    for memory in opened:
        memory.close()


@pytest.fixture
def show() -> Callable[..., float]:
    """Pushes seconds of a colour, ten frames each, with an object that moves; gives the time at which it ends."""

    def push(memory: LiveMemory, colour: str, seconds: float, start: float = 0.0, size=(48, 64)) -> float:
        times = start + np.arange(round(10 * seconds)) / 10
        frames = np.full((len(times), *size, 3), SHADES[colour], np.uint8)
        for number, frame in enumerate(frames):
            frame[4:8, 4 + number % 20 : 12 + number % 20] = 240
        for frame, second in zip(frames, times.tolist(), strict=True):
            memory.push(frame, second)
        return start + seconds

    return push
