"""How micro-world videos are seen: which frames are read, and the visual tokens that the model makes of them.

Frames are rendered instead of decoded; all else is what `marc ask` does: its plan of frames, the tower, the model's
own compression and positions. `experiments.ablation.heldout` compares the two on files.

Shapes: T world frames, G temporal grids, P cells, D features, N visual tokens, V videos.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from experiments.tiny_model.bank import VisualTokens
from experiments.tiny_model.tower import grids_to_patches
from marc.compression.merge import compress_planned
from marc.compression.plan import plan_video
from marc.memory.descriptors import BlockDescriptors, Descriptors, block_means
from marc.memory.events import cut_into_events, evenly_inside
from marc.memory.select import FramePlan, RememberedEvents, plan_frames, top_k
from marc.memory.vectors import neighbour_similarity
from marc.model import CompressionConfig, MarcForConditionalGeneration
from marc.model.modeling import PlannedGrid
from marc.model.qwen2_5_vl.vision import encode_grids
from marc.types import Event, Retrieval
from marc.world.export import FileOptions, cuts_in_seconds
from marc.world.measure import PATCHES, pad_left
from marc.world.scenes import WorldVideo

SECONDS_PER_FRAME = FileOptions().seconds_per_frame
FPS = 1 / SECONDS_PER_FRAME


@dataclass(frozen=True)
class SeenVideo:
    """What the language model reads of one video: features ``[N, D]`` and relative positions ``int64 [N, 3]``."""

    features: Tensor
    positions: Tensor


def stack(videos: Sequence[SeenVideo]) -> VisualTokens:
    """Several videos, padded on the left."""
    return pad_left([(video.features.float(), video.positions) for video in videos])


class Viewer:
    """Shows videos to a model whose tower does not change.

    Args:
        model: The model.
    """

    def __init__(self, model: MarcForConditionalGeneration) -> None:
        self.model = model

    @torch.no_grad()
    def grids(self, frames_THWC: Tensor, seconds: np.ndarray) -> Tensor:
        """Tower features ``[G, P, D]`` of the frames of a video that are shown at the given times."""
        index = np.clip((seconds / SECONDS_PER_FRAME).astype(int), 0, len(frames_THWC) - 1)
        pairs = frames_THWC[torch.from_numpy(index)].float().unflatten(0, (-1, 2)) / 255
        return encode_grids(self.model.model.visual, grids_to_patches(pairs))

    def see(self, frames_THWC: Tensor, plan: FramePlan, compression: CompressionConfig) -> SeenVideo:
        """What is left of a video's planned frames.

        Args:
            frames_THWC: All frames of the video, ``uint8``, from `marc.world.renderer.render_video`.
            plan: Which to read.
            compression: How they are compressed.
        """
        return self.compress(self.grids(frames_THWC, plan.seconds), plan, compression)

    @torch.no_grad()
    def compress(self, tokens_GPD: Tensor, plan: FramePlan, compression: CompressionConfig) -> SeenVideo:
        """The same from the tower's features."""
        vision = self.model.config.vision_config
        cells = PATCHES // vision.spatial_merge_size
        grids = len(tokens_GPD)
        video_plan = None
        features = tokens_GPD.flatten(0, 1)
        if compression.enabled:
            events = plan.grid_events.tolist()
            video_plan = plan_video(grids, (cells, cells), compression, events=events, shares=plan.shares)
            features = compress_planned(tokens_GPD[None], video_plan)[0].flat
        grid = PlannedGrid(grids, PATCHES, PATCHES, video_plan, plan.seconds[::2].tolist())
        positions = self.model.model.get_vision_position_ids(
            0, grid, spatial_merge_size=vision.spatial_merge_size, device="cpu"
        )
        return SeenVideo(features, positions.T.contiguous())


def remembered_events(video: WorldVideo, frames_THWC: Tensor) -> tuple[Event, ...]:
    """The events that the memory makes of a video whose cuts are all found: its own rules, without the network."""
    cuts = cuts_in_seconds(video)
    duration = len(frames_THWC) * SECONDS_PER_FRAME
    step = int(FPS)
    blocks = block_means(frames_THWC[::step].numpy(), BlockDescriptors.ROWS, BlockDescriptors.COLUMNS)
    descriptors = Descriptors(np.arange(len(blocks), dtype=np.float64), blocks.reshape(len(blocks), -1))
    return tuple(cut_into_events(cuts, duration, descriptors))


def whole_video(events: Sequence[Event], compression: CompressionConfig) -> FramePlan:
    """Every frame of a video; its events are told apart in the event layout only, as without a memory."""
    seconds = evenly_inside(Event(events[0].start, events[-1].end), round(FPS * (events[-1].end - events[0].start)))
    starts = [event.start for event in events[1:]]
    ids = np.searchsorted(starts, seconds[::2], side="right")
    return FramePlan(seconds, ids if compression.layout == "events" else np.zeros_like(ids), tuple(events))


def retrieved(
    memory: RememberedEvents, scores: Sequence[float], k: int, compression: CompressionConfig, *, budget: int
) -> FramePlan:
    """What `marc ask` reads for a question: the k best events, or in the event layout all, with more tokens for these.

    Args:
        memory: Of the video.
        scores: Similarity of the question with each event.
        k: Events to keep.
        compression: Its layout decides.
        budget: Visual tokens of the video.
    """
    kept = tuple(sorted(top_k(scores, k)))
    similarity = neighbour_similarity(memory.embeddings)
    retrieval = Retrieval(memory.events, tuple(scores), kept, tuple(similarity.tolist()))
    if compression.layout == "frames":
        return plan_frames(retrieval, fps=FPS)
    return plan_frames(retrieval, fps=FPS, mode="allocate", token_budget=budget)
