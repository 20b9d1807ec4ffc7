"""The embedded model as the teacher, and rows about a few videos."""

from copy import deepcopy

import pytest
import torch

from experiments.ablation.rows import draw_rows, with_teacher
from marc.inference.hf import HFBackend
from marc.model.loading import EMBEDDED_FOLDER, load_model

VIDEOS, QUESTIONS = 3, 4


@pytest.fixture(scope="session")
def teacher() -> HFBackend:
    """The embedded model, which no test may change."""
    if not EMBEDDED_FOLDER.is_dir():
        pytest.skip("the trained model is not there")
    return HFBackend(*load_model(device="cpu", dtype="float32"))


@pytest.fixture
def student(teacher) -> HFBackend:
    """A copy of the teacher with noise on its weights, whose sampled answers differ."""
    model = deepcopy(teacher.model)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.model.language_model.layers.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator) * 0.1)
    return HFBackend(model, deepcopy(teacher.processor))


@pytest.fixture(scope="session")
def drawn():
    """Rows without a teacher."""
    return draw_rows("train", 3, videos=VIDEOS, questions=QUESTIONS)


@pytest.fixture(scope="session")
def rows(teacher, drawn, tmp_path_factory):
    """The same with the teacher's accuracies."""
    return with_teacher(teacher, drawn, tmp_path_factory.mktemp("teacher"), questions=QUESTIONS)
