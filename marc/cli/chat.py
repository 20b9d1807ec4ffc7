"""``marc chat``: talking about videos in the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from marc.cli.ask import StretchOptions, check_files, clips_of
from marc.cli.options import Budget, Given, command
from marc.cli.output import echo
from marc.cli.setting import Changes, Setting
from marc.memory.options import MemoryOptions, RetrievalOptions
from marc.types import GenerationOptions, ModelOptions
from marc.video.options import FrameOptions, SubtitleOptions

if TYPE_CHECKING:
    from marc.inference.chat import Chat

PROMPT = "> "


@command("chat")
def chat(
    videos: Annotated[
        list[str],
        typer.Argument(
            help="Videos and pictures: files, folders, patterns, or @LIST as in `marc remember`.", metavar="VIDEO..."
        ),
    ],
    *,
    prompt_style: Annotated[
        str | None, typer.Option(help="short, plain, video-r1 or video-r1-train.", show_default="the model's")
    ] = None,
    thoughts: Annotated[bool, typer.Option("--thoughts", help="Show the reasoning before an answer, too.")] = False,
    no_memory: Annotated[bool, typer.Option("--no-memory", help="Sample the whole video evenly.")] = False,
    budget: Budget = None,
    stretch: StretchOptions,
    model: ModelOptions,
    compression: Changes,
    frames: FrameOptions,
    subtitles: SubtitleOptions,
    memory: MemoryOptions,
    retrieval: RetrievalOptions,
    generation: GenerationOptions,
    given: Given,
) -> None:
    """Talk about videos: a question a line, answered as the words come; an empty line or Ctrl-D ends it."""
    given.refuse_beside("greedy decoding (--temperature 0)", generation.temperature == 0, "top_p", "seed")
    setting = Setting.of(
        given,
        model=model,
        compression=compression,
        budget=budget,
        frames=frames,
        subtitles=subtitles,
        memory=None if no_memory else memory,
        retrieval=retrieval,
        generation=generation,
        prompt_style=prompt_style,
    )
    clips = clips_of(videos, stretch)
    check_files(clips, frames.timeout)

    from marc.cli.progress import share_bar

    with share_bar(f"cutting {Path(clips[0].source).name} into events") as progress:
        assistant = setting.load(progress)
        talk = assistant.chat(clips)
        said: set[str] = set()
        for question in _questions():
            _tell(talk, question, thoughts=thoughts)
            assert talk.answer is not None
            for remark in talk.answer.warnings:
                if remark not in said:
                    echo(f"marc chat: {remark}", err=True)
                    said.add(remark)


def _tell(talk: Chat, question: str, *, thoughts: bool) -> None:
    """Prints what is answered as it comes; if no answer was marked as one, what the model said."""
    from marc.inference.chat import answer_pieces

    pieces, is_told = talk.stream(question), False
    for piece in pieces if thoughts else answer_pieces(pieces):
        echo(piece, nl=False)
        is_told = is_told or bool(piece)
    assert talk.answer is not None
    echo("" if is_told else talk.answer.answer)


def _questions() -> Iterator[str]:
    """What the user types, line by line; without a terminal, what is piped."""
    import readline  # noqa: F401  # lines can be edited, and earlier ones called back

    while True:
        try:
            line = input(PROMPT)
        except EOFError:
            return
        if not line.strip():
            return
        yield line
