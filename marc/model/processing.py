"""Processors that write as much of a video into the prompt as will remain after compression: what families share.

A family's own processor has `CompressedProcessor` and transformers' class as bases, in this order, and says how a
video is written into the prompt. The only changes: `_process_videos` writes videos by their plan
(`marc.compression.plan`) and hands event ids, times and shares on to the model, `apply_chat_template` keeps special
tokens in users' texts from being read as such, and a call takes videos also as ``qwen_vl_utils.process_vision_info``
returns them.
"""

import re
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import BatchFeature, ProcessorMixin
from transformers.processing_utils import VideosKwargs
from transformers.video_utils import VideoMetadata

from marc.compression.cells import Cells, token_count
from marc.compression.config import CompressionConfig
from marc.compression.plan import VideoPlan, event_lengths, fit_into_prompt, most_grids, plan_video
from marc.model.chat_templates import bounded_rendering
from marc.model.family import Family, family_of
from marc.model.video_arguments import separate_metadata, with_whole_grids
from marc.types import VISION_MARKS


class CompressedVideosKwargs(VideosKwargs, total=False):  # type: ignore[call-arg]
    """Options of `CompressedProcessor` for videos; one entry per video each.

    Attributes:
        video_events: Event id of every temporal grid, non-decreasing.
        video_seconds: Time of every temporal grid in seconds, for frames that are not evenly spaced.
        video_shares: Tokens for each event, for the event layout; ``None`` for equal shares.
    """

    video_events: Any
    video_seconds: Any
    video_shares: Any


class CompressedProcessingKwargs(ProcessorMixin.valid_processor_kwargs, total=False):  # type: ignore[call-arg]
    """Options of `CompressedProcessor`: transformers', with more for videos."""

    _defaults = ProcessorMixin.valid_processor_kwargs._defaults  # a TypedDict does not inherit attributes
    videos_kwargs: CompressedVideosKwargs


class CompressedProcessor(ProcessorMixin):
    """Turns text, images and videos into inputs for a `CompressedVLM`.

    Attributes:
        compression: How videos will be compressed; must be the model's.
    """

    valid_processor_kwargs = CompressedProcessingKwargs

    def __init__(
        self,
        image_processor: Any = None,
        tokenizer: Any = None,
        video_processor: Any = None,
        chat_template: str | None = None,
        compression: CompressionConfig | dict[str, Any] | None = None,
        **kwargs: Any,
    ):
        super().__init__(image_processor, tokenizer, video_processor, chat_template=chat_template, **kwargs)
        if not isinstance(compression, CompressionConfig):
            compression = CompressionConfig.from_dict(compression or {})
        self.compression = compression

    def video_text(self, cells: Sequence[Cells], seconds: Sequence[float] | None) -> str:
        """What is written into the prompt in place of a video's placeholder.

        Args:
            cells: How every grid that remains is divided, in time order.
            seconds: Time of each; ``None``: not known.
        """
        raise NotImplementedError

    def video_ids(self, cells: Sequence[Cells], seconds: Sequence[float] | None) -> list[int]:
        """Token ids of `video_text`."""
        short = self.video_text([(1, 1)] * len(cells), seconds)
        counts = iter(cells)
        return [
            token
            for token in self.tokenizer(short, add_special_tokens=False)["input_ids"]
            for _ in range(token_count(next(counts)) if token == self.video_token_id else 1)
        ]

    def grid_seconds(self, frame_seconds: Sequence[float]) -> tuple[float, ...]:
        """Time of each temporal grid, by default that of its first frame."""
        return tuple(frame_seconds[:: self.family.frames_per_grid])

    @property
    def family(self) -> Family:
        """What depends on the model's family."""
        return family_of(self)

    @property
    def cell_pixels(self) -> int:
        """Pixels along each side of a visual token; frames are multiples of it."""
        return int(self.video_processor.patch_size * self.video_processor.merge_size)

    @property
    def frame_pixels(self) -> int:
        """Most pixels of a frame."""
        return int(self.video_processor.size["longest_edge"])

    def to_dict(self) -> dict[str, Any]:
        """Returns the configuration as JSON-serialisable values."""
        return {**super().to_dict(), "compression": self.compression.to_dict()}

    @property
    def model_input_names(self) -> list[str]:
        """Names of the tensors that the model takes."""
        ours = ("video_grid_events", "video_grid_seconds", "video_event_shares", "video_token_limits")
        return [*super().model_input_names, *ours]

    def __call__(self, images: Any = None, text: Any = None, videos: Any = None, **kwargs: Any) -> BatchFeature:
        """As the family's; videos may also come as ``qwen_vl_utils.process_vision_info`` returns them."""
        videos, kwargs = separate_metadata(videos, kwargs, samples=self.video_processor.do_sample_frames)
        return super().__call__(images=images, text=text, videos=videos, **kwargs)

    def apply_chat_template(self, conversation: Any, *args: Any, **kwargs: Any) -> Any:
        """Renders a conversation; a special token inside a text is defused by a space after its first character.

        So ``<|video_pad|>`` in a question arrives as ``< |video_pad|>``: readable, but no placeholder.

        Raises:
            ChatTemplateError: The checkpoint's template fails, or does not come to an end, see
                `marc.model.chat_templates`.
        """
        with bounded_rendering():
            return super().apply_chat_template(self._defuse(conversation), *args, **kwargs)

    def plan(
        self,
        grid_thw: Sequence[int],
        compression: CompressionConfig | None = None,
        *,
        events: Sequence[int] | None = None,
        shares: Sequence[int] | None = None,
        seconds: Sequence[float] | None = None,
    ) -> VideoPlan:
        """What will become of one video.

        Args:
            grid_thw: Temporal grids, height and width in patches.
            compression: The options; by default this processor's.
            events: Event id of each temporal grid; ``None``: see `plan_video`.
            shares: Tokens for each event.
            seconds: Time of each temporal grid, where the prompt says it.

        Raises:
            ValueError: If events, shares or the prompt's budget do not fit the video, or the layout not the family.
        """
        compression = compression or self.compression
        grids, height, width = (int(length) for length in grid_thw)
        size = (height // self.video_processor.merge_size, width // self.video_processor.merge_size)
        if not compression.enabled:
            return VideoPlan.whole(grids, size)
        if compression.rule is not None and self.family.tower_with_attention is None:
            raise ValueError(
                f"the layout {compression.layout} keeps single tokens, and {self.family.title} writes times between "
                "the grids of a video: choose the layout events or frames, or a model of another family"
            )
        plan_at = partial(plan_video, grids, size, compression, events=events, shares=shares)
        most = compression.prompt_tokens
        if most is None:
            return plan_at()
        overhead = self.event_overhead(max(seconds, default=0.0) if seconds else 0.0)
        room = most_grids(most - VISION_MARKS, overhead)
        cost = partial(self.prompt_tokens, seconds=seconds)
        tokens = fit_into_prompt(lambda tokens: plan_at(limit=(tokens, room)), cost, most)
        return plan_at(limit=(tokens, room))

    def event_overhead(self, seconds: float) -> int:
        """Tokens that a temporal grid at such a time costs in the prompt beside its visual ones."""
        return len(self.video_ids([(1, 1)], [seconds])) - 1

    def prompt_tokens(self, plan: VideoPlan, seconds: Sequence[float] | None) -> int:
        """What a video costs in the prompt: all that stands where its placeholder and the marks around it stood."""
        return len(self.video_ids(plan.cells, None if seconds is None else plan.seconds(seconds))) + VISION_MARKS

    def _process_videos(
        self,
        videos: Any,
        video_events: Sequence[Sequence[int]] | None = None,
        video_seconds: Sequence[Sequence[float]] | None = None,
        video_shares: Sequence[Sequence[int] | None] | None = None,
        **kwargs: Any,
    ) -> tuple[BatchFeature, list[str]]:
        videos, kwargs["video_metadata"] = with_whole_grids(videos, kwargs.get("video_metadata"))
        if kwargs.get("num_frames"):
            kwargs.setdefault("fps", None)  # else the processor's own rate would contradict it
        videos, kwargs = self._sample(videos, kwargs)
        processed, placeholders = super()._process_videos(videos, **kwargs)
        grids = processed["video_grid_thw"].tolist()
        _check_videos(grids, video_events, video_seconds, video_shares)
        processed.update(self._planning_inputs(video_events, video_seconds, video_shares))
        if video_seconds is None and not self.compression.enabled:
            return processed, placeholders
        plans, texts = [], []
        for video, grid_thw in enumerate(grids):
            seconds = self._sampled_seconds(processed, video) if video_seconds is None else video_seconds[video]
            events, shares = _of(video_events, video), _of(video_shares, video)
            plan = self.plan(grid_thw, events=events, shares=shares, seconds=seconds)
            plans.append(plan)
            texts.append(self.video_text(plan.cells, None if seconds is None else plan.seconds(seconds)))
        if self.compression.enabled and self.compression.prompt_tokens is not None:
            processed["video_token_limits"] = torch.tensor([(plan.budget, plan.most_grids) for plan in plans])
        return processed, texts

    def _sample(self, videos: Any, options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Takes some of the frames, where the base class would take others than it is asked for."""
        return videos, options

    def _sampled_seconds(self, processed: BatchFeature, video: int) -> Sequence[float] | None:
        """Times of a video's temporal grids, where the prompt needs them, as the base class would write them."""
        return None

    def _planning_inputs(
        self,
        events: Sequence[Sequence[int]] | None,
        seconds: Sequence[Sequence[float]] | None,
        shares: Sequence[Sequence[int] | None] | None,
    ) -> dict[str, torch.Tensor]:
        """Event ids, times and shares of several videos as the model takes them: one padded row per video."""
        inputs = {}
        if events is not None and self.compression.enabled:
            inputs["video_grid_events"] = _padded(events, torch.long)
        if seconds is not None:
            inputs["video_grid_seconds"] = _padded(seconds, torch.float64)
        if shares is not None and self.compression.enabled:
            inputs["video_event_shares"] = _padded([row or [] for row in shares], torch.long)
        return inputs

    def _defuse(self, conversation: Any) -> Any:
        """Copies a conversation, or a batch of them, with harmless texts."""
        if isinstance(conversation, str):
            return self._special_token.sub(lambda match: f"{match[0][0]} {match[0][1:]}", conversation)
        if isinstance(conversation, dict):
            defused = ("content", "text")
            return {key: self._defuse(value) if key in defused else value for key, value in conversation.items()}
        if isinstance(conversation, list | tuple):
            return [self._defuse(item) for item in conversation]
        return conversation

    @property
    def _special_token(self) -> re.Pattern[str]:
        tokens = {token.content for token in self.tokenizer.added_tokens_decoder.values() if token.special}
        return re.compile("|".join(map(re.escape, sorted(tokens, key=len, reverse=True))))


def frame_patches(video_processor: Any, rgb_THWC: NDArray[np.uint8]) -> tuple[torch.Tensor, torch.Tensor]:
    """What the vision tower reads of frames that have their final size already.

    Args:
        video_processor: The family's.
        rgb_THWC: ``uint8 [T, H, W, 3]``.

    Returns:
        ``pixel_values_videos``, ``float32 [G * P, C]`` for G temporal grids of P patches, and ``video_grid_thw``.
    """
    count = len(rgb_THWC)
    metadata = VideoMetadata(total_num_frames=count, fps=1.0, frames_indices=list(range(count)))
    video = video_processor(
        [rgb_THWC], video_metadata=[metadata], do_sample_frames=False, do_resize=False, return_tensors="pt"
    )
    return video["pixel_values_videos"], video["video_grid_thw"]


def _check_videos(
    grids: Sequence[Sequence[int]],
    events: Sequence[Sequence[int]] | None,
    seconds: Sequence[Sequence[float]] | None,
    shares: Sequence[Sequence[int] | None] | None,
) -> None:
    """Refuses events, times and shares that are not those of the videos."""
    for name, values in (("events", events), ("seconds", seconds), ("shares", shares)):
        if values is not None and len(values) != len(grids):
            raise ValueError(f"video_{name} has {len(values)} entries for {len(grids)} videos; give one per video")
    for video, (count, *_) in enumerate(grids):
        if seconds is not None and len(seconds[video]) != count:
            raise ValueError(
                f"video {video} has {len(seconds[video])} times for {count} temporal grids; give one each"
            )
        if seconds is not None and not _are_times(seconds[video]):
            raise ValueError(f"video {video}: times must be numbers from 0 on that do not fall, got {seconds[video]}")
        if events is not None:
            event_lengths(events[video], count)


def _are_times(seconds: Sequence[float]) -> bool:
    times = np.asarray(seconds, dtype=float)
    return bool(np.isfinite(times).all() and (times >= 0).all() and (np.diff(times) >= 0).all())


def _of(values: Sequence[Any] | None, video: int) -> Any:
    return None if values is None else values[video]


def _padded(rows: Sequence[Sequence[float]], dtype: torch.dtype) -> torch.Tensor:
    """Stacks rows of unequal length, with zeros at their ends."""
    longest = max(len(row) for row in rows)
    return torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows], dtype=dtype)
