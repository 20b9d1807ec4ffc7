"""Requests of many clients at once against one client that asks in turn, on one server.

    python -m benchmarks.serving_benchmark --repeats 3

starts `marc serve`'s application on loopback with the embedded model, writes generated videos, asks the same questions
about them by one client in turn and by several clients at once, alternating, and prints the seconds of both and their
ratio, round by round. Everything is remembered beforehand; what was encoded is forgotten before each round. Every
answer is compared with that of the first round.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil
from pathlib import Path

from marc.extras import extra
from marc.inference.assistant import VideoAssistant
from marc.memory.options import MemoryOptions, RetrievalOptions
from marc.serving.app import make_app
from marc.serving.options import ServeOptions
from marc.world.export import write_sample


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


@contextmanager
def serving(assistant: VideoAssistant, folder: Path, allowed: Path) -> Iterator[str]:
    """A running server; gives its address."""
    with extra("serve"):
        import uvicorn
    options = ServeOptions(folder=folder, max_waiting=1024)
    server = uvicorn.Server(
        uvicorn.Config(make_app(assistant, options, allowed=(allowed,)), port=0, log_level="warning")
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/v1/chat/completions"
    finally:
        server.should_exit = True
        thread.join()


def ask(address: str, asked: Asked) -> str:
    """One request; gives the answer."""
    content = [{"type": "video_url", "video_url": {"url": str(asked.video)}}, {"type": "text", "text": asked.question}]
    body = json.dumps({"messages": [{"role": "user", "content": content}]}).encode()
    request = urllib.request.Request(address, body, {"content-type": "application/json"})
    with urllib.request.urlopen(request) as reply:
        answer: str = json.load(reply)["choices"][0]["message"]["content"]
    return answer


def timed(address: str, asked: Sequence[Asked], clients: int) -> tuple[float, list[str]]:
    """Seconds until so many clients have all answers, and these."""
    begun = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        answers = list(pool.map(lambda each: ask(address, each), asked))
    return time.perf_counter() - begun, answers


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of ``python -m benchmarks.serving_benchmark``."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--videos", type=int, default=6)
    parser.add_argument("--questions", type=int, default=64)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        asked = write_questions(folder, options.videos, options.questions)
        assistant = VideoAssistant.from_pretrained(
            memory=MemoryOptions(segmenter="uniform"),
            retrieval=RetrievalOptions(folder=str(folder / "memories")),
            device="cpu",
        )
        for video in sorted({each.video for each in asked}):
            assistant.remember(video)
        with serving(assistant, folder / "server", folder) as address:
            _, expected = timed(address, asked, 1)
            for _ in range(options.repeats):
                assistant.forget()
                alone, answers = timed(address, asked, 1)
                assert answers == expected
                assistant.forget()
                together, answers = timed(address, asked, options.clients)
                different = sum(one != other for one, other in zip(answers, expected, strict=True))
                print(
                    f"{len(asked)} questions about {options.videos} videos: one client {alone:.2f} s, "
                    f"{options.clients} clients {together:.2f} s, ratio {together / alone:.2f}; {different} answers "
                    "that differ",
                    flush=True,
                )


if __name__ == "__main__":
    main()
