"""What clients say, as OpenAI's clients say it, with fields of our own under ``marc``."""

from __future__ import annotations

import re
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from marc.compression.config import Layout, override_compression
from marc.data.prompts import BARE_STYLE, check_style, render_question
from marc.inference.query import MEDIA, Query
from marc.memory.live import LiveSnapshot
from marc.serving.desk import Setting
from marc.serving.media import MediaStore, RefusedError
from marc.types import Clip, GenerationOptions
from marc.video.options import SubtitleOptions
from marc.video.times import seconds_of

WATCHED = "watch:"
"""How the name of a watched source begins where an address may stand."""
_ADDRESS = re.compile("https?://", re.IGNORECASE)


def _seconds(given: Any) -> Any:
    return seconds_of(given, "it") if isinstance(given, str) else given


Seconds = Annotated[float, BeforeValidator(_seconds)]
"""A time: seconds, or a text as behind `marc ask --start`."""


class MediaURL(BaseModel):
    """Where a video or picture is.

    Attributes:
        url: A data URL, the id of an uploaded file, an allowed path, or ``watch:NAME``.
    """

    url: str


class FileName(BaseModel):
    """An uploaded file.

    Attributes:
        file_id: What the upload was answered with.
    """

    file_id: str


class ContentPart(BaseModel):
    """A text, video, picture or file in a message; exactly the field of its type is there."""

    type: Literal["text", "video_url", "image_url", "file"]
    text: str | None = None
    video_url: MediaURL | None = None
    image_url: MediaURL | None = None
    file: FileName | None = None

    @property
    def media(self) -> MediaURL | None:
        """The address of what it shows; None of a text and of an uploaded file."""
        return {"video_url": self.video_url, "image_url": self.image_url}.get(self.type)

    @property
    def url(self) -> str | None:
        """Where the file is that it shows; None of a text."""
        if self.type == "file":
            return self.file.file_id if self.file else None
        return self.media.url if self.media else None


class ChatMessage(BaseModel):
    """One turn."""

    role: Literal["system", "user", "assistant", "developer"]
    content: str | list[ContentPart]

    @property
    def parts(self) -> list[ContentPart]:
        """What it consists of."""
        return [ContentPart(type="text", text=self.content)] if isinstance(self.content, str) else self.content

    @property
    def text(self) -> str:
        """What is written in it."""
        return "\n".join(part.text for part in self.parts if part.text)


class Extras(BaseModel):
    """What OpenAI's interface has no word for.

    Attributes:
        budget: What a video may cost, in the grammar of `marc ask --budget`.
        layout: As of `marc ask --layout`.
        prompt_style: In which questions are put to the model, by default its own; ``"plain"`` leaves them as they are.
        k: Events to retrieve.
        start: Where the stretch begins that is asked about, in seconds or as ``"1:02:03.5"``; of the one video.
        end: Where it ends.
        subtitles: ``"auto"`` or ``"none"``.
        subtitles_in_prompt: Write what is said into the prompt.
        think_below: As of `marc ask --think-below`. What the server was started with holds where a request names
            neither this nor a prompt style.
    """

    model_config = ConfigDict(extra="forbid")

    budget: str | None = None
    layout: Layout | None = None
    prompt_style: str | None = None
    k: int | Literal["auto"] | None = None
    start: Seconds | None = None
    end: Seconds | None = None
    subtitles: Literal["auto", "none"] | None = None
    subtitles_in_prompt: bool | None = None
    think_below: float | None = None

    @model_validator(mode="before")
    @classmethod
    def _has_known_fields(cls, given: Any) -> Any:
        unknown = [name for name in given if name not in cls.model_fields] if isinstance(given, dict) else []
        if unknown:
            raise ValueError(f"no field is called {unknown[0][:80]}; known are {', '.join(cls.model_fields)}")
        return given

    @model_validator(mode="after")
    def _is_a_stretch(self) -> Extras:
        if not 0 <= (self.start or 0.0) < (inf if self.end is None else self.end):
            raise ValueError("a stretch needs 0 <= start < end")
        return self


class StreamOptions(BaseModel):
    """How a stream ends.

    Attributes:
        include_usage: With the numbers of tokens.
    """

    include_usage: bool = False


class ChatRequest(BaseModel):
    """What ``POST /v1/chat/completions`` takes; further fields of OpenAI's are ignored."""

    model: str | None = None
    messages: list[ChatMessage] = Field(min_length=1)
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0)
    top_p: float | None = Field(None, gt=0, le=1)
    seed: int | None = None
    n: Literal[1] = 1
    stream: bool = False
    stream_options: StreamOptions | None = None
    marc: Annotated[Extras, BeforeValidator(lambda given: {} if given is None else given)] = Extras()

    @property
    def addresses(self) -> list[MediaURL]:
        """Where files are that have to be fetched."""
        shown = [part.media for message in self.messages for part in message.parts if part.media is not None]
        return [media for media in shown if _ADDRESS.match(media.url)]

    def setting(self, usual: Setting) -> Setting:
        """How it is to be answered.

        Raises:
            ValueError: If a budget or a number is none.
        """
        extras, generation = self.marc, usual.generation
        longest = self.max_completion_tokens or self.max_tokens or generation.max_new_tokens
        given = {"temperature": self.temperature, "top_p": self.top_p, "seed": self.seed}
        changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        if extras.prompt_style is not None or extras.think_below is not None:
            changes["think_below"] = extras.think_below
        if extras.k is not None and extras.k != "auto" and extras.k < 1:
            raise RefusedError("marc.k must be at least 1 or auto")
        wanted = {"layout": extras.layout, "budget": extras.budget}
        named = {name: value for name, value in wanted.items() if value is not None}
        compression = override_compression(usual.compression, named)
        subtitles = SubtitleOptions(
            extras.subtitles or usual.subtitles.choice,
            usual.subtitles.in_prompt if extras.subtitles_in_prompt is None else extras.subtitles_in_prompt,
        )
        sampled: GenerationOptions = replace(generation, max_new_tokens=longest, **changes)
        return Setting(sampled, compression, extras.k or usual.k, subtitles)

    def query(self, media: MediaStore, style: str) -> Query:
        """What is asked.

        Args:
            media: Has the files.
            style: The model's prompt style.

        Raises:
            RefusedError: If the last turn is no question, or a file may not be read.
        """
        last = self.messages[-1]
        if last.role != "user" or not last.text.strip():
            raise RefusedError("the last message must be a user's, with a text: the question")
        urls = [part.url for message in self.messages for part in message.parts if part.url is not None]
        if (self.marc.start is not None or self.marc.end is not None) and len(urls) != 1:
            raise RefusedError("marc.start and marc.end are for one video")
        start, end = self.marc.start or 0.0, self.marc.end
        clips = tuple(_shown(url, media, start, end) for url in urls)
        check_style(self.marc.prompt_style)
        turns = [_chat_message(message, self.marc.prompt_style or style) for message in self.messages]
        bare = render_question(last.text, style=BARE_STYLE)
        return Query(clips, last.text, messages=tuple(turns), bare_prompt=bare)


def _shown(url: str, media: MediaStore, start: float, end: float | None) -> Clip | LiveSnapshot:
    """A file, or a watched source as it is now."""
    if url.startswith(WATCHED):
        return media.watched(url.removeprefix(WATCHED)).between(start, end)
    return Clip(media.find(url), start, end)


def _chat_message(message: ChatMessage, style: str) -> dict[str, Any]:
    """A turn in Hugging Face chat format: files, and then a user's text in a prompt style."""
    files = [{"type": MEDIA} for part in message.parts if part.url is not None]
    text = render_question(message.text, style=style) if message.role == "user" else message.text
    role = "system" if message.role == "developer" else message.role
    return {"role": role, "content": [*files, {"type": "text", "text": text}]}


def names_of(query: Query) -> dict[Path, str]:
    """What files are called in messages to the client, who does not know their paths."""
    assert isinstance(query.video, tuple)
    numbered = enumerate(query.video, 1)
    return {Path(clip.source): f"video {number}" for number, clip in numbered if isinstance(clip, Clip)}
