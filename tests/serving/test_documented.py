"""The clients that docs/serving.md shows, as they stand there."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from running_server import Running, noted

from marc import VideoAssistant
from marc.memory import MemoryOptions
from marc.memory.options import RetrievalOptions
from marc.model.tiny import build_tiny
from marc.types import GenerationOptions
from marc.video import write_video

PAGE = Path(__file__).parents[2] / "docs" / "serving.md"


def example(language, word):
    """The example in a language that has a word in it."""
    blocks = re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(), re.DOTALL)
    (found,) = [block for block in blocks if word in block]
    return found


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    checkpoint, folder = tmp_path_factory.mktemp("tiny"), tmp_path_factory.mktemp("videos")
    for part in build_tiny():
        part.save_pretrained(checkpoint)
    rng = np.random.default_rng(0)
    write_video(folder / "film.mp4", rng.integers(0, 256, (20, 56, 56, 3), dtype=np.uint8), fps=10)
    generation = GenerationOptions(max_new_tokens=6)
    cut = MemoryOptions(segmenter="uniform", seconds_per_frame=0.5)
    options = {"memory": cut, "retrieval": RetrievalOptions(embedder="tiny"), "generation": generation}
    assistant = VideoAssistant.from_pretrained(str(checkpoint), device="cpu", **options)
    running = Running(assistant, tmp_path_factory.mktemp("server"), allowed=(folder,), page=True)
    running.videos, running.answers = folder, noted(assistant)
    yield running
    running.stop()


def run(command, server, **options):
    done = subprocess.run(
        command, cwd=server.videos, capture_output=True, text=True, timeout=120, check=False, **options
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


NEEDS_CURL = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not there")


@NEEDS_CURL
def test_curl(server):
    shown = example("bash", "/v1/chat/completions").replace("localhost:8000", server.url.removeprefix("http://"))
    reply = run(["bash", "-c", shown.replace("/data/videos", str(server.videos))], server)
    assert '"finish_reason":' in reply and '"visual_tokens_after":' in reply


@NEEDS_CURL
def test_curl_for_the_events_of_the_page(server):
    shown = example("bash", "/page/events").replace("localhost:8000", server.url.removeprefix("http://"))
    reply = run(["bash", "-c", shown.replace("/data/videos", str(server.videos))], server)
    told = [json.loads(line.removeprefix("data: ")) for line in reply.splitlines() if line.startswith("data: ")]
    assert told[-1]["events"], reply


def test_openais_client(server):
    shown = example("python", "from openai import").replace("http://localhost:8000", server.url)
    reply = run([sys.executable, "-c", shown], server, env={**os.environ, "NO_PROXY": "127.0.0.1"})
    answer = server.answers[-1]
    told = ast.literal_eval(reply[reply.index("[{") :])
    assert reply.startswith(answer.answer) and told
    assert [each["start"] for each in told] == [each.start for each in answer.events]
