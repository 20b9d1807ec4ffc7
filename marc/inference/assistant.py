"""The main job: a question about a video file, answered from one frame's worth of visual tokens.

A question's way: the selector chooses frames (`marc.inference.selectors`; with the memory the video is cut into events
once and these are matched with the question), only they are decoded, the engine's vision tower and the compression
turn them into a handful of tokens, and its language model answers (`marc.inference.hf`). What the model reads of a
video is kept, so that another question about the same frames costs neither decoding nor the tower.

    assistant = VideoAssistant.from_pretrained()
    print(assistant.ask("holiday.mp4", "What happens first?").answer)
"""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial, wraps
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

import numpy as np
import torch

from marc.compression.config import NEAR_DUPLICATES
from marc.compression.plan import VideoPlan
from marc.data.prompts import chat_messages, render_question
from marc.grading import extract_answer
from marc.inference.backend import Backend
from marc.inference.hf import HFBackend
from marc.inference.prompts import Prompt
from marc.inference.remarks import remarks
from marc.inference.selectors import FrameRequest, FrameSelector, RetrievingSelector, Selection, UniformSelector
from marc.inference.stages import StageClock, peak_memory_bytes, reset_peak_memory
from marc.inference.video_input import VideoInput, VisualPatches
from marc.memory.options import MemoryOptions, RetrievalOptions
from marc.memory.select import default_embedder
from marc.model.loading import EMBEDDED, load_model
from marc.types import FRAMES_PER_GRID, Answer, Frames, GenerationOptions, Retrieval, VideoInfo
from marc.video import frame_size, probe, read_frames
from marc.video import warm_up as start_decoder
from marc.video.options import FrameOptions

if TYPE_CHECKING:
    from marc.memory.embedder import EventEmbedder
    from marc.memory.store import VideoMemory

KEPT_VIDEOS = 8
"""How many encoded videos an assistant keeps."""

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Query:
    """A question about a video.

    Attributes:
        video: The file.
        question: What retrieval looks for.
        prompt: What the model reads; ``None``: the question in the assistant's prompt style.
    """

    video: str | Path
    question: str
    prompt: str | None = None


@dataclass(frozen=True)
class SeenVideo:
    """What the model saw of a video for a question.

    Attributes:
        info: The file.
        selection: The frames that were read, and why.
        video: What became of them.
        prompt_tokens_before: What they would have cost in the prompt without compression.
        remarks: What the user should know about it.
    """

    info: VideoInfo
    selection: Selection
    video: VideoInput
    prompt_tokens_before: int
    remarks: tuple[str, ...] = ()

    @property
    def retrieval(self) -> Retrieval | None:
        """What the memory found, if it was asked."""
        return self.selection.retrieval


def _in_turn(
    method: Callable[Concatenate[VideoAssistant, _Arguments], _Result],
) -> Callable[Concatenate[VideoAssistant, _Arguments], _Result]:
    """Has threads wait for each other."""

    @wraps(method)
    def guarded(self: VideoAssistant, *args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
        with self._lock:
            return method(self, *args, **kwargs)

    return guarded


def _also_by_name(construct: Callable[_Arguments, None]) -> Callable[_Arguments, None]:
    """For one more release the constructor takes what it took before it was given parts, a model's name first."""

    @wraps(construct)
    def constructor(*args: Any, **options: Any) -> None:
        if "backend" not in options and (len(args) == 1 or isinstance(args[1], str | Path)):
            advice = "use VideoAssistant.from_pretrained(name, ...): the constructor takes a backend and a selector"
            warnings.warn(advice, DeprecationWarning, stacklevel=2)
            args, options = args[:1], _parts_by_name(*args[1:], **options)
        construct(*args, **options)

    return constructor


def _parts_by_name(model_name: str | Path = EMBEDDED, memory: bool = True, **options: Any) -> dict[str, Any]:
    """What the constructor takes, from what it took before."""
    load = {key: options.pop(key, None) for key in ("device", "dtype", "attn_implementation", "compression")}
    encoder, folder = options.pop("embedder_name", None), options.pop("memory_folder", None)
    remember, progress = options.pop("memory_options", None) or MemoryOptions(), options.pop("progress", None)
    loaded, embedder = options.pop("loaded", None), options.pop("loaded_embedder", None)
    if loaded and any(load.values()):
        raise ValueError(f"{next(filter(load.get, load))} says how to load a model, but `loaded` is there already")
    if loaded and memory and not (encoder or embedder):
        raise ValueError("with `loaded`, the memory needs embedder_name or loaded_embedder (or memory=False)")
    backend = HFBackend(*loaded) if loaded else _load_backend(model_name, **load)
    retrieval = RetrievalOptions(options.pop("k", 3), encoder, str(folder) if folder else None)
    selector = _retrieving(model_name, backend, remember, retrieval, progress) if memory else None
    if selector and embedder:
        selector.load_embedder = lambda: embedder
    return {**options, "backend": backend, "selector": selector}


class VideoAssistant:
    """Answers questions about video files; threads that ask at once are answered one after the other.

    Attributes:
        backend: The engine that encodes and answers.
        selector: Chooses the frames.
        frames: How many frames are read, and how large.
        generation: How answers are generated; assign to change it.

    Args:
        backend: The engine, see `marc.inference.backend`.
        selector: Chooses the frames, see `marc.inference.selectors`; by default evenly.
        frames: How many frames are read, and how large.
        generation: How answers are generated.
        prompt_style: One of `marc.data.prompts.style_names`; ``None``: the model's own.

    Raises:
        ValueError: If an option is wrong.
    """

    @_also_by_name
    def __init__(
        self,
        backend: Backend,
        selector: FrameSelector | None = None,
        *,
        frames: FrameOptions | None = None,
        generation: GenerationOptions | None = None,
        prompt_style: str | None = None,
    ) -> None:
        self.backend = backend
        self.selector = selector or UniformSelector()
        self.frames = frames or FrameOptions()
        self.generation = generation or GenerationOptions()
        self._style = prompt_style or backend.config.prompt_style
        self._inputs: OrderedDict[tuple[Any, ...], VideoInput] = OrderedDict()
        self._lock = RLock()

    @classmethod
    def from_pretrained(
        cls,
        name: str = EMBEDDED,
        *,
        compression: Mapping[str, Any] | None = None,
        memory: MemoryOptions | None = MemoryOptions(),
        retrieval: RetrievalOptions | None = None,
        progress: Callable[[float], object] | None = None,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
        attn_implementation: str | None = None,
        **options: Any,
    ) -> VideoAssistant:
        """Loads a model and what goes with it.

        Args:
            name: ``"tiny"``, a folder or a hub name, see `marc.model.loading.load_model`.
            compression: Fields of `marc.compression.CompressionConfig` that replace the model's; ``duplicates`` is
                `NEAR_DUPLICATES` if it is not among them.
            memory: How videos are remembered by the Visual Memory Retriever, which then chooses the frames; ``None``:
                frames are sampled evenly.
            retrieval: How many events are retrieved, by which dual encoder, and where memories are kept.
            progress: Is told what share of a video has been read while it is being remembered.
            device: Where everything runs; ``None``: the GPU if there is one.
            dtype: Of the weights; ``None``: bfloat16 on a GPU, float32 on a CPU.
            attn_implementation: As in transformers.
            **options: Of the constructor: ``frames``, ``generation``, ``prompt_style``.

        Raises:
            ValueError: If there is no such model, or an option is wrong.
        """
        backend = _load_backend(name, compression, device=device, dtype=dtype, attn_implementation=attn_implementation)
        selector = None
        if memory is not None:
            selector = _retrieving(name, backend, memory, retrieval or RetrievalOptions(), progress)
        return cls(backend, selector, **options)

    @_in_turn
    def remember(self, video: str | Path) -> VideoMemory:
        """Cuts a video into events and embeds them, or finds that in the memory on disk.

        Raises:
            ValueError: If the assistant has no memory, or the video cannot be read.
        """
        if not isinstance(self.selector, RetrievingSelector):
            raise ValueError("this assistant has no memory: its frames are not retrieved")
        return self.selector.remember(video)

    @_in_turn
    def warm_up(self) -> None:
        """Does beforehand what the first question about a remembered video would wait for.

        It starts the decoder, loads the dual encoder, and answers a question about a made-up picture as large as
        frames may be, for which decoding is compiled where it is. A new video still has to be cut into events.
        """
        start_decoder()
        width, height = frame_size(1280, 720, source="a made-up picture", **self.pixel_limits)
        picture = Frames(np.zeros((FRAMES_PER_GRID, height, width, 3), np.uint8), np.zeros(FRAMES_PER_GRID), "")
        query = Query("", "What is shown?")
        if isinstance(self.selector, RetrievingSelector):
            self.selector.embedder.embed_question(query.question)
        clock = StageClock(self.backend.device)
        video = self._encode(picture, Selection(picture.seconds), clock)
        self.backend.generate([self._prompt(query, video)], self.generation, clock)

    @_in_turn
    def forget(self) -> None:
        """Drops what was read of videos; their memories on disk stay."""
        self._inputs.clear()

    def ask(
        self,
        video: str | Path,
        question: str,
        *,
        options: Sequence[str] = (),
        prompt: str | None = None,
    ) -> Answer:
        """Answers one question.

        Args:
            video: A video file.
            question: In natural language.
            options: Possible answers, such as ``"A. red"``, for a multiple-choice question.
            prompt: What the model reads instead of question and options in the assistant's prompt style.

        Raises:
            ValueError: If the video cannot be read (a `marc.video.VideoError`) or an option is wrong.
        """
        return self.ask_batch([self.query(video, question, options=options, prompt=prompt)])[0]

    def query(
        self, video: str | Path, question: str, *, options: Sequence[str] = (), prompt: str | None = None
    ) -> Query:
        """A question with its possible answers as it will be asked; see `ask`."""
        if prompt is None:
            problem_type = "multiple choice" if options else "free-form"
            prompt = render_question(question, problem_type=problem_type, options=options, style=self._style)
        return Query(video, question, prompt)

    def ask_many(self, video: str | Path, questions: Sequence[str]) -> list[Answer]:
        """Answers several questions about one video in one generation; answers are those of `ask`.

        Questions that see the same frames share their features and the part of the prompt that they begin with.
        """
        if isinstance(questions, str):
            raise ValueError(f"ask_many takes a list of questions, got one text: {questions[:80]!r}; use ask for one")
        return self.ask_batch([Query(video, question) for question in questions])

    def ask_batch(self, queries: Sequence[Query]) -> list[Answer]:
        """Answers several questions in one generation, about the same or different videos.

        What several prompts about the same frames begin with is read once. Times of the stages and peak memory are
        those of the whole batch, shared out evenly over its answers.
        """
        return [answer for answer, _ in self.answer_and_show(queries)]

    @_in_turn
    def answer_and_show(self, queries: Sequence[Query]) -> list[tuple[Answer, SeenVideo]]:
        """As `ask_batch`, with what the model saw for each question."""
        for query in queries:
            self._check(query)
        reset_peak_memory(self.backend.device)
        clock = StageClock(self.backend.device)
        with clock.stage("total"):
            seen = [self.view(query.video, query.question, clock) for query in queries]
            with clock.stage("tokenize"):
                prompts = [self._prompt(query, each.video) for query, each in zip(queries, seen, strict=True)]
            outputs = self.backend.generate(prompts, self.generation, clock)
            texts = self.backend.processor.batch_decode(outputs, skip_special_tokens=True)
        peak = peak_memory_bytes(self.backend.device)
        seconds = {stage: duration / len(queries) for stage, duration in clock.seconds.items()}
        return [(_answer(text, each, seconds, peak), each) for text, each in zip(texts, seen, strict=True)]

    def _check(self, query: Query) -> None:
        """Refuses, before anything is read, what is no question about a video, or has more text than there is room."""
        if not isinstance(query.video, str | Path) or not isinstance(query.question, str):
            what = f"{type(query.video).__name__} and {type(query.question).__name__}"
            raise ValueError(f"a question is a text about one video file, got {what}")
        text = query.question if query.prompt is None else query.prompt
        if not (text.strip() and query.question.strip()):
            raise ValueError("the question is empty")
        room = int(self.backend.config.get_text_config(decoder=True).max_position_embeddings)
        if len(text) > room and (tokens := len(self.backend.processor.tokenizer(text)["input_ids"])) > room:
            raise ValueError(f"the question has {tokens} tokens, the model has room for {room}")

    @_in_turn
    def view(self, video: str | Path, question: str, clock: StageClock | None = None) -> SeenVideo:
        """Chooses, reads and encodes what the model will see of a video for a question.

        Returns:
            The encoded video, from an earlier question if it needed the same frames, and why it was chosen.
        """
        clock = clock or StageClock(self.backend.device)
        with clock.stage("probe"):
            info = probe(video, timeout=self.frames.timeout)
        request = FrameRequest(
            info,
            question,
            self.frames,
            self.backend.compression,
            self._cells(info),
            self.backend.processor.event_overhead(info.duration),
            clock,
        )
        selection = self.selector.select(request)
        seen = self._known_or_read(info, selection, clock)
        whole = VideoPlan.whole(seen.patches.grid_thw[0], seen.patches.size)
        before = self.backend.processor.prompt_tokens(whole, seen.seconds)
        return SeenVideo(info, selection, seen, before, remarks(self.backend, request, selection, seen))

    @property
    def pixel_limits(self) -> dict[str, int]:
        """Limits on the size of the frames that are read, see `marc.video.frame_size`."""
        video_processor = self.backend.processor.video_processor
        factor = video_processor.patch_size * video_processor.merge_size
        largest = self.frames.max_pixels or min(self.backend.processor.frame_pixels, 256 * factor**2)
        smallest = self.frames.min_pixels or min(4 * factor**2, largest)
        return {"min_pixels": smallest, "max_pixels": largest, "factor": factor}

    def _cells(self, info: VideoInfo) -> int:
        """Visual tokens of one temporal grid of a video."""
        limits = self.pixel_limits
        width, height = frame_size(info.width, info.height, source=info.source, **limits)
        return (width // limits["factor"]) * (height // limits["factor"])

    def _known_or_read(self, info: VideoInfo, selection: Selection, clock: StageClock) -> VideoInput:
        limits, frames = self.pixel_limits, self.frames
        modified = Path(info.source).stat().st_mtime_ns
        look = (*limits.values(), frames.backend, self.backend.compression)
        chosen = (selection.seconds.tobytes(), selection.grid_events, selection.shares)
        key = (str(Path(info.source).resolve()), modified, *chosen, look)
        if key not in self._inputs:
            with clock.stage("video_decode"):
                read = read_frames(
                    info.source, selection.seconds, backend=frames.backend, timeout=frames.timeout, **limits
                )
            self._inputs[key] = self._encode(read, selection, clock)
        self._inputs.move_to_end(key)
        if len(self._inputs) > KEPT_VIDEOS:
            self._inputs.popitem(last=False)
        return self._inputs[key]

    def _encode(self, frames: Frames, selection: Selection, clock: StageClock) -> VideoInput:
        with clock.stage("preprocess"):
            patches = VisualPatches.of_frames(self.backend.processor, frames, selection.grid_events)
        video = VideoInput.of(patches, self.backend.processor, self.backend.compression, shares=selection.shares)
        self.backend.encode([video], clock)
        return video

    def _prompt(self, query: Query, video: VideoInput) -> Prompt:
        processor = self.backend.processor
        text = query.prompt or render_question(query.question, style=self._style)
        chat = processor.apply_chat_template(chat_messages(text), add_generation_prompt=True)
        return Prompt(tuple(processor.tokenizer(chat, add_special_tokens=False)["input_ids"]), (video,))


def _load_backend(name: str | Path, compression: Mapping[str, Any] | None, **load: Any) -> HFBackend:
    return HFBackend(*load_model(name, **load, **{"duplicates": NEAR_DUPLICATES, **(compression or {})}))


def _retrieving(
    name: str | Path,
    backend: Backend,
    memory: MemoryOptions,
    retrieval: RetrievalOptions,
    progress: Callable[[float], object] | None,
) -> RetrievingSelector:
    load = partial(_load_embedder, retrieval.embedder or default_embedder(str(name)), backend.device)
    return RetrievingSelector(load, memory, retrieval, progress)


def _load_embedder(name: str, device: torch.device) -> EventEmbedder:
    from marc.memory.embedder import EventEmbedder

    return EventEmbedder.from_pretrained(name, device=device)


def _answer(output: str, seen: SeenVideo, seconds: Mapping[str, float], peak: int) -> Answer:
    retrieval = seen.retrieval
    kept = retrieval.kept if retrieval else ()
    return Answer(
        answer=extract_answer(output, protocol="official"),
        output=output,
        frames=len(seen.selection.seconds),
        visual_tokens_before=seen.video.patches.tokens,
        visual_tokens_after=seen.video.tokens,
        prompt_tokens_before=seen.prompt_tokens_before,
        prompt_tokens_after=seen.video.prompt_tokens,
        seconds=dict(seconds),
        peak_memory_bytes=peak,
        events=tuple(retrieval.events[index] for index in kept) if retrieval else (),
        scores=tuple(retrieval.scores[index] for index in kept) if retrieval else (),
        visual_tokens_budget=seen.video.plan.budget if seen.video.plan else None,
        warnings=seen.remarks,
    )
