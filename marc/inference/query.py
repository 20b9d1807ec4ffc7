"""What is asked about which videos, and how it is written into a conversation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from marc.data.prompts import Message
from marc.inference.seen import Footage
from marc.memory.live.snapshot import Watched
from marc.types import Clip

MEDIA = "media"
"""Type of the part of a message that stands for a video or picture, whichever it is."""


@dataclass(frozen=True)
class Query:
    """A question about a video, or about several videos and pictures.

    Attributes:
        video: The file, a stretch of one, given frames, or a list of these, which are shown in order.
        question: What retrieval looks for.
        prompt: What the model reads; ``None``: the question in the assistant's prompt style.
        options: The answers that are offered in it.
        remarks: What the user should know about how it came about.
        messages: A conversation that ends with the question, in Hugging Face chat format, in place of ``prompt``; a
            part of the type `MEDIA` stands for each of the videos, in order. There need be none.
    """

    video: Footage | Sequence[Footage]
    question: str
    prompt: str | None = None
    options: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    messages: tuple[Message, ...] = ()


def with_kinds(messages: Sequence[Message], shown: Sequence[tuple[str, str]]) -> list[Message]:
    """A conversation in which each part that stands for a video or picture says which, and what is said in it."""
    left = iter(shown)
    filled = []
    for message in messages:
        content: list[Message] = []
        for part in message["content"]:
            if part["type"] == MEDIA:
                kind, said = next(left)
                content += [{"type": kind}, {"type": "text", "text": said}] if said else [{"type": kind}]
            else:
                content.append(part)
        filled.append({**message, "content": content})
    assert next(left, None) is None, "one part for each video"
    return filled


def stretch_of(
    video: Footage | Sequence[Footage], start: float | None, end: float | None
) -> Footage | Sequence[Footage]:
    """A video, or the part of it that is asked about."""
    if start is None and end is None:
        return video
    if isinstance(video, Watched):
        return video.snapshot().between(start, end)
    if not isinstance(video, str | Path):
        raise ValueError("start and end are for one file; for others give marc.Clip(file, start, end)")
    return Clip(video, start or 0.0, end)
