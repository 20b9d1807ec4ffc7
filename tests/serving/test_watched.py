"""Clients ask about a source that is watched by another process, as it is at that moment."""

import numpy as np
import openai
import pytest
from running_server import Running, asks

from marc import VideoAssistant
from marc.memory.live import LiveMemory
from marc.memory.options import MemoryOptions
from marc.serving.media import MediaStore, RefusedError
from marc.types import GenerationOptions


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    folder = tmp_path_factory.mktemp("watched")
    assistant = VideoAssistant.from_pretrained(device="cpu", generation=GenerationOptions(max_new_tokens=6))
    memory = LiveMemory("gate", assistant.selector.embedder, memory=MemoryOptions("uniform"), folder=folder)
    server = Running(assistant, tmp_path_factory.mktemp("server"), watched=folder)
    yield server, memory
    server.stop()
    memory.close()


def push(memory, seconds):
    for second in seconds:
        memory.push(np.full((56, 56, 3), int(second) * 9 % 256, np.uint8), float(second))
    memory.flush()


def test_a_watched_source_is_asked_about_as_it_is_now(served):
    server, memory = served
    for until in (4.5, 9.5):
        push(memory, np.arange(until - 4.5, until + 0.1, 0.5))
        reply = server.client.chat.completions.create(model="tiny", messages=asks("watch:gate"))
        (video,) = reply.marc["videos"]
        assert video["frame_seconds"][-1] == pytest.approx(until)
        assert any(f"seen until {until}" in warning for warning in reply.marc["warnings"])


@pytest.mark.parametrize("name", ["nobody", "..", "../gate", "/etc"])
def test_only_names_of_watched_sources_are_answered(served, name):
    server, _ = served
    with pytest.raises(openai.NotFoundError, match="nothing is watched under the name"):
        server.client.chat.completions.create(model="tiny", messages=asks(f"watch:{name}"))


def test_a_server_without_watched_sources_has_none(tmp_path):
    with pytest.raises(RefusedError, match="nothing is watched"):
        MediaStore(tmp_path, max_file=1, max_kept=1).watched("gate")
