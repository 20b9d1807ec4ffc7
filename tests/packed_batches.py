"""The embedded model and two packed batches about a pool of videos: fixtures for several folders' ``conftest.py``."""

import numpy as np
import pytest
import torch

from experiments.ablation.pool import TrainingPool, draw_pool_questions, see_videos
from experiments.ablation.settings import BUDGETS, MethodOptions
from experiments.ablation.views import Viewer
from experiments.tiny_model.packing import Packer
from marc.model.loading import load_model

VIDEOS = 6


@pytest.fixture(scope="session")
def tiny():
    """The model and its processor."""
    model, processor = load_model(device="cpu", dtype="float32")
    return model.requires_grad_(False), processor


@pytest.fixture(scope="session")
def pool(tiny) -> TrainingPool:
    """A training pool whose teacher knows every other answer."""
    model, processor = tiny
    questions = draw_pool_questions("train", 3, VIDEOS)
    seen = see_videos(Viewer(model), "train", 3, VIDEOS, list(BUDGETS))
    known = torch.tensor([[float(i % 2) for i in range(len(row))] for row in questions])
    return TrainingPool(seen, questions, known, Packer(processor))


@pytest.fixture(params=["events", "full"])
def batch(request, pool):
    """A batch."""
    return pool.batch(np.random.default_rng(0), {request.param: 1.0}, MethodOptions(videos=3, questions=4))
