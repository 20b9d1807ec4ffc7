"""Requests of many clients at once against one client that asks in turn, on one server.

    python -m benchmarks.serving_benchmark --repeats 3
    python -m benchmarks.serving_benchmark --model scaled
    .venv-vllm/bin/python -m benchmarks.serving_benchmark --backend vllm

starts `marc serve`'s application on loopback, with the embedded model or with the 3B of `marc bench` that was made
small and has random weights, writes generated videos, asks the same questions about them by one client in turn and by
several clients at once, alternating, and prints the wall and processor seconds of both and their ratios, round by
round. Processor time is that of the server, its decoding processes and the clients, who are threads beside it.
Everything is remembered beforehand, and both ways of asking are gone once; what was encoded is forgotten before each
round. Every answer is compared with that of the first round.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import get_args

import torch

from benchmarks.architectures import Placement, Weights, find_architecture
from benchmarks.local_server import serving
from benchmarks.systems import PROMPT_STYLE
from marc.compression.config import NEAR_DUPLICATES, CompressionConfig
from marc.inference.assistant import VideoAssistant
from marc.inference.hf import HFBackend
from marc.inference.vllm_backend import VllmBackend
from marc.memory.options import MemoryOptions, RetrievalOptions
from marc.serving.app import make_app
from marc.serving.options import ServeOptions
from marc.types import EngineName, GenerationOptions
from marc.world.export import write_sample

NEW_TOKENS = 16
"""Of every answer of the small 3B by default, whose random weights end none by themselves: a word or two. An answer
with its reasoning, as the published prompts ask for, has a hundred and more."""


@dataclass(frozen=True)
class Asked:
    """A question about a video."""

    video: Path
    question: str


def write_questions(folder: Path, videos: int, questions: int) -> list[Asked]:
    """Videos of half a minute, and so many questions about them, mixed."""
    asked = []
    for seed in range(videos):
        file = folder / f"{seed}.mp4"
        rows = json.loads(write_sample(file, seed=seed, questions=ceil(questions / videos)).read_text())
        asked += [Asked(file, row["problem"]) for row in rows["questions"]]
    random.Random(0).shuffle(asked)
    return asked[:questions]


def ask(address: str, asked: Asked) -> str:
    """One request; gives the answer."""
    content = [{"type": "video_url", "video_url": {"url": str(asked.video)}}, {"type": "text", "text": asked.question}]
    body = json.dumps({"messages": [{"role": "user", "content": content}]}).encode()
    request = urllib.request.Request(address, body, {"content-type": "application/json"})
    with urllib.request.urlopen(request) as reply:
        answer: str = json.load(reply)["choices"][0]["message"]["content"]
    return answer


@dataclass(frozen=True)
class Round:
    """How all questions were answered once.

    Attributes:
        wall: Seconds.
        processor: Seconds of this process and its children.
        answers: In the order of the questions.
    """

    wall: float
    processor: float
    answers: list[str]


def timed(address: str, asked: Sequence[Asked], clients: int) -> Round:
    """Has so many clients ask all questions."""
    begun, worked = time.perf_counter(), _processor_seconds()
    with ThreadPoolExecutor(clients) as pool:
        answers = list(pool.map(lambda each: ask(address, each), asked))
    return Round(time.perf_counter() - begun, _processor_seconds() - worked, answers)


def _processor_seconds() -> float:
    import psutil

    process = psutil.Process()
    times = [each.cpu_times() for each in (process, *process.children(recursive=True))]
    return sum(each.user + each.system for each in times)


def make_assistant(
    model: str, folder: Path, new_tokens: int = NEW_TOKENS, engine: EngineName = "hf"
) -> VideoAssistant:
    """The embedded model, or the small 3B, with the embedded model's memory.

    Args:
        model: ``"tiny"`` or ``"scaled"``.
        folder: For memories, and for the small 3B where its engine wants it in files.
        new_tokens: Of every answer of the small 3B.
        engine: Answers.
    """
    assistant = VideoAssistant.from_pretrained(
        memory=MemoryOptions(segmenter="uniform"),
        retrieval=RetrievalOptions(folder=str(folder / "memories")),
        device="cpu",
        backend=engine if model == "tiny" else "hf",
    )
    if model == "tiny":
        return assistant
    weights = Weights.random(find_architecture(model), Placement(torch.device("cpu")))
    compression = CompressionConfig("events", duplicates=NEAR_DUPLICATES)
    made = HFBackend(weights.model(weights.architecture.our_model, compression), weights.processor(compression))
    generation = GenerationOptions(max_new_tokens=new_tokens)
    backend = _in_vllm(made, folder / "model") if engine == "vllm" else made
    return VideoAssistant(backend, assistant.selector, generation=generation, prompt_style=PROMPT_STYLE)


def _in_vllm(made: HFBackend, folder: Path) -> VllmBackend:
    made.model.save_pretrained(folder)
    made.processor.save_pretrained(folder)
    return VllmBackend.from_pretrained(folder, duplicates=NEAR_DUPLICATES)


def forget(assistant: VideoAssistant) -> None:
    """Has an assistant and its engine forget what was encoded and read."""
    assistant.forget()
    if isinstance(assistant.backend, VllmBackend):
        assistant.backend.engine.reset_prefix_cache()
        assistant.backend.engine.llm_engine.reset_encoder_cache()


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of ``python -m benchmarks.serving_benchmark``."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--model", choices=("tiny", "scaled"), default="tiny")
    parser.add_argument("--backend", choices=get_args(EngineName), default="hf", help="vllm: in its environment")
    parser.add_argument("--videos", type=int, default=6)
    parser.add_argument("--questions", type=int, default=64)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    length = f"tokens of every answer of the small 3B (default {NEW_TOKENS})"
    parser.add_argument("--new-tokens", type=int, default=NEW_TOKENS, help=length)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        asked = write_questions(folder, options.videos, options.questions)
        assistant = make_assistant(options.model, folder, options.new_tokens, options.backend)
        for video in sorted({each.video for each in asked}):
            assistant.remember(video)
        app = make_app(assistant, ServeOptions(folder=folder / "server", max_waiting=1024), allowed=(folder,))
        with serving(app) as server:
            address = f"{server}/v1/chat/completions"
            expected = timed(address, asked, 1).answers
            timed(address, asked, options.clients)
            for _ in range(options.repeats):
                forget(assistant)
                alone = timed(address, asked, 1)
                assert alone.answers == expected
                forget(assistant)
                together = timed(address, asked, options.clients)
                different = sum(one != other for one, other in zip(together.answers, expected, strict=True))
                print(
                    f"{options.model}, {options.backend}: {len(asked)} questions about {options.videos} videos: one "
                    f"client {alone.wall:.2f} s (processor {alone.processor:.2f} s), {options.clients} clients "
                    f"{together.wall:.2f} s ({together.processor:.2f} s), ratio {together.wall / alone.wall:.2f} "
                    f"({together.processor / alone.processor:.2f}); {different} answers that differ",
                    flush=True,
                )


if __name__ == "__main__":
    main()
