"""What commands print and write as JSON about answers and recalled events: one schema with a version.

`marc ask --json`, its batches, `marc recall --json` and the rows of evaluation use these records; docs/schema.json is
derived from them (tests/test_records.py). Within a version fields are only added.

Times are seconds from the first picture of the file that they belong to.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from marc.types import Answer, MemoryKind, QuestionScope, ShownVideo
from marc.version import __version__

ANSWER: Literal["marc.answer.v1"] = "marc.answer.v1"
RECALL: Literal["marc.recall.v1"] = "marc.recall.v1"
FAILURE: Literal["marc.failure.v1"] = "marc.failure.v1"


@dataclass(frozen=True)
class EventRecord:
    """An event that was found for a question.

    Attributes:
        source: The video.
        start: Where it begins.
        end: Where it ends, exclusive.
        score: Cosine similarity of the question with its pictures, in [-1, 1].
        text: What is said in it by the subtitles that were used.
        frames: How many of the frames that were read show what is seen in it.
        picture: The file with a picture of it, where one was written.
    """

    source: str
    start: float
    end: float
    score: float
    text: str = ""
    frames: int = 0
    picture: str = ""


@dataclass(frozen=True)
class VideoRecord:
    """What was shown of a video or picture.

    Attributes:
        source: The file, or what stands for it where frames were given.
        kind: A video or an image.
        start: Where the stretch that was asked about begins; 0 of an image.
        end: Where it ends; 0 of an image.
        frame_seconds: Time of each frame that was read.
        grid_events: Event to which each pair of frames belongs: equal numbers, one event; empty if not segmented.
        grid_groups: Merged grid in which each pair of frames ended: equal numbers, merged into one; -1: nothing of it
            was kept.
        visual_tokens_before: Visual tokens without compression.
        visual_tokens_after: Visual tokens that were read.
        visual_tokens_budget: Visual tokens that it might have had; null without a limit.
        prompt_tokens_before: Tokens in the prompt without compression, marks and timestamps among them.
        prompt_tokens_after: Tokens in the prompt.
        subtitles: Where the subtitles are from that were used; empty without.
        subtitle_tokens: Tokens of its subtitles in the prompt, not among prompt_tokens_after.
        memory: Which memory of it was asked: of all its frames, or of some key frames because it was new; null: none.
        scope: What the question was taken to be about: moments, which are retrieved, or all of it, by evenly spread
            frames; null: that was not asked, as without a memory, of a watched source, or of what was recalled.
    """

    source: str
    kind: Literal["video", "image"]
    start: float
    end: float
    frame_seconds: tuple[float, ...]
    grid_events: tuple[int, ...]
    grid_groups: tuple[int, ...]
    visual_tokens_before: int
    visual_tokens_after: int
    visual_tokens_budget: int | None
    prompt_tokens_before: int
    prompt_tokens_after: int
    subtitles: str
    subtitle_tokens: int
    memory: MemoryKind | None = None
    scope: QuestionScope | None = None

    @classmethod
    def of(cls, shown: ShownVideo) -> VideoRecord:
        """The record of what was shown."""
        values = asdict(shown)
        return cls(**{name: values[name] for name in cls.__dataclass_fields__})


@dataclass(frozen=True)
class AnswerRecord:
    """An answer and what it cost. Counts are those of all videos together.

    Attributes:
        schema: Name and version of this schema.
        marc: Version of the package.
        model: Name of the model.
        question: What was asked.
        options: The answers that were offered; none of a free question.
        answer: The extracted answer.
        output: The model's whole output.
        frames: Frames that were read.
        visual_tokens_before: Visual tokens without compression.
        visual_tokens_after: Visual tokens that were read.
        visual_tokens_budget: Visual tokens that there might have been; null without a limit.
        prompt_tokens_before: Tokens of the videos in the prompt without compression.
        prompt_tokens_after: Tokens of the videos in the prompt.
        input_tokens: Tokens of the whole prompt.
        output_tokens: Tokens of the output.
        is_cut: Whether the output ended because it was as long as it might be.
        seconds: Wall time by stage; "total" is the whole.
        peak_memory_bytes: Peak memory of the device, of the process on a CPU.
        events: The events that were found for the question, video by video in time order.
        videos: What was shown, in the order of the question.
        warnings: What the user should know about the answer.
        probability: Of the bare answer that was asked for first, the product of its tokens', or of its beginning
            where that was too little already; null: it was not.
        has_thought: Whether it was too little, so that the model was asked to think; null: likewise.
        generated_tokens: Tokens that were generated in all, those of a bare answer that did not count among
            them; null: not known.
    """

    schema: Literal["marc.answer.v1"]
    marc: str
    model: str
    question: str
    options: tuple[str, ...]
    answer: str
    output: str
    frames: int
    visual_tokens_before: int
    visual_tokens_after: int
    visual_tokens_budget: int | None
    prompt_tokens_before: int
    prompt_tokens_after: int
    input_tokens: int
    output_tokens: int
    is_cut: bool
    seconds: Mapping[str, float]
    peak_memory_bytes: int
    events: tuple[EventRecord, ...]
    videos: tuple[VideoRecord, ...]
    warnings: tuple[str, ...]
    probability: float | None = None
    has_thought: bool | None = None
    generated_tokens: int | None = None

    @classmethod
    def of(cls, answer: Answer, pictures: Sequence[str] = ()) -> AnswerRecord:
        """The record of an answer.

        Args:
            answer: The answer.
            pictures: Files with a picture of each event, where they were written.
        """
        values = {name: getattr(answer, name) for name in cls.__dataclass_fields__ if hasattr(answer, name)}
        events = [record for shown in answer.videos for record in _events(shown)]
        if pictures:
            events = [replace(event, picture=file) for event, file in zip(events, pictures, strict=True)]
        videos = tuple(map(VideoRecord.of, answer.videos))
        return cls(**{**values, "schema": ANSWER, "marc": __version__, "events": tuple(events), "videos": videos})


@dataclass(frozen=True)
class RecallRecord:
    """The events of all remembered videos that are nearest to a question, best first.

    Attributes:
        schema: Name and version of this schema.
        marc: Version of the package.
        question: What was asked.
        embedder: The dual encoder.
        events: What was found.
        warnings: What the user should know about it.
        page: Which part of all events it is, from 1.
        next_page: What to say to have the part behind it, of the same version of the library; null if it is the last.
    """

    schema: Literal["marc.recall.v1"]
    marc: str
    question: str
    embedder: str
    events: tuple[EventRecord, ...]
    warnings: tuple[str, ...] = ()
    page: int = 1
    next_page: str | None = None

    @classmethod
    def of(
        cls, question: str, embedder: str, events: Iterable[EventRecord], warnings: Iterable[str] = ()
    ) -> RecallRecord:
        """The record of what was found, a first page without another."""
        return cls(RECALL, __version__, question, embedder, tuple(events), tuple(warnings))


@dataclass(frozen=True)
class FailureRecord:
    """A question that could not be answered, in a batch or an evaluation.

    Attributes:
        schema: Name and version of this schema.
        marc: Version of the package.
        status: That it failed.
        reason: Why.
    """

    schema: Literal["marc.failure.v1"]
    marc: str
    status: Literal["failed"]
    reason: str

    @classmethod
    def of(cls, reason: str) -> FailureRecord:
        """The record of a reason."""
        return cls(FAILURE, __version__, "failed", reason)


def as_json(record: EventRecord | AnswerRecord | RecallRecord | FailureRecord) -> dict[str, Any]:
    """A record as plain values, for ``json.dumps``."""
    return asdict(record)


def _events(shown: ShownVideo) -> Iterable[EventRecord]:
    texts = shown.event_texts or ("",) * len(shown.events)
    counts = shown.event_frames or (0,) * len(shown.events)
    for event, score, text, frames in zip(shown.events, shown.scores, texts, counts, strict=True):
        yield EventRecord(shown.source, event.start, event.end, score, text, frames)
