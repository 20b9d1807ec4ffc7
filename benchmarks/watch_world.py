"""What a watched source is worth against "the last four frames": a micro-world that does not end.

Scenes follow one another for minutes. At random moments two questions are asked, one about a scene that is over and
one about the scene that is shown, of the embedded model: from the live memory, at its usual budget, and from the last
four frames with every token of them (SimpleStream, the baseline). Frames are pushed as a camera would, detector,
retrieval and JPEG included. A stream's outcome is a line of the output file; a run that was stopped goes on behind it.

Run: ``python -m benchmarks.watch_world OUTPUT.jsonl --streams 12``; the result is in docs/watch.md.
"""

from __future__ import annotations

import json
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from marc import VideoAssistant
from marc.inference.live import last_frames
from marc.io import append_line, drop_torn_line, parse_json, whole_lines
from marc.memory.embedder import EventEmbedder
from marc.memory.live import LiveMemory, Source
from marc.world.export import FileOptions
from marc.world.questions import WorldQuestion
from marc.world.renderer import render_video
from marc.world.scenes import WorldVideo, video_rng
from marc.world.streams import past_question, present_question, sample_stream, scene_ends

FIRST_MOMENT = 30.0
QUESTION_STREAM = 3_000_000_000
TOLERANCE = 0.1
"""Seconds by which an event's end may miss its cut."""


@dataclass
class Outcome:
    """What a stream came to.

    Attributes:
        right: By kind of question and system, whether each answer was right.
        seconds: From the last frame to each answer from the memory.
        found: Cuts that ended an event, of all cuts between scenes.
        delays: Seconds of the stream from each of these cuts until its event was closed.
    """

    right: dict[str, list[bool]] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    found: list[bool] = field(default_factory=list)
    delays: list[float] = field(default_factory=list)


class Examiner:
    """Asks both systems and keeps count."""

    def __init__(self) -> None:
        self.live = VideoAssistant.from_pretrained(device="cpu")
        self.recent = VideoAssistant.from_pretrained(device="cpu", memory=None, compression={"budget": "full"})
        self.live.warm_up()
        self.embedder = EventEmbedder.from_pretrained("tiny", device="cpu")

    def ask(self, kind: str, question: WorldQuestion, memory: LiveMemory, outcome: Outcome) -> None:
        """Asks a question of the memory and of the last four frames."""
        begin = time.perf_counter()
        answer = self.live.ask(memory, question.text, options=question.options).answer
        outcome.seconds.append(time.perf_counter() - begin)
        outcome.right.setdefault(f"{kind}, memory", []).append(answer == question.answer)
        last = last_frames(memory.snapshot())
        answer = self.recent.ask(last, question.text, options=question.options).answer
        outcome.right.setdefault(f"{kind}, last four frames", []).append(answer == question.answer)


def watch_stream(video: WorldVideo, moments: list[float], examiner: Examiner, memory: LiveMemory) -> Outcome:
    """Pushes a stream frame by frame and asks at some moments."""
    options, outcome = FileOptions(), Outcome()
    rng = video_rng("easy", "test", len(video.events), QUESTION_STREAM + int(video.name.rsplit("-", 1)[1]))
    frames, waiting = render_video(video, scale=options.scale).numpy(), list(moments)
    closed: dict[float, float] = {}
    for number in range(len(frames) * options.hold):
        second = number / options.fps
        memory.push(frames[number // options.hold], second)
        for event in memory.snapshot().events[len(closed) :]:
            closed[event.span.end] = second
        if waiting and second >= waiting[0]:
            waiting.pop(0)
            for kind, draw in (("past", past_question), ("present", present_question)):
                if (question := draw(video, second, rng)) is not None:
                    examiner.ask(kind, question, memory, outcome)
    for cut in scene_ends(video)[:-1]:
        ends = [end for end in closed if abs(end - cut) <= TOLERANCE]
        outcome.found.append(bool(ends))
        outcome.delays += [closed[end] - cut for end in ends[:1]]
    return outcome


def main(
    output: Annotated[Path, typer.Argument(help="Where each stream's outcome goes, a line each.")],
    streams: Annotated[int, typer.Option(min=1, help="How many.")] = 12,
    scenes: Annotated[int, typer.Option(min=6, help="Of a stream.")] = 16,
    questions: Annotated[int, typer.Option(min=1, help="Moments of a stream at which is asked.")] = 25,
    seed: Annotated[int, typer.Option(help="Another seed is other streams.")] = 1,
) -> None:
    """Ask about streams, and print how many answers were right."""
    drop_torn_line(output)
    done = [parse_json(line, output) for line in whole_lines(output)] if output.exists() else []
    if len(done) < streams:
        examiner = Examiner()
    for index in range(len(done), streams):
        video = sample_stream("test", seed, index, scenes)
        rng = np.random.default_rng([seed, index])
        moments = np.sort(rng.uniform(FIRST_MOMENT, scene_ends(video)[-1] - 1, questions)).tolist()
        with tempfile.TemporaryDirectory() as folder:
            memory = LiveMemory(video.name, examiner.embedder, folder=folder, source=Source(rate=FileOptions().fps))
            outcome = watch_stream(video, moments, examiner, memory)
            memory.close()
        append_line(output, json.dumps({"stream": index, **vars(outcome)}))
        done.append(json.loads(json.dumps(vars(outcome))))
        report(done)


def report(done: list[dict]) -> None:
    """Prints a table of all streams so far."""
    print(f"\n{len(done)} streams\n\n| questions | right | of |\n|---|---|---|")
    for name in sorted({name for each in done for name in each["right"]}):
        right = [one for each in done for one in each["right"].get(name, [])]
        print(f"| {name} | {100 * np.mean(right):.1f} % | {len(right)} |")
    seconds, delays = (np.array([one for each in done for one in each[name]]) for name in ("seconds", "delays"))
    found = [one for each in done for one in each["found"]]
    print(f"\nanswers from the memory: median {np.median(seconds):.2f} s, longest {seconds.max():.2f} s")
    print(f"cuts found: {sum(found)} of {len(found)}; event closed {delays.mean():.2f} s after its cut on average, ")
    print(f"{delays.max():.2f} s at most, in seconds of the stream", flush=True)


if __name__ == "__main__":
    typer.run(main)
