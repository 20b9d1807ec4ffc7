"""The seam for an engine: what the one in this process offers, and how little another one needs."""

import inspect

import pytest
from scripted_backend import Scripted

from marc import VideoAssistant
from marc.inference.backend import Backend
from marc.inference.hf import HFBackend
from marc.inference.query import Query


@pytest.mark.parametrize("engine", [HFBackend, Scripted])
def test_an_engine_offers_what_the_protocol_asks_for(engine, tiny):
    made = HFBackend(*tiny()) if engine is HFBackend else engine()
    members = {name for name in (*vars(Backend), *Backend.__annotations__) if not name.startswith("_")}
    assert members == {
        "processor",
        "compression",
        "config",
        "cannot",
        "device",
        "dtype",
        "name",
        "fingerprint",
        "encode",
        "generate",
        "greedy",
        "sample",
        "converse",
    }
    for name in members:
        assert hasattr(made, name), name
    for name in ("encode", "generate", "greedy", "converse"):
        asked = inspect.signature(getattr(Backend, name)).parameters
        assert list(asked) == list(inspect.signature(getattr(engine, name)).parameters)


def test_an_assistant_answers_through_any_engine(clip):
    assistant = VideoAssistant(Scripted())
    answer = assistant.ask(clip, "What?")
    assert (answer.answer, answer.visual_tokens_after, answer.visual_tokens_before) == ("4", 4, 48)
    assistant.backend.compression = type(assistant.backend.compression)(target_frames=None)
    ((answer, (seen,)), _) = assistant.answer_and_show([Query(clip, "What?"), Query(clip, "Why?")])
    assert answer.answer == "48" and seen.video.features.shape == (48, 1)
    assistant.warm_up()
