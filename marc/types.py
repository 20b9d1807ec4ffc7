"""The typed records that the stages hand to each other: plain data, no behaviour beyond simple derived values.

Units: times are seconds from the start of the video (float), intervals are half-open ``[start, end)``, pictures are
RGB ``uint8``. Only numpy is imported here, so that everything may depend on this file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from math import inf
from numbers import Real
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray

from marc.options import Limits, Named, OptionError, check

Dtype = Literal["float32", "bfloat16", "float16"]
"""Types of weights, as torch and recipes write them."""
EngineName = Literal["hf", "vllm"]
"""What runs a model: transformers, or vLLM."""
FRAMES_PER_GRID = 2
"""Frames of one temporal grid: what the vision towers of all model families read together."""
GENERATED = (224, 224, 20.0)
"""Width, height and frames a second of the files that ``marc world`` writes by default."""
VISION_MARKS = 2
"""Tokens around a video's or image's placeholder in the prompt, which say where it begins and ends."""


@dataclass(frozen=True)
class VideoInfo:
    """What `marc.video.probe` reads from a file without decoding it.

    Attributes:
        source: Path of the file, as given.
        width: Width in pixels as shown, after rotation metadata is applied.
        height: Height in pixels as shown, after rotation metadata is applied.
        duration: Length in seconds.
        fps: Average frame rate in frames per second.
        frame_count: Number of frames, from the container or estimated as ``duration * fps``.
        codec: FFmpeg's name of the codec, such as ``"h264"``.
        rotation: Clockwise degrees (0, 90, 180, 270) by which the stored picture is turned to be shown.
        starts: When each picture is first shown, in seconds, where the file has few of them at a rate that varies (a
            screen recording, slides); empty where the rate is constant or there are many.
    """

    source: str
    width: int
    height: int
    duration: float
    fps: float
    frame_count: int
    codec: str
    rotation: int = 0
    starts: tuple[float, ...] = ()

    @property
    def may_be_generated(self) -> bool:
        """Whether it has the size and rate of files that ``marc world`` writes by default."""
        return (self.width, self.height, self.fps) == GENERATED


@dataclass(frozen=True)
class ModelOptions:
    """Which model is loaded, and how.

    Attributes:
        name: ``"tiny"`` (embedded), a folder, or a hub name such as Qwen/Qwen2.5-VL-3B-Instruct.
        device: Where everything runs, such as ``"cpu"`` or ``"cuda:1"``; ``None``: the GPU if there is one.
        dtype: Of the weights; ``None``: bfloat16 on a GPU, float32 on a CPU.
        attn_implementation: As in transformers, ``"sdpa"``, ``"eager"`` or ``"flash_attention_2"``; ``None``: what
            transformers chooses.
        backend: The engine: transformers (``"hf"``), or vLLM in an environment of its own, see docs/vllm.md.
    """

    name: Annotated[str, Named("model")] = "tiny"
    device: str | None = None
    dtype: Dtype | None = None
    attn_implementation: str | None = None
    backend: EngineName = "hf"

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class GenerationOptions:
    """How answers are generated.

    Attributes:
        max_new_tokens: Longest output in tokens.
        temperature: 0 is greedy decoding. The paper's setting is 0.01.
        top_p: Nucleus, unused when greedy. The paper's setting is 0.001.
        seed: Of the sampling.
        static: Keep keys and values in tensors of fixed size. On a GPU transformers then compiles the decoding step,
            which takes a minute once and pays for many questions; on a CPU it gains nothing.
        think_below: Ask for the bare answer first, and to think only where its probability, the product of its
            tokens', is less than this: 0 never thinks, more than 1 always does. The prompt style must be one that asks
            to think, such as video-r1. ``None``: the question is asked once.
        repetition_penalty: By what the scores of tokens are divided that the prompt or the answer has already
            (multiplied where negative), letters of options among them; 1 leaves them alone. ``None``: the checkpoint's
            own, in bare answers of ``think_below`` none.

    Raises:
        ValueError: If a value is out of range, or two of them exclude each other.
    """

    max_new_tokens: Annotated[int, Limits(least=1)] = 256
    temperature: Annotated[float, Limits(least=0)] = 0.0
    top_p: Annotated[float, Limits(above=0, most=1)] = 1.0
    seed: int = 0
    static: Annotated[bool, Named("static_cache")] = False
    think_below: Annotated[float | None, Limits(least=0)] = None
    repetition_penalty: Annotated[float | None, Limits(above=0)] = None

    def __post_init__(self) -> None:
        check(self)
        if self.static and self.think_below is not None:
            problem = "needs the probabilities of tokens, which static keys and values do not tell; leave one out"
            raise OptionError("think_below", problem)

    @property
    def identity(self) -> dict[str, int | float | bool]:
        """What tells outputs of other options apart, by name, without those that are not given: older runs go on."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True)
class Frames:
    """Decoded frames of one video with their true presentation times.

    Attributes:
        rgb: ``uint8 [T, H, W, 3]``.
        seconds: ``float64 [T]``, non-decreasing presentation times.
        source: Path of the video.

    Raises:
        ValueError: If they are no such arrays; ``seconds`` may also be a list.
    """

    rgb: NDArray[np.uint8]
    seconds: NDArray[np.float64]
    source: str

    def __post_init__(self) -> None:
        rgb, expected = self.rgb, f"{self.source}: frames must be an array of uint8 [T, H, W, 3]"
        if not isinstance(rgb, np.ndarray):
            raise ValueError(f"{expected}, got {type(rgb).__name__}")
        if rgb.ndim != 4 or rgb.shape[3] != 3 or rgb.dtype != np.uint8:
            raise ValueError(f"{expected}, got {rgb.dtype} {list(rgb.shape)}")
        expected = f"{self.source}: seconds must be {len(rgb)} numbers, one for each frame"
        try:
            seconds = np.asarray(self.seconds, np.float64)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{expected} ({error})") from error
        if seconds.shape != rgb.shape[:1]:
            raise ValueError(f"{expected}, got an array of the shape {list(seconds.shape)}")
        object.__setattr__(self, "seconds", seconds)

    def __len__(self) -> int:
        return len(self.seconds)

    @property
    def grid_seconds(self) -> NDArray[np.float64]:
        """Time of each temporal grid, that of its first frame."""
        return self.seconds[::FRAMES_PER_GRID]


@dataclass(frozen=True, order=True)
class Event:
    """A semantically coherent stretch of a video, half-open ``[start, end)`` in seconds."""

    start: float
    end: float

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.end:
            raise ValueError(f"an event needs 0 <= start < end, got [{self.start}, {self.end})")

    @property
    def duration(self) -> float:
        """Length in seconds."""
        return self.end - self.start

    @property
    def middle(self) -> float:
        """Mean time in seconds."""
        return (self.start + self.end) / 2


@dataclass(frozen=True)
class Retrieval:
    """The outcome of matching one question with the events of one video.

    Attributes:
        events: All events of the video in time order.
        scores: Cosine similarity of the question with each event, in ``[-1, 1]``.
        kept: Indices into ``events`` of the retrieved ones, in time order.
        neighbour_similarity: Cosine similarity of each event with the next one, one number less than there are events.
        query: The part of the question that was embedded: its stem, without answer options.
        query_truncated: Whether ``query`` was longer than the text encoder reads, so that its end had no influence.
        text_scores: How well the words of each event's subtitles match the question (BM25, 0 where none does); empty
            where no text took part in the ranking.
    """

    events: tuple[Event, ...]
    scores: tuple[float, ...]
    kept: tuple[int, ...]
    neighbour_similarity: tuple[float, ...]
    query: str = ""
    query_truncated: bool = False
    text_scores: tuple[float, ...] = ()


@dataclass(frozen=True)
class Clip:
    """A video or picture that a question is about, or a stretch of a video.

    Attributes:
        source: The file.
        start: Where the stretch begins, in seconds.
        end: Where it ends, exclusive; ``None``: with the video.
        found: The events that are shown, where that is known; ``None``: they are chosen for the question.
        share: Part of the budget that it may have, where events share one.
        share_begin: Where this part begins, from 0 to 1: those of clips that follow each other add up to the token.

    Raises:
        ValueError: If the stretch is none, or its times are no numbers.
    """

    source: str | Path
    start: float = 0.0
    end: float | None = None
    found: Retrieval | None = None
    share: float = 1.0
    share_begin: float = 0.0

    def __post_init__(self) -> None:
        for name, value in (("start", self.start), ("end", 0 if self.end is None else self.end)):
            if not isinstance(value, Real):
                raise ValueError(f"{self.source}: {name} must be seconds as a number, such as 90, got {value!r}")
        if not 0 <= self.start < (inf if self.end is None else self.end):
            raise ValueError(
                f"{self.source}: a stretch of a video needs 0 <= start < end, got start={self.start:g} and "
                f"end={'none' if self.end is None else f'{self.end:g}'}"
            )

    def part_of(self, tokens: int) -> int:
        """Its part of a budget in tokens, one at least."""
        begin, end = (int(tokens * at + 0.5) for at in (self.share_begin, self.share_begin + self.share))
        return max(1, end - begin)

    def within(self, duration: float) -> Event:
        """The stretch of a video of this length in seconds.

        Raises:
            ValueError: If it begins behind the end.
        """
        if self.start >= duration:
            raise ValueError(f"{self.source}: start={self.start:g} is behind the end of this {duration:.2f} s video")
        return Event(self.start, duration if self.end is None else min(self.end, duration))


MemoryKind = Literal["full", "coarse"]
"""Which memory of a video was asked: of all its frames, or of some key frames because it was new."""
QuestionScope = Literal["moments", "all"]
"""What a question is taken to be about: moments, which are retrieved, or all of a video."""


@dataclass(frozen=True)
class ShownVideo:
    """What an answer rests on of one video or picture. Times are the file's: seconds from its first picture.

    Attributes:
        source: The file, or what stands for it where frames were given.
        kind: ``"video"`` or ``"image"``.
        start: Where the stretch that was asked about begins.
        end: Where it ends.
        frame_seconds: Time of each frame that was read, T of them; none of a picture.
        grid_events: Event to which each temporal grid of two frames belongs, T / 2 numbers; none without events.
        grid_groups: Merged grid in which each temporal grid ended, T / 2 numbers; -1: no token of it was kept.
        events: The retrieved events in time order.
        scores: Cosine similarity of the question with each of ``events``.
        visual_tokens_before: Visual tokens that the uncompressed model would have read.
        visual_tokens_after: Visual tokens that the language model did read.
        visual_tokens_budget: Visual tokens that it might have had; ``None``: no limit.
        prompt_tokens_before: Its uncompressed tokens in the prompt: visual tokens, marks around them, timestamps.
        prompt_tokens_after: What it did cost in the prompt.
        subtitles: Where the subtitles are from that were used; empty without.
        subtitle_tokens: Tokens of subtitles in the prompt, not among ``prompt_tokens_after``.
        event_texts: What is said in each of ``events``, where there are subtitles.
        event_frames: How many frames show what is seen in each of ``events``; a picture that stays began before.
        memory: Which memory of it was asked; ``None``: none.
        scope: What the question was taken to be about; ``None``: that was not asked, as without a memory, of a source
            that is watched, or of what was recalled.
    """

    source: str
    kind: str
    start: float
    end: float
    frame_seconds: tuple[float, ...]
    grid_events: tuple[int, ...]
    grid_groups: tuple[int, ...]
    events: tuple[Event, ...]
    scores: tuple[float, ...]
    visual_tokens_before: int
    visual_tokens_after: int
    visual_tokens_budget: int | None
    prompt_tokens_before: int
    prompt_tokens_after: int
    subtitles: str = ""
    subtitle_tokens: int = 0
    event_texts: tuple[str, ...] = ()
    event_frames: tuple[int, ...] = ()
    memory: MemoryKind | None = None
    scope: QuestionScope | None = None


@dataclass(frozen=True)
class Answer:
    """What `marc.inference.assistant.VideoAssistant.ask` returns.

    Counts of frames and tokens are those of all videos together; ``videos`` has those of each.

    Attributes:
        answer: The extracted answer, without tags.
        output: The model's whole output.
        frames: Number of frames that were decoded for the model.
        visual_tokens_before: Visual tokens that the uncompressed model would have read for these frames.
        visual_tokens_after: Visual tokens that the language model did read.
        prompt_tokens_before: What these frames would have cost the uncompressed model in the prompt: their visual
            tokens, the marks around them, and the timestamps of families that write them.
        prompt_tokens_after: What the videos did cost in the prompt.
        seconds: Wall time by stage, in seconds.
        peak_memory_bytes: Peak memory of the device while answering (peak resident set on a CPU).
        events: The retrieved events, video by video in time order; empty without the memory.
        scores: Cosine similarity of the question with each of ``events``.
        visual_tokens_budget: Visual tokens that the videos might have had; ``None``: no limit.
        warnings: What the user should know about the answer, see `marc.inference.remarks`.
        question: What was asked.
        options: The answers that were offered.
        model: Name of the model that answered.
        videos: What was shown of each video or picture, in the order of the question.
        input_tokens: Tokens of the whole prompt.
        output_tokens: Tokens of the output.
        is_cut: Whether the output ended because it was as long as it might be.
        probability: Of the bare answer that was asked for first, the product of its tokens', or of its beginning
            where that was too little already; ``None``: it was not.
        has_thought: Whether it was too little, so that the model was asked to think; ``None``: likewise.
        generated_tokens: Tokens that were generated for it in all, a bare answer that did not count among them;
            ``None``: not known.
    """

    answer: str
    output: str
    frames: int = 0
    visual_tokens_before: int = 0
    visual_tokens_after: int = 0
    prompt_tokens_before: int = 0
    prompt_tokens_after: int = 0
    seconds: Mapping[str, float] = field(default_factory=dict)
    peak_memory_bytes: int = 0
    events: tuple[Event, ...] = ()
    scores: tuple[float, ...] = ()
    visual_tokens_budget: int | None = None
    warnings: tuple[str, ...] = ()
    question: str = ""
    options: tuple[str, ...] = ()
    model: str = ""
    videos: tuple[ShownVideo, ...] = ()
    input_tokens: int = 0
    output_tokens: int = 0
    is_cut: bool = False
    probability: float | None = None
    has_thought: bool | None = None
    generated_tokens: int | None = None
