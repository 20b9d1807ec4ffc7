"""What a model sees of videos, pictures and frames for a question: chosen, read, planned and encoded, each once.

Shapes: T frames, H height, W width.
"""

from __future__ import annotations

import logging
import os
import sys
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property, partial, wraps
from itertools import groupby
from threading import RLock
from typing import Any, Concatenate, NamedTuple, ParamSpec, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from marc.compression import CompressionConfig
from marc.compression.plan import VideoPlan, grid_cost
from marc.inference.backend import Backend
from marc.inference.kept_frames import KeptFrames, state_of
from marc.inference.live import LiveView, clip_of, describe, look_at
from marc.inference.query import budget_for
from marc.inference.remarks import about_footage, remarks
from marc.inference.seen import Footage, SeenVideo, Shown, shown_now
from marc.inference.selectors import FrameRequest, FrameSelector, Selection, UniformSelector
from marc.inference.stages import StageClock
from marc.inference.subtitles import LazySubtitles, said_in
from marc.inference.video_input import VideoInput, VisualPatches
from marc.io import sha256_of
from marc.memory.live.snapshot import LiveSnapshot
from marc.types import FRAMES_PER_GRID, VISION_MARKS, Clip, Event, Frames, VideoInfo
from marc.video import frame_size, probe
from marc.video.options import FrameOptions, SubtitleOptions
from marc.video.pictures import is_picture, picture_size, read_picture

logger = logging.getLogger(__name__)

KEPT_VIDEOS = 8
"""How many encoded videos an assistant keeps."""
SIDE_BY_SIDE = 4
"""How many videos at most are read at the same time and encoded together, which bounds memory."""

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")
_Viewer = TypeVar("_Viewer", bound="Viewer")


@dataclass(frozen=True)
class _Wanted:
    """What is to be seen of a video, picture or given frames, and how to get it.

    Attributes:
        source: The file; None of frames.
        look: What is shown of it, and how.
        stage: What reading it is called.
        read: Reads it.
        patches: Makes of that what the vision tower reads.
        tell: Makes the record of it once it is encoded.
        compression: The budget at which it is seen.
        shares: Tokens of each event; None: equal ones.
    """

    source: str | None
    look: tuple[Hashable, ...]
    stage: str
    read: Callable[[], Any]
    patches: Callable[[Any], VisualPatches]
    tell: Callable[[VideoInput], SeenVideo]
    compression: CompressionConfig
    shares: tuple[int, ...] | None = None

    @cached_property
    def key(self) -> Hashable:
        """What tells it from everything else that this model may see."""
        return None if self.source is None else state_of(self.source), self.look


class StoredVideo(NamedTuple):
    """What an encoded video or picture is made from again, without its frames."""

    patches: VisualPatches
    features: Tensor
    members: Tensor | None
    places: Tensor | None = None


class FeatureStore(Protocol):
    """Keeps encoded videos and pictures beyond the life of a process."""

    def find(self, source: str, look: str) -> StoredVideo | None:
        """What a file's content gave when it was looked at like this; None if it is not there."""
        ...

    def keep(self, source: str, look: str, video: VideoInput) -> None:
        """Keeps what a file gave."""
        ...


def in_turn(
    method: Callable[Concatenate[_Viewer, _Arguments], _Result],
) -> Callable[Concatenate[_Viewer, _Arguments], _Result]:
    """Has threads wait for each other."""

    @wraps(method)
    def guarded(self: _Viewer, *args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
        with self._lock:
            return method(self, *args, **kwargs)

    return guarded


class Viewer:
    """Chooses, reads and encodes what a model sees for a question, and keeps it for the next one.

    Attributes:
        backend: The engine that encodes.
        selector: Chooses the frames of videos.
        frames: How many frames are read, and how large.
        subtitles: What subtitles are used for.
        store: Keeps what was encoded beyond the life of this process; None: nothing does.

    Args:
        backend: The engine, see `marc.inference.backend`.
        selector: Chooses the frames, see `marc.inference.selectors`; by default evenly.
        frames: How many frames are read, and how large.
        subtitles: What subtitles are used for.
    """

    def __init__(
        self,
        backend: Backend,
        selector: FrameSelector | None,
        frames: FrameOptions | None,
        subtitles: SubtitleOptions | None,
    ) -> None:
        self.backend = backend
        self.selector = selector or UniformSelector()
        self.frames = frames or FrameOptions()
        self.subtitles = subtitles or SubtitleOptions()
        self.store: FeatureStore | None = None
        self._inputs: OrderedDict[Hashable, VideoInput] = OrderedDict()
        self._frames = KeptFrames()
        self._lock = RLock()

    def view(self, video: Footage, question: str, clock: StageClock | None = None) -> SeenVideo:
        """Chooses, reads and encodes what the model will see of a video for a question.

        Args:
            video: A file, a stretch of one, or frames: these are all shown, up to the limit of frames.
            question: What is asked.
            clock: Is told what the stages took.

        Returns:
            The encoded video, from an earlier question if it needed the same frames at the same budget, and why it was
            chosen.

        Raises:
            ValueError: If the file cannot be read (a `marc.video.VideoError`) or an option is wrong.
        """
        return self.view_all([(video, question)], clock)[0]

    @in_turn
    def view_all(self, asked: Sequence[tuple[Footage, str]], clock: StageClock | None = None) -> list[SeenVideo]:
        """As `view`, of several videos, each with its question: read side by side and encoded together."""
        clock = clock or StageClock(self.backend.device)
        wanted = [self._wanted(shown_now(video), question, clock) for video, question in asked]
        seen = {key: self._inputs[key] for each in wanted if (key := each.key) in self._inputs}
        missing = list({each.key: each for each in wanted if each.key not in seen}.values())
        seen |= {each.key: video for each in missing if (video := self._stored(each)) is not None}
        missing = [each for each in missing if each.key not in seen]
        for first in range(0, len(missing), SIDE_BY_SIDE):
            seen |= self._encoded(missing[first : first + SIDE_BY_SIDE], clock)
        return [each.tell(self._kept(each.key, seen[each.key])) for each in wanted]

    def _wanted(self, video: Shown, question: str, clock: StageClock) -> _Wanted:
        if isinstance(video, Frames):
            return self._wanted_frames(video, question)
        if isinstance(video, LiveSnapshot):
            return self._wanted_live(video, question, clock)
        if is_picture(video.source, timeout=self.frames.timeout):
            return self._wanted_picture(video)
        return self._wanted_clip(video, question, clock)

    @in_turn
    def forget(self) -> None:
        """Drops what was read of videos; their memories on disk stay."""
        self._inputs.clear()
        self._frames.clear()

    @property
    def pixel_limits(self) -> dict[str, int]:
        """``min_pixels``, ``max_pixels`` and ``factor`` at which frames are read, see `marc.video.frame_size`."""
        video_processor = self.backend.processor.video_processor
        factor = video_processor.patch_size * video_processor.merge_size
        largest = self.frames.max_pixels or min(self.backend.processor.frame_pixels, 256 * factor**2)
        smallest = self.frames.min_pixels or min(4 * factor**2, largest)
        return {"min_pixels": smallest, "max_pixels": largest, "factor": factor}

    def events_in_one_budget(self, source: str) -> int:
        """Of how many events, each of a video of its own that is like this one, a budget has room for a token each."""
        compression, info = self.backend.compression, probe(source, timeout=self.frames.timeout)
        limits: list[int] = []
        if compression.enabled and compression.takes_shares:
            if compression.tokens_per_event is None:
                limits.append(compression.token_budget(self._cells(info), 1))
            if compression.visual_tokens is not None:
                limits.append(compression.visual_tokens)
            if compression.prompt_tokens is not None:
                least = VISION_MARKS + grid_cost(self.backend.processor.event_overhead(info.duration))
                limits.append(max(1, compression.prompt_tokens // least))
        return min(limits, default=sys.maxsize)

    def _wanted_clip(self, clip: Clip, question: str, clock: StageClock) -> _Wanted:
        with clock.stage("probe"):
            info = probe(clip.source, timeout=self.frames.timeout)
        subtitles = LazySubtitles(info.source, self.subtitles, self.frames.timeout, info.duration)
        request = FrameRequest(
            info,
            question,
            self.frames,
            self._budget(question),
            self._cells(info),
            self.backend.processor.event_overhead(info.duration),
            clock,
            clip,
            subtitles.read,
        )
        stretch = request.stretch
        if clip.found is None:
            selection = self.selector.select(request)
        else:
            subtitles.read()
            selection = Selection.of_events(request, clip.found, request.most_events)
        logger.info("%s: %d frames from %g s to %g s", info.source, len(selection.seconds), stretch.start, stretch.end)
        for event in selection.kept_events:
            logger.info("%s: retrieved %.1f-%.1f s", info.source, event.start, event.end)
        limits, frames = self.pixel_limits, self.frames
        chosen = (tuple(selection.seconds.tolist()), selection.grid_events, selection.shares)
        return _Wanted(
            info.source,
            (*chosen, *limits.values(), frames.backend, request.compression),
            "video_decode",
            partial(
                self._frames.read,
                info.source,
                selection.seconds,
                backend=frames.backend,
                timeout=frames.timeout,
                **limits,
            ),
            partial(self._patches, selection.grid_events),
            partial(self._seen_clip, request, selection, subtitles),
            request.compression,
            selection.shares,
        )

    def _seen_clip(
        self, request: FrameRequest, selection: Selection, subtitles: LazySubtitles, video: VideoInput
    ) -> SeenVideo:
        info, stretch = request.info, request.stretch
        logger.info("%s: %d visual tokens -> %d", info.source, video.patches.tokens, video.tokens)
        shown = selection.kept_events or (stretch,)
        said = said_in(subtitles.read(), shown) if self.subtitles.in_prompt else ""
        return SeenVideo(
            info,
            selection,
            video,
            self._uncompressed(video),
            stretch,
            _budget(video, request.shared_budget),
            subtitles=subtitles.used,
            said=said,
            remarks=(*remarks(self.backend, request, selection, video), *subtitles.remarks),
        )

    def _wanted_live(self, snapshot: LiveSnapshot, question: str, clock: StageClock) -> _Wanted:
        info, limits = describe(snapshot), self.pixel_limits
        compression = self._budget(question)
        overhead = self.backend.processor.event_overhead(info.duration)
        request = FrameRequest(
            info, question, self.frames, compression, self._cells(info), overhead, clock, clip_of(snapshot)
        )
        view = look_at(snapshot, request, self.selector)
        selection, size = view.selection, frame_size(info.width, info.height, source=info.source, **limits)
        frames = view.read(size, info)
        logger.info("%s; %d frames are shown", snapshot.seen_until(), len(frames))
        return _Wanted(
            None,
            (view.key, selection.seconds.tobytes(), selection.grid_events, selection.shares, size, compression),
            "video_decode",
            lambda: frames,
            partial(self._patches, selection.grid_events),
            partial(self._seen_live, request, view, frames),
            compression,
            selection.shares,
        )

    def _seen_live(self, request: FrameRequest, view: LiveView, frames: Frames, video: VideoInput) -> SeenVideo:
        return SeenVideo(
            request.info,
            view.selection,
            video,
            self._uncompressed(video),
            request.stretch,
            _budget(video, request.shared_budget),
            frames,
            remarks=(*remarks(self.backend, request, view.selection, video), *view.remarks),
        )

    def _wanted_frames(self, frames: Frames, question: str = "") -> _Wanted:
        info, compression = _described(frames), self._budget(question)
        chosen = _up_to(frames, self.frames.max_frames)
        width, height = frame_size(info.width, info.height, source=info.source, **self.pixel_limits)
        resized = replace(chosen, rgb=np.stack([_resized(picture, (width, height)) for picture in chosen.rgb]))
        return _Wanted(
            None,
            (sha256_of(resized.rgb.tobytes()), chosen.seconds.tobytes(), compression),
            "video_decode",
            lambda: resized,
            partial(self._patches, None),
            partial(self._seen_frames, info, resized),
            compression,
        )

    def _seen_frames(self, info: VideoInfo, resized: Frames, video: VideoInput) -> SeenVideo:
        noted = tuple(about_footage(self.backend, info))
        before, budget = self._uncompressed(video), _budget(video, None)
        selection, stretch = Selection(resized.seconds), Event(0.0, info.duration)
        return SeenVideo(info, selection, video, before, stretch, budget, resized, remarks=noted)

    def _wanted_picture(self, clip: Clip) -> _Wanted:
        if clip.start or clip.end is not None:
            raise ValueError(f"{clip.source}: a picture has no start and no end")
        source, limits, timeout = str(clip.source), self.pixel_limits, self.frames.timeout
        width, height = picture_size(source, timeout=timeout)
        info = VideoInfo(source, width, height, duration=0.0, fps=0.0, frame_count=1, codec="")
        size = frame_size(width, height, source=source, **limits)
        return _Wanted(
            source,
            ("picture", self.backend.compression, *limits.values()),
            "picture_decode",
            partial(read_picture, source, size, timeout=timeout),
            partial(VisualPatches.of_picture, self.backend.processor, source=source),
            partial(self._seen_picture, info),
            self.backend.compression,
        )

    def _seen_picture(self, info: VideoInfo, video: VideoInput) -> SeenVideo:
        noted, before = tuple(about_footage(self.backend, info)), video.patches.tokens + VISION_MARKS
        return SeenVideo(info, Selection(np.zeros(0)), video, before, remarks=noted)

    def _budget(self, question: str) -> CompressionConfig:
        return budget_for(question, self.backend.compression)

    def _uncompressed(self, video: VideoInput) -> int:
        """Tokens that a video would cost in the prompt."""
        whole = VideoPlan.whole(video.patches.grid_thw[0], video.patches.size)
        return int(self.backend.processor.prompt_tokens(whole, video.seconds))

    def _cells(self, info: VideoInfo) -> int:
        """Visual tokens of one temporal grid of a video."""
        limits = self.pixel_limits
        width, height = frame_size(info.width, info.height, source=info.source, **limits)
        return (width // limits["factor"]) * (height // limits["factor"])

    def _encoded(self, wanted: Sequence[_Wanted], clock: StageClock) -> dict[Hashable, VideoInput]:
        """What the model sees of some videos, by their keys."""
        videos = {each.key: self._planned(each, read, clock) for each, read in _read_side_by_side(wanted, clock)}
        self.backend.encode(list(videos.values()), clock)
        for each in wanted:
            if self.store is not None and each.source is not None:
                self.store.keep(each.source, repr(each.look), videos[each.key])
        return videos

    def _stored(self, wanted: _Wanted) -> VideoInput | None:
        """What was kept of an earlier process's, planned anew."""
        if self.store is None or wanted.source is None:
            return None
        if (found := self.store.find(wanted.source, repr(wanted.look))) is None:
            return None
        video = VideoInput.of(found.patches, self.backend.processor, wanted.compression, shares=wanted.shares)
        video.features = found.features.to(self.backend.device)
        video.members, video.places = found.members, found.places
        return video

    def _planned(self, wanted: _Wanted, read: Any, clock: StageClock) -> VideoInput:
        with clock.stage("preprocess"):
            patches = wanted.patches(read)
        return VideoInput.of(patches, self.backend.processor, wanted.compression, shares=wanted.shares)

    def _patches(self, events: tuple[int, ...] | None, frames: Frames) -> VisualPatches:
        return VisualPatches.of_frames(self.backend.processor, frames, events)

    def _kept(self, key: Hashable, video: VideoInput) -> VideoInput:
        self._inputs[key] = video
        self._inputs.move_to_end(key)
        if len(self._inputs) > KEPT_VIDEOS:
            self._inputs.popitem(last=False)
        return video


def _read_side_by_side(wanted: Sequence[_Wanted], clock: StageClock) -> Iterator[tuple[_Wanted, Any]]:
    """Everything that is wanted, with what was read: several at once where there are processors for it."""
    workers = min(len(wanted), os.cpu_count() or 1)
    for stage, some in groupby(wanted, lambda each: each.stage):
        alike = list(some)
        with clock.stage(stage):
            if workers == 1:
                read = [each.read() for each in alike]
            else:
                with ThreadPoolExecutor(workers) as pool:
                    read = list(pool.map(lambda each: each.read(), alike))
        yield from zip(alike, read, strict=True)


def _budget(video: VideoInput, shared: int | None) -> int | None:
    """Visual tokens that a video might have: its plan's, or its share of them."""
    planned = video.plan.budget if video.plan else None
    return min((each for each in (planned, shared) if each is not None), default=None)


def _described(frames: Frames) -> VideoInfo:
    """Given frames as if they were a file; it ends one mean distance after the last frame.

    Raises:
        ValueError: If there are none, or their times are no times.
    """
    count, seconds = len(frames), frames.seconds
    if not count or not np.isfinite(seconds).all() or (np.diff(seconds) < 0).any() or seconds[0] < 0:
        raise ValueError(
            f"{frames.source}: frames need times from 0 on that do not fall, got {count} frames at {seconds.tolist()}"
        )
    step = float(seconds[-1] - seconds[0]) / (count - 1) if count > 1 and seconds[-1] > seconds[0] else 1.0
    height, width = frames.rgb.shape[1:3]
    return VideoInfo(frames.source, width, height, float(seconds[-1]) + step, 1 / step, count, codec="")


def _up_to(frames: Frames, most: int) -> Frames:
    """At most so many of the frames, evenly chosen, in pairs: the last one twice if their number is odd."""
    count = min(len(frames), most - most % FRAMES_PER_GRID)
    chosen = np.linspace(0, len(frames) - 1, count).round().astype(int)
    chosen = np.pad(chosen, (0, -count % FRAMES_PER_GRID), mode="edge")
    return replace(frames, rgb=frames.rgb[chosen], seconds=frames.seconds[chosen])


def _resized(rgb_HWC: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """A picture ``uint8 [H, W, 3]`` at another width and height."""
    return np.asarray(Image.fromarray(rgb_HWC).resize(size, Image.Resampling.BICUBIC))
