"""Small videos, images and texts to train the tiny model on."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_inputs import noise

from marc.data.rows import TrainingRow
from marc.video import write_video


@pytest.fixture(scope="session")
def files(tmp_path_factory) -> Path:
    """A folder with three videos of 4 seconds, two images and a broken video."""
    folder = tmp_path_factory.mktemp("training")
    for index in range(3):
        write_video(folder / f"{index}.mp4", np.repeat(noise(8, seed=index), 2, axis=0), fps=4.0)
    for index in range(2):
        Image.fromarray(noise(1, seed=10 + index)[0]).save(folder / f"{index}.png")
    (folder / "broken.mp4").write_bytes((folder / "0.mp4").read_bytes()[:500])
    return folder


def make_row(identity: int, kind: str = "video", *, index: int | None = None, **values) -> TrainingRow:
    """Question number ``identity`` about file number ``index``."""
    number = identity if index is None else index
    path = {"video": f"{number}.mp4", "image": f"{number}.png", "text": None}[kind]
    defaults = {"problem": f"What is number {identity}?", "problem_type": "free-form", "solution": "seven"}
    teacher = {"a_full": 0.5} if kind == "video" else {}
    return TrainingRow(str(identity), **{**defaults, "data_type": kind, "path": path, **teacher, **values})


@pytest.fixture
def rows() -> list[TrainingRow]:
    """Two videos, one of them with cuts."""
    return [make_row(0, cuts=(1.2, 2.1)), make_row(1)]


@pytest.fixture
def mixed_rows() -> list[TrainingRow]:
    """Videos, an image and a text."""
    return [make_row(10, index=0), make_row(11, "image", index=1), make_row(12, "text"), make_row(13, index=1)]
