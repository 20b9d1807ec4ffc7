"""A micro-world that does not end: scenes follow one another for minutes, with questions about any moment of it.

A stream is a `WorldVideo` of many scenes of level ``easy``. Scenes come again with other objects, so a question about
the past names something that was seen once until the moment of the question.
"""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import accumulate

import numpy as np

from marc.world.export import FileOptions
from marc.world.questions import ABOUT_ONE_EVENT, WorldQuestion, ask
from marc.world.scenes import COLOURS, DIRECTIONS, LEVELS, SHAPES, Palette, Split, WorldVideo, sample_event, video_rng

SHORTEST, LONGEST = 4, 12
"""Grids of a scene: seconds at the default pace."""
STREAMS = 2_000_000_000
"""Added to a stream's number, so that no video of the world has its scenes."""
PRESENT = 1.0
"""Seconds for which a scene has been shown, at least, when it is asked about."""
PAST = 2.0
"""Seconds for which a scene has been over, at least: none of it is among the last four frames."""
_DRAWS = 200


def sample_stream(split: Split, seed: int, index: int, scenes: int) -> WorldVideo:
    """Draw a stream: the same arguments give the same one on every machine.

    Args:
        split: Which split.
        seed: Seed of the whole set.
        index: Number of the stream in it.
        scenes: How many follow one another; two in a row have different backgrounds.
    """
    rng, settings = video_rng("easy", split, seed, STREAMS + index), LEVELS["easy"]
    palette = Palette(COLOURS, SHAPES, DIRECTIONS)
    events, background = [], ""
    for _ in range(scenes):
        others = [each for each in settings.backgrounds if each != background]
        background = str(rng.choice(others))
        grids = int(rng.integers(SHORTEST, LONGEST + 1))
        events.append(sample_event(rng, settings, palette, background, grids))
    return WorldVideo(f"stream-{split}-{seed}-{index:06d}", "easy", tuple(events))


def scene_ends(video: WorldVideo, options: FileOptions = FileOptions()) -> list[float]:
    """When each scene is over, in seconds."""
    return list(accumulate(2 * event.grids * options.seconds_per_frame for event in video.events))


def seen_until(video: WorldVideo, second: float, options: FileOptions = FileOptions()) -> WorldVideo:
    """The scenes that have begun by a moment, the last one as long as it has been shown."""
    ends = scene_ends(video, options)
    count = min(1 + sum(end <= second for end in ends), len(ends))
    begun = ends[count - 2] if count > 1 else 0.0
    grids = max(1, math.ceil((second - begun) / (2 * options.seconds_per_frame)))
    last = video.events[count - 1]
    return replace(video, events=(*video.events[: count - 1], replace(last, grids=min(grids, last.grids))))


def past_question(
    video: WorldVideo, second: float, rng: np.random.Generator, options: FileOptions = FileOptions()
) -> WorldQuestion | None:
    """A question about a scene that is over; None if none can be told from the others."""
    seen = seen_until(video, second, options)
    ends = scene_ends(video, options)
    backgrounds = [event.background for event in seen.events]
    for _ in range(_DRAWS):
        kind = str(rng.choice(ABOUT_ONE_EVENT))
        question = ask(seen, kind, rng, multiple_choice=rng.random() < 1 / 3)
        if question is None or question.event is None or ends[question.event] > second - PAST:
            continue
        is_named_by_object = kind in ("scene of object", "direction of object")
        if is_named_by_object or backgrounds.count(backgrounds[question.event]) == 1:
            return question
    return None


def present_question(
    video: WorldVideo, second: float, rng: np.random.Generator, options: FileOptions = FileOptions()
) -> WorldQuestion | None:
    """A question about the scene that is shown, which it calls the last one; None if that has only just begun."""
    seen = seen_until(video, second, options)
    last = len(seen.events) - 1
    begun = scene_ends(video, options)[last - 1] if last else 0.0
    if second - begun < PRESENT or not last:
        return None
    for _ in range(_DRAWS * len(seen.events)):
        question = ask(_short(seen), "ordinal", rng, multiple_choice=rng.random() < 1 / 3)
        if question is not None and "last" in question.text.split("?")[0].split():
            return question
    return None


def _short(seen: WorldVideo) -> WorldVideo:
    """The last scenes of a video, as many as a video of its level has: wrong options are true of these."""
    return replace(seen, events=seen.events[-LEVELS["easy"].max_events :])
