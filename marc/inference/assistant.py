"""The main job: a question about a video file, answered from one frame's worth of visual tokens.

A question's way: `VideoAssistant.remember` cuts the video into events (once per video), retrieval matches them with
the question, only the frames that it chose are decoded, the vision tower and the compression turn them into a handful
of tokens, and the language model answers. What the model reads of a video is kept, so that another question about the
same frames costs neither decoding nor the tower.

    assistant = VideoAssistant()
    print(assistant.ask("holiday.mp4", "What happens first?").answer)
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial, wraps
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING, Any, Concatenate, Literal, ParamSpec, TypeVar

import numpy as np
import torch

from marc.data.prompts import chat_messages, render_question
from marc.grading import extract_answer
from marc.inference.hf import EncodedVideo, VideoGenerator
from marc.inference.stages import StageClock, peak_memory_bytes, reset_peak_memory
from marc.memory.select import FramePlan, VisualMemoryRetriever, default_embedder, plan_frames
from marc.model.loading import EMBEDDED, load_model
from marc.model.qwen2_5_vl.processing import frame_patches
from marc.types import FRAMES_PER_GRID, Answer, Frames, GenerationOptions, Retrieval, VideoInfo
from marc.video import DEFAULT_BACKEND, frame_size, probe, read_frames, sample_times
from marc.video import warm_up as start_decoder
from marc.video.decoders import decoder
from marc.video.sampling import check_limits

if TYPE_CHECKING:
    from marc.memory.embedder import EventEmbedder
    from marc.memory.index import MemoryOptions
    from marc.memory.store import VideoMemory
    from marc.model import MarcForConditionalGeneration, MarcProcessor

NEAR_DUPLICATES = 0.1
"""`CompressionConfig.duplicates` of a model that an assistant loads: above a camera's noise, below a typed letter."""
KEPT_VIDEOS = 8
"""How many encoded videos an assistant keeps."""

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class FrameOptions:
    """Which frames of a video are read, and how large.

    Attributes:
        fps: Frames per second.
        max_frames: Most frames.
        min_frames: Fewest frames, if `max_frames` allows; the memory reads at least two per event instead.
        min_pixels: Smallest area of a frame in pixels; ``None``: 4 tokens. Video-R1 enlarges to ``128 * 28 * 28``.
        max_pixels: Largest area of a frame in pixels; ``None``: what the model's processor allows, at most 256 tokens.
        backend: The decoder, see `marc.video.backends`.
        timeout: Seconds after which decoding is given up.

    Raises:
        ValueError: If a limit is out of range or there is no such decoder.
    """

    fps: float = 2.0
    max_frames: int = 64
    min_frames: int = 4
    min_pixels: int | None = None
    max_pixels: int | None = None
    backend: str = DEFAULT_BACKEND
    timeout: float = 60.0

    def __post_init__(self) -> None:
        check_limits("frames", fps=self.fps, max_frames=self.max_frames, min_frames=self.fewest)
        decoder(self.backend)

    @property
    def fewest(self) -> int:
        """`min_frames`, but no more than `max_frames`."""
        return min(self.min_frames, self.max_frames)


@dataclass(frozen=True)
class Inquiry:
    """A question about a video.

    Attributes:
        video: The file.
        question: What retrieval looks for.
        prompt: What the model reads; ``None``: the question in the assistant's prompt style.
    """

    video: str | Path
    question: str
    prompt: str | None = None


def _in_turn(
    method: Callable[Concatenate[VideoAssistant, _Arguments], _Result],
) -> Callable[Concatenate[VideoAssistant, _Arguments], _Result]:
    """Has threads wait for each other."""

    @wraps(method)
    def guarded(self: VideoAssistant, *args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
        with self._lock:
            return method(self, *args, **kwargs)

    return guarded


@dataclass
class VideoAssistant:
    """Answers questions about video files; threads that ask at once are answered one after the other.

    Attributes:
        model_name: ``"tiny"``, a folder or a hub name, see `marc.model.loading.load_model`.
        memory: Whether the Visual Memory Retriever chooses the frames.
        embedder_name: Its dual encoder; ``None``: the embedded one for the embedded model, else a Perception Encoder.
        k: Events to retrieve, or ``"auto"``.
        memory_options: How videos are remembered.
        memory_folder: Where memories are kept; ``None``: beside each video.
        progress: Is told what share of a video has been read while it is being remembered.
        frames: Which frames are read.
        generation: How answers are generated.
        prompt_style: One of `marc.data.prompts.style_names`; ``None``: the model's own.
        device: Where everything runs; ``None``: the GPU if there is one.
        dtype: Of the weights; ``None``: bfloat16 on a GPU, float32 on a CPU.
        attn_implementation: As in transformers.
        compression: Fields of `marc.model.CompressionConfig` that replace the model's; ``duplicates`` is
            `NEAR_DUPLICATES` if it is not among them.
        loaded: A model and its processor that are there already, instead of `model_name` and how to load it: not
            together with `device`, `dtype`, `attn_implementation` or `compression`. With the memory, the dual encoder
            has to be named or given too.
        loaded_embedder: The same for the dual encoder.

    Raises:
        ValueError: If an option is wrong, or would have no effect on what is loaded already.
    """

    model_name: str = EMBEDDED
    memory: bool = True
    embedder_name: str | None = None
    k: int | Literal["auto"] = 3
    memory_options: MemoryOptions | None = None
    memory_folder: str | Path | None = None
    progress: Callable[[float], object] | None = None
    frames: FrameOptions = field(default_factory=FrameOptions)
    generation: GenerationOptions = field(default_factory=GenerationOptions)
    prompt_style: str | None = None
    device: str | torch.device | None = None
    dtype: str | torch.dtype | None = None
    attn_implementation: str | None = None
    compression: dict[str, Any] = field(default_factory=dict)
    loaded: tuple[MarcForConditionalGeneration, MarcProcessor] | None = None
    loaded_embedder: EventEmbedder | None = None

    def __post_init__(self) -> None:
        if self.loaded:
            self._check_loaded()
        self.model, self.processor = self.loaded or load_model(
            self.model_name,
            device=self.device,
            dtype=self.dtype,
            attn_implementation=self.attn_implementation,
            **{"duplicates": NEAR_DUPLICATES, **self.compression},
        )
        self._style = self.prompt_style or self.model.config.prompt_style
        self._generator = VideoGenerator(self.model, self.processor)
        self._encoded: OrderedDict[tuple[Any, ...], EncodedVideo] = OrderedDict()
        self._embedder = self.loaded_embedder
        self._lock = RLock()

    def _check_loaded(self) -> None:
        for name in ("device", "dtype", "attn_implementation", "compression"):
            if getattr(self, name):
                raise ValueError(f"{name} says how to load a model, but `loaded` is one that is there already")
        if self.memory and self.embedder_name is None and self.loaded_embedder is None:
            raise ValueError("with `loaded`, the memory needs embedder_name or loaded_embedder (or memory=False)")

    @property
    def embedder(self) -> EventEmbedder:
        """The dual encoder of the memory, loaded when it is first needed."""
        if self._embedder is None:
            from marc.memory.embedder import EventEmbedder

            name = self.embedder_name or default_embedder(self.model_name)
            self._embedder = EventEmbedder.from_pretrained(name, device=self.model.device)
        return self._embedder

    @_in_turn
    def remember(self, video: str | Path) -> VideoMemory:
        """Cuts a video into events and embeds them, or finds that in the memory on disk."""
        from marc.memory.events import segment_events
        from marc.memory.index import remember

        return remember(
            video,
            self.embedder,
            self.memory_options,
            folder=self.memory_folder,
            segment=partial(segment_events, device=str(self.model.device)),
            progress=self.progress,
        )

    @_in_turn
    def warm_up(self) -> None:
        """Does beforehand what the first question about a remembered video would wait for.

        It starts the decoder, loads the dual encoder, and answers a question about a made-up picture as large as
        frames may be, for which decoding is compiled where it is. A new video still has to be cut into events.
        """
        start_decoder()
        width, height = frame_size(1280, 720, source="a made-up picture", **self.pixel_limits)
        picture = Frames(np.zeros((FRAMES_PER_GRID, height, width, 3), np.uint8), np.zeros(FRAMES_PER_GRID), "")
        info = VideoInfo("", width, height, duration=1.0, fps=2.0, frame_count=FRAMES_PER_GRID, codec="")
        inquiry = Inquiry("", "What is shown?")
        if self.memory:
            self.embedder.embed_question(inquiry.question)
        encoded = self._encode(info, picture, None, None, StageClock(self.model.device))
        self._generator([self._chat(inquiry)], [encoded], self.generation)

    @_in_turn
    def forget(self) -> None:
        """Drops what was read of videos; their memories on disk stay."""
        self._encoded.clear()

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
        if prompt is None:
            problem_type = "multiple choice" if options else "free-form"
            prompt = render_question(question, problem_type=problem_type, options=options, style=self._style)
        return self.ask_batch([Inquiry(video, question, prompt)])[0]

    def ask_many(self, video: str | Path, questions: Sequence[str]) -> list[Answer]:
        """Answers several questions about one video in one generation; answers are those of `ask`.

        Questions that see the same frames share their features and the part of the prompt that they begin with.
        """
        return self.ask_batch([Inquiry(video, question) for question in questions])

    @_in_turn
    def ask_batch(self, inquiries: Sequence[Inquiry]) -> list[Answer]:
        """Answers several questions in one generation, about the same or different videos.

        If all see the same frames of one video, what their prompts begin with is read once. Times of the stages and
        peak memory are those of the whole batch, shared out evenly over its answers.
        """
        reset_peak_memory(self.model.device)
        clock = StageClock(self.model.device)
        with clock.stage("total"):
            viewed = [self.view(inquiry.video, inquiry.question, clock) for inquiry in inquiries]
            videos = [encoded for encoded, _ in viewed]
            outputs = self._generator([self._chat(inquiry) for inquiry in inquiries], videos, self.generation, clock)
        peak = peak_memory_bytes(self.model.device)
        seconds = {stage: duration / len(inquiries) for stage, duration in clock.seconds.items()}
        return [
            Answer(
                answer=extract_answer(output, protocol="official"),
                output=output,
                frames=len(encoded.seconds),
                visual_tokens_before=encoded.tokens_before,
                visual_tokens_after=encoded.tokens_after,
                seconds=seconds,
                peak_memory_bytes=peak,
                events=tuple(retrieval.events[index] for index in retrieval.kept) if retrieval else (),
                scores=tuple(retrieval.scores[index] for index in retrieval.kept) if retrieval else (),
            )
            for output, (encoded, retrieval) in zip(outputs, viewed, strict=True)
        ]

    @_in_turn
    def view(
        self, video: str | Path, question: str, clock: StageClock | None = None
    ) -> tuple[EncodedVideo, Retrieval | None]:
        """Retrieves, reads and encodes what the model will see of a video for a question.

        Returns:
            The encoded video, from an earlier question if it needed the same frames, and what was retrieved.
        """
        clock = clock or StageClock(self.model.device)
        retrieval = None
        with clock.stage("probe"):
            info = probe(video, timeout=self.frames.timeout)
        if self.memory:
            with clock.stage("remember"):
                memory = self.remember(video)
            with clock.stage("retrieve"):
                retrieval = VisualMemoryRetriever(self.embedder).retrieve(memory, question, self.k)
        plan = self.frame_plan(info, retrieval)
        return self._encoded_video(info, plan, clock), retrieval

    def frame_plan(self, info: VideoInfo, retrieval: Retrieval | None) -> FramePlan | None:
        """What to read of the retrieved events; ``None``: the whole video, sampled evenly."""
        if retrieval is None:
            return None
        fps, max_frames, compression = self.frames.fps, self.frames.max_frames, self.model.compression
        if compression.layout == "frames" or not compression.enabled:
            return plan_frames(retrieval, fps=fps, max_frames=max_frames)
        width, height = frame_size(info.width, info.height, source=info.source, **self.pixel_limits)
        cells = (width // self.pixel_limits["factor"]) * (height // self.pixel_limits["factor"])
        budget = compression.visual_tokens or (compression.target_frames or 1) * cells
        return plan_frames(retrieval, fps=fps, max_frames=max_frames, mode="allocate", token_budget=budget)

    @property
    def pixel_limits(self) -> dict[str, int]:
        """Limits on the size of the frames that are read, see `marc.video.frame_size`."""
        video_processor = self.processor.video_processor
        factor = video_processor.patch_size * video_processor.merge_size
        largest = self.frames.max_pixels or min(video_processor.size["longest_edge"], 256 * factor**2)
        smallest = self.frames.min_pixels or min(4 * factor**2, largest)
        return {"min_pixels": smallest, "max_pixels": largest, "factor": factor}

    def _encoded_video(self, info: VideoInfo, plan: FramePlan | None, clock: StageClock) -> EncodedVideo:
        times = (
            sample_times(info, fps=self.frames.fps, max_frames=self.frames.max_frames, min_frames=self.frames.fewest)
            if plan is None
            else plan.seconds
        )
        modified = Path(info.source).stat().st_mtime_ns
        events = None if plan is None else tuple(plan.grid_events.tolist())
        shares = None if plan is None else plan.shares
        look = (*self.pixel_limits.values(), self.frames.backend, self.model.compression)
        key = (str(Path(info.source).resolve()), modified, times.tobytes(), events, shares, look)
        if key not in self._encoded:
            with clock.stage("video_decode"):
                frames = read_frames(
                    info.source, times, backend=self.frames.backend, timeout=self.frames.timeout, **self.pixel_limits
                )
            self._encoded[key] = self._encode(info, frames, events, shares, clock)
        self._encoded.move_to_end(key)
        if len(self._encoded) > KEPT_VIDEOS:
            self._encoded.popitem(last=False)
        return self._encoded[key]

    def _encode(
        self,
        info: VideoInfo,
        frames: Frames,
        events: tuple[int, ...] | None,
        shares: tuple[int, ...] | None,
        clock: StageClock,
    ) -> EncodedVideo:
        with clock.stage("preprocess"):
            pixels, grid_thw = frame_patches(self.processor.video_processor, frames.rgb)
            pixels = pixels.to(self.model.device)
        if events is None and self.model.compression.layout == "events":
            events = tuple(range(int(grid_thw[0, 0])))
        planning = self.processor.planning_inputs([events] if events else None, shares=[shares])
        before, start = clock.seconds["vision_tower"], clock.now()
        with clock.module("vision_tower", self.model.model.visual):
            features = self.model.encode_video(pixels, grid_thw, **planning)["video"]
        in_tower = clock.seconds["vision_tower"] - before
        clock.seconds["compression"] += clock.now() - start - in_tower
        merged = None if features.members is None else features.members[0]
        grids = int(grid_thw[0, 0])
        cells = int(grid_thw[0, 1] * grid_thw[0, 2]) // self.processor.video_processor.merge_size**2
        return EncodedVideo(
            info=info,
            seconds=frames.seconds,
            grid_thw=grid_thw,
            grid_events=events,
            shares=shares,
            members=np.arange(grids) if merged is None else merged.cpu().numpy(),
            features=features.pooler_output[0],
            tokens_before=grids * cells,
        )

    def _chat(self, inquiry: Inquiry) -> str:
        text = inquiry.prompt or render_question(inquiry.question, style=self._style)
        return self.processor.apply_chat_template(chat_messages(text), add_generation_prompt=True)
