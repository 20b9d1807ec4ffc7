"""What is asked about which videos, and how it is written into a conversation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from marc.compression import CompressionConfig
from marc.data.prompts import BARE_STYLE, Message, render_question
from marc.inference.seen import Footage
from marc.memory.live.snapshot import Watched
from marc.memory.question import counts_things
from marc.types import Clip

MEDIA = "media"
"""Type of the part of a message that stands for a video or picture, whichever it is."""
COUNTING_TIMES = 2
"""How many times as many single tokens a question that counts has, where their number follows from events."""


def budget_for(question: str, compression: CompressionConfig) -> CompressionConfig:
    """How a video is compressed for a question.

    Where the number of tokens follows from events and a rule keeps single ones (``auto``), more are kept for a
    question that counts: whoever looks one thing up or puts scenes in order has all that it takes long before
    (docs/log.md).

    Args:
        question: As it is asked.
        compression: For other questions.
    """
    each = compression.tokens_per_event
    if not compression.enabled or each is None or compression.rule is None or not counts_things(question):
        return compression
    return replace(compression, tokens_per_event=COUNTING_TIMES * each)


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
            part of the type `MEDIA` stands for each of the videos, in order. There need be none. Its last part is
            the text of the question.
        bare_prompt: What the model reads where the bare answer is asked for first (``think_below`` of
            `marc.types.GenerationOptions`); ``None``: the question in the style that does. A question with a
            ``prompt`` or ``messages`` of its own must have one.
    """

    video: Footage | Sequence[Footage]
    question: str
    prompt: str | None = None
    options: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    messages: tuple[Message, ...] = ()
    bare_prompt: str | None = None

    def text(self, style: str) -> str:
        """What the model reads of the question, in a prompt style where it is not written yet."""
        if self.messages:
            return str(self.messages[-1]["content"][-1]["text"])
        return render_question(self.question, style=style) if self.prompt is None else self.prompt

    def bare(self) -> Query:
        """The same question, of which the bare answer is asked.

        Raises:
            ValueError: If it is not known how that is written.
        """
        text = self.bare_prompt
        if text is None and (self.prompt is not None or self.messages):
            raise ValueError(
                "think_below: a question with a prompt of its own needs one for the bare answer, too (bare_prompt)"
            )
        if text is None:
            text = render_question(self.question, style=BARE_STYLE)
        if not self.messages:
            return replace(self, prompt=text)
        *before, last = self.messages
        parts = last["content"]
        is_list = isinstance(parts, list) and len(parts) > 0 and isinstance(parts[-1], dict)
        if not is_list or parts[-1].get("type") != "text":
            raise ValueError("think_below: the last message must be a list of parts that ends with a text")
        asked = {**last, "content": [*last["content"][:-1], {"type": "text", "text": text}]}
        return replace(self, messages=(*before, asked))


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
