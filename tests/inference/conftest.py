"""A clip of three scenes, an assistant that remembers it, and prompts about encoded noise."""

import numpy as np
import pytest
from tiny_models import FAMILIES, save_stock
from tiny_models import tiny as tiny

from marc import VideoAssistant
from marc.inference.selectors import RetrievingSelector
from marc.memory.embedder import QuestionEmbedding
from marc.memory.options import RetrievalOptions
from marc.model.tiny import build_tiny
from marc.types import Event, GenerationOptions
from marc.video import write_video

SHORT = GenerationOptions(max_new_tokens=4)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory) -> str:
    """Random weights, so that these tests do not depend on what the embedded model has learnt."""
    folder = tmp_path_factory.mktemp("tiny")
    for part in build_tiny():
        part.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session", params=FAMILIES)
def stock_checkpoint(request, tmp_path_factory) -> str:
    """Random weights of each family, as transformers' own classes save them."""
    folder = tmp_path_factory.mktemp("stock")
    save_stock(folder, *build_tiny(family=request.param))
    return str(folder)


@pytest.fixture(scope="session")
def clip(tmp_path_factory):
    """Three scenes of one colour each, twelve seconds in all."""
    path = tmp_path_factory.mktemp("clips") / "scenes.mp4"
    rng = np.random.default_rng(0)
    scenes = [np.full((48, 56, 56, 3), rng.integers(0, 256, 3), dtype=np.uint8) for _ in range(3)]
    write_video(path, np.concatenate(scenes), fps=12)
    return path


class Memory:
    """Three events that point in three directions."""

    events = (Event(0.0, 4.0), Event(4.0, 8.0), Event(8.0, 12.0))
    embeddings = np.eye(3, dtype=np.float32)


class Embedder:
    """A question looks for the event whose number it contains."""

    def embed_question(self, question: str) -> QuestionEmbedding:
        number = int(next(filter(str.isdigit, question)))
        return QuestionEmbedding(np.eye(3, dtype=np.float32)[number], question, 1, 8)


@pytest.fixture
def embedder() -> Embedder:
    """A dual encoder without a network."""
    return Embedder()


@pytest.fixture
def remembering(stock_checkpoint, embedder, monkeypatch) -> VideoAssistant:
    """An assistant that remembers three scenes and retrieves the one whose number a question contains."""
    assistant = VideoAssistant.from_pretrained(
        stock_checkpoint,
        retrieval=RetrievalOptions(k=1),
        generation=SHORT,
        device="cpu",
        compression={"layout": "events"},
    )
    assert isinstance(assistant.selector, RetrievingSelector)
    assistant.selector.load_embedder = lambda: embedder
    monkeypatch.setattr(assistant.selector, "remember", lambda video: Memory())
    return assistant
