"""What a user should know about an answer and would not see: each in one sentence, with what to do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from marc.memory.select import knows_generated_videos_only
from marc.types import FRAMES_PER_GRID, VideoInfo

if TYPE_CHECKING:
    from marc.inference.backend import Backend
    from marc.inference.selectors import FrameRequest, Selection
    from marc.inference.video_input import VideoInput

SPENT = 0.9
"""A budget of which less was used is remarked upon."""


def remarks(backend: Backend, request: FrameRequest, selection: Selection, seen: VideoInput) -> tuple[str, ...]:
    """Remarks on an answer.

    Args:
        backend: What answers.
        request: What frames were wanted for.
        selection: The frames.
        seen: What became of them.
    """
    return (
        *about_footage(backend, request.info),
        *_about_budget(seen, request.shared_budget),
        *_about_frames(request, selection),
        *_about_memory(selection),
    )


def about_footage(backend: Backend, info: VideoInfo) -> Iterator[str]:
    """Whether the model knows such footage."""
    if knows_generated_videos_only(getattr(backend.config, "embedder", None)) and not info.may_be_generated:
        yield (
            "this model knows generated videos only (marc world sample): what it says about real footage means "
            "nothing; choose another with --model"
        )


def about_options(options: Sequence[str], answer: str) -> Iterator[str]:
    """Whether an answer is one of those that were offered, by its letter or in full."""
    offered = {part.strip().casefold() for option in options for part in (option, *option.split(".", 1))}
    given = answer.strip().rstrip(".").casefold()
    if options and given not in offered and not given.startswith(tuple(f"{each}." for each in offered)):
        yield f"the answer {answer!r} is none of those that were offered"


def _about_budget(seen: VideoInput, shared: int | None) -> Iterator[str]:
    plan = seen.plan
    if plan is None or plan.budget is None:
        return
    if plan.tokens > plan.budget:
        yield f"{plan.tokens} visual tokens, not {plan.budget}: the layout {plan.rule} keeps no fewer of this video"
    most = min(each for each in (plan.budget, plan.tokens_before, shared) if each is not None)
    if plan.tokens >= SPENT * most:
        return
    if plan.rule is not None:
        yield f"{plan.tokens} of {most} visual tokens were used: the layout {plan.rule} keeps no more of this video"
        return
    grids = f"{len(plan.cells)} grid{'s' if len(plan.cells) > 1 else ''}"
    yield (
        f"{plan.tokens} of {most} visual tokens were used: what remains is {grids} of at most "
        f"{plan.size[0]} x {plan.size[1]} tokens"
    )


def _about_memory(selection: Selection) -> Iterator[str]:
    if selection.memory == "coarse" and selection.scope == "all":
        yield "how many events there are is what key frames say (memory: coarse), as the video is new; or use --wait"
    elif selection.memory == "coarse":
        yield (
            "answered from key frames alone (memory: coarse), as the video is new; ask again when it is remembered, "
            "or wait for that with --wait"
        )


def _about_frames(request: FrameRequest, selection: Selection) -> Iterator[str]:
    retrieval, events = selection.retrieval, selection.grid_events
    if retrieval is not None and selection.left_out:
        kept = len(retrieval.kept)
        found = kept + selection.left_out
        yield f"there was room for {kept} of {found} retrieved events: raise the budget or --max-frames"
    if retrieval is None or events is None or len(selection.seconds) < request.frames.max_frames - 1:
        return
    sparse = sum(retrieval.events[index].duration > FRAMES_PER_GRID / request.frames.fps for index in retrieval.kept)
    if sparse and len(events) < FRAMES_PER_GRID * len(set(events)):
        yield (
            f"{len(selection.seconds)} frames show most events once, as if nothing moved in them; raise --max-frames"
        )
