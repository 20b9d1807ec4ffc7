"""``marc ask``: a question about a video, answered."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from marc.cli.options import given, number_of_events, refuse_beside, whole_number

if TYPE_CHECKING:
    from marc.types import Answer


def ask(
    video: Annotated[Path, typer.Argument(help="A video file.")],
    question: Annotated[str, typer.Argument(help="A question in natural language.")],
    option: Annotated[list[str] | None, typer.Option(help="A possible answer, such as 'A. red'; repeat it.")] = None,
    model: Annotated[str, typer.Option(help="'tiny' (embedded), a folder, or a hub name.")] = "tiny",
    layout: Annotated[str | None, typer.Option(help="events or frames.  [default: the model's]")] = None,
    target_frames: Annotated[int | None, typer.Option(help="Budget in frames.  [default: the model's]")] = None,
    visual_tokens: Annotated[int | None, typer.Option(help="Budget in tokens.  [default: one frame's]")] = None,
    tower_layer: Annotated[
        str | None,
        typer.Option(help="Merge inside the vision tower after so many blocks, or by a schedule: 4:16,8:4."),
    ] = None,
    duplicates: Annotated[
        float | None,
        typer.Option(help="Encode frames once that differ by no more.  [default: 0.1; 0: equal frames only]"),
    ] = None,
    no_compression: Annotated[bool, typer.Option("--no-compression", help="Read every visual token.")] = False,
    frames: Annotated[int, typer.Option(help="Most frames to read.", min=2)] = 64,
    fps: Annotated[float, typer.Option(help="Frames per second to read.")] = 2.0,
    min_pixels: Annotated[int | None, typer.Option(help="Smallest area of a frame.  [default: 4 tokens]")] = None,
    max_pixels: Annotated[int | None, typer.Option(help="Largest area of a frame.  [default: the model's]")] = None,
    decoder: Annotated[str, typer.Option(help="pyav, decord or torchcodec.")] = "pyav",
    timeout: Annotated[float, typer.Option(help="Seconds after which decoding is given up.")] = 60.0,
    no_memory: Annotated[bool, typer.Option("--no-memory", help="Sample the whole video evenly.")] = False,
    k: Annotated[str | None, typer.Option(help="Events to retrieve, or auto.  [default: 3]")] = None,
    embedder: Annotated[str | None, typer.Option(help="Dual encoder of the memory.  [default: the model's]")] = None,
    memory_folder: Annotated[Path | None, typer.Option(help="Where memories are.  [default: beside it]")] = None,
    max_event_seconds: Annotated[
        float | None,
        typer.Option(help="Split longer events; a small budget of tokens wants few events.  [default: 20]"),
    ] = None,
    min_event_seconds: Annotated[float | None, typer.Option(help="Join shorter events.  [default: 2]")] = None,
    segmenter: Annotated[
        str | None, typer.Option(help="transnetv2, scenedetect or uniform.  [default: transnetv2]")
    ] = None,
    seconds_per_frame: Annotated[
        float | None, typer.Option(help="Embed one frame in so many seconds.  [default: 4]")
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, …  [default: the GPU if there is one]")] = None,
    dtype: Annotated[str | None, typer.Option(help="Of the weights, such as bfloat16.")] = None,
    attention: Annotated[str | None, typer.Option(help="sdpa, eager or flash_attention_2.")] = None,
    prompt_style: Annotated[
        str | None, typer.Option(help="short, plain, video-r1 or video-r1-train.  [default: the model's]")
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(help="Longest output.", min=1)] = 256,
    temperature: Annotated[float, typer.Option(help="0 is greedy.")] = 0.0,
    seed: Annotated[int | None, typer.Option(help="Of the sampling.  [default: 0]")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    storyboard: Annotated[Path | None, typer.Option(help="Draw what the model saw into this file.")] = None,
) -> None:
    """Answer a question about a video, and report what it cost."""
    from marc.cli.errors import user_errors
    from marc.memory import MemoryOptions

    with user_errors("marc ask"):
        compression = given(
            layout=layout,
            target_frames=target_frames,
            visual_tokens=visual_tokens,
            tower_layer=tower_layer and _schedule(tower_layer),
            duplicates=duplicates,
        )
        cutting = given(
            max_event_seconds=max_event_seconds,
            min_event_seconds=min_event_seconds,
            segmenter=segmenter,
            seconds_per_frame=seconds_per_frame,
        )
        remembered = given(k=k, embedder=embedder, memory_folder=memory_folder) | cutting
        refuse_beside("--no-compression", no_compression, compression)
        refuse_beside("--no-memory", no_memory, remembered)
        refuse_beside("greedy decoding (--temperature 0)", temperature == 0, given(seed=seed))
        if storyboard is not None:
            from marc.inference.storyboard import check_storyboard

            check_storyboard(storyboard)
        answer = _answer(
            video,
            question,
            option or [],
            storyboard,
            assistant={
                "model_name": model,
                "memory": not no_memory,
                "embedder_name": embedder,
                "k": number_of_events("3" if k is None else k),
                "memory_folder": memory_folder,
                "memory_options": MemoryOptions(**{name.replace("_event_", "_"): cutting[name] for name in cutting}),
                "prompt_style": prompt_style,
                "device": device,
                "dtype": dtype,
                "attn_implementation": attention,
                "compression": {"target_frames": None} if no_compression else compression,
            },
            frames={
                "fps": fps,
                "max_frames": frames,
                "min_pixels": min_pixels,
                "max_pixels": max_pixels,
                "backend": decoder,
                "timeout": timeout,
            },
            generation={"max_new_tokens": max_new_tokens, "temperature": temperature, "seed": seed or 0},
        )
    typer.echo(json.dumps(_as_json(answer)) if as_json else _as_text(answer))


def _answer(
    video: Path,
    question: str,
    options: list[str],
    storyboard: Path | None,
    *,
    assistant: dict[str, Any],
    frames: dict[str, Any],
    generation: dict[str, Any],
) -> Answer:
    from marc.video import probe

    probe(video, timeout=frames["timeout"])

    from marc.cli.progress import share_bar
    from marc.inference.assistant import FrameOptions, VideoAssistant
    from marc.types import GenerationOptions

    helper = VideoAssistant(
        frames=FrameOptions(**frames),
        generation=GenerationOptions(**generation),
        **assistant,
    )
    with share_bar(f"cutting {video.name} into events") as helper.progress:
        answer = helper.ask(video, question, options=options)
    if storyboard is not None:
        from marc.inference.storyboard import save_storyboard

        save_storyboard(storyboard, question, answer, *helper.view(video, question))
    return answer


def _schedule(text: str) -> int | dict[int, int]:
    if ":" not in text:
        return whole_number("--tower-layer", text, " or a schedule such as 4:16,8:4")
    stages = [stage.split(":") for stage in text.split(",")]
    if not all(len(stage) == 2 and all(number.isdecimal() for number in stage) for stage in stages):
        raise ValueError(f"--tower-layer must be a number of blocks or a schedule such as 4:16,8:4, got {text!r}")
    return {int(layer): int(frames) for layer, frames in stages}


def _as_json(answer: Answer) -> dict[str, Any]:
    events = [{**asdict(event), "score": score} for event, score in zip(answer.events, answer.scores, strict=True)]
    return {**asdict(answer), "events": events}


def _as_text(answer: Answer) -> str:
    lines = [
        answer.answer or "(the model gave no answer)",
        "",
        f"frames read      {answer.frames}",
        f"visual tokens    {answer.visual_tokens_before} -> {answer.visual_tokens_after}",
    ]
    if answer.events:
        scored = zip(answer.events, answer.scores, strict=True)
        lines.append("events retrieved " + ", ".join(f"{e.start:.1f}-{e.end:.1f} s ({s:.2f})" for e, s in scored))
    lines.append("seconds          " + ", ".join(f"{name} {value:.3f}" for name, value in answer.seconds.items()))
    lines.append(f"peak memory      {answer.peak_memory_bytes / 2**20:.0f} MiB")
    return "\n".join(lines)
