"""``marc ask``: a question about a video, answered."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from marc.cli.options import Budget, Given, Part, command, compression_changes
from marc.compression.config import NEAR_DUPLICATES, CompressionConfig
from marc.memory.options import MemoryOptions, RetrievalOptions
from marc.types import GenerationOptions, ModelOptions
from marc.video.options import FrameOptions

if TYPE_CHECKING:
    from marc.types import Answer

Changes = Annotated[
    dict[str, Any],
    Part(record=CompressionConfig, otherwise="the model's", defaults={"duplicates": NEAR_DUPLICATES}),
]


@command(
    "ask",
    old={"--frames": "--max-frames", "--timeout": "--video-timeout", "--attention": "--attn-implementation"},
)
def ask(
    video: Annotated[Path, typer.Argument(help="A video file.")],
    question: Annotated[str, typer.Argument(help="A question in natural language.")],
    *,
    option: Annotated[list[str] | None, typer.Option(help="A possible answer, such as 'A. red'; repeat it.")] = None,
    prompt_style: Annotated[
        str | None, typer.Option(help="short, plain, video-r1 or video-r1-train.", show_default="the model's")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    storyboard: Annotated[Path | None, typer.Option(help="Draw what the model saw into this file.")] = None,
    no_compression: Annotated[
        bool, typer.Option("--no-compression", help="Read every visual token; the same as --budget full.")
    ] = False,
    no_memory: Annotated[bool, typer.Option("--no-memory", help="Sample the whole video evenly.")] = False,
    budget: Budget = None,
    model: ModelOptions,
    compression: Changes,
    frames: FrameOptions,
    memory: MemoryOptions,
    retrieval: RetrievalOptions,
    generation: GenerationOptions,
    given: Given,
) -> None:
    """Answer a question about a video, and report what it cost."""
    given.refuse_beside("--no-compression", no_compression, "budget", CompressionConfig)
    given.refuse_beside("--no-memory", no_memory, MemoryOptions, RetrievalOptions)
    given.refuse_beside("greedy decoding (--temperature 0)", generation.temperature == 0, "top_p", "seed")
    changes = compression_changes(given, compression, "full" if no_compression else budget)
    if not question.strip():
        raise ValueError("the question is empty")
    _check(video, frames.timeout, prompt_style, storyboard)

    from marc.cli.progress import share_bar
    from marc.inference.assistant import VideoAssistant

    with share_bar(f"cutting {video.name} into events") as progress:
        assistant = VideoAssistant.from_pretrained(
            model.name,
            compression=changes,
            frames=frames,
            generation=generation,
            memory=None if no_memory else memory,
            retrieval=retrieval,
            device=model.device,
            dtype=model.dtype,
            attn_implementation=model.attn_implementation,
            prompt_style=prompt_style,
            progress=progress,
        )
        query = assistant.query(video, question, options=option or [])
        ((answer, seen),) = assistant.answer_and_show([query])
    if storyboard is not None:
        from marc.inference.storyboard import save_storyboard

        save_storyboard(storyboard, question, answer, seen)
    for remark in answer.warnings:
        typer.echo(f"marc ask: {remark}", err=True)
    typer.echo(json.dumps(_as_json(answer)) if as_json else _as_text(answer))


def _check(video: Path, timeout: float, prompt_style: str | None, storyboard: Path | None) -> None:
    """Refuses, before a model is loaded, what would fail afterwards."""
    from marc.data.prompts import check_style
    from marc.video import probe

    check_style(prompt_style)
    if storyboard is not None:
        from marc.inference.storyboard import check_storyboard

        check_storyboard(storyboard)
    probe(video, timeout=timeout)


def _as_json(answer: Answer) -> dict[str, Any]:
    events = [{**asdict(event), "score": score} for event, score in zip(answer.events, answer.scores, strict=True)]
    return {**asdict(answer), "events": events}


def _as_text(answer: Answer) -> str:
    budget = "" if answer.visual_tokens_budget is None else f" of a budget of {answer.visual_tokens_budget}"
    lines = [
        answer.answer or "(the model gave no answer)",
        "",
        f"frames read      {answer.frames}",
        f"visual tokens    {answer.visual_tokens_before} -> {answer.visual_tokens_after}{budget}",
        f"prompt tokens    {answer.prompt_tokens_before} -> {answer.prompt_tokens_after}",
    ]
    if answer.events:
        scored = zip(answer.events, answer.scores, strict=True)
        lines.append("events retrieved " + ", ".join(f"{e.start:.1f}-{e.end:.1f} s ({s:.2f})" for e, s in scored))
    lines.append("seconds          " + ", ".join(f"{name} {value:.3f}" for name, value in answer.seconds.items()))
    lines.append(f"peak memory      {answer.peak_memory_bytes / 2**20:.0f} MiB")
    return "\n".join(lines)
