"""What ordering events by their best keyframe gains where events hold several scenes, on the micro-world.

    python -m experiments.tiny_model.joined_scenes --scenes 1 2 3

Neighbouring scenes of a test video are joined, as where a segmenter misses cuts. A question is about one scene; its
event should come first, by the cosine with the mean of the event's keyframes, and with its best keyframe as a library
keeps it (`marc.memory.vectors.rounded`). Three keyframes of each scene, the embedded encoder, videos with two joined
events at least.

Shape legend: E events, K keyframes, D embedding dimensions.
"""

from __future__ import annotations

import argparse

import numpy as np
from numpy.typing import NDArray

from experiments.tiny_model.dual_encoder import WEIGHTS
from marc.memory.embedder import EventEmbedder
from marc.memory.vectors import average_direction, highest_cosine, rounded
from marc.world.questions import draw_questions
from marc.world.renderer import render_video
from marc.world.scenes import WorldVideo, sample_video, video_rng

QUESTIONS = 6
KEYFRAMES = 3


def hits(embedder: EventEmbedder, scenes: int, seed: int, videos: int) -> NDArray[np.bool_]:
    """Whether the right event is first, of each question by mean and by best keyframe, ``[Q, 2]``."""
    found: list[tuple[bool, bool]] = []
    for index in range(videos):
        video = sample_video("easy", "test", seed, index)
        if len(video.events) <= scenes:
            continue
        events = [embedder.embed_frames(frames) for frames in joined_keyframes(video, scenes)]
        means_ED, looks = np.stack([average_direction(each) for each in events]), [rounded(each) for each in events]
        rng = video_rng("easy", "test", seed, -1 - index)
        asked = draw_questions(video, rng, QUESTIONS, weights=WEIGHTS, choice_rate=0)
        for question, embedded in zip(asked, embedder.embed_questions([one.text for one in asked]), strict=True):
            assert question.event is not None
            right = question.event // scenes
            best = [highest_cosine(embedded.vector, each_KD) for each_KD in looks]
            found.append((int((means_ED @ embedded.vector).argmax()) == right, int(np.argmax(best)) == right))
    return np.array(found)


def joined_keyframes(video: WorldVideo, scenes: int) -> list[NDArray[np.uint8]]:
    """Keyframes ``uint8 [K, H, W, 3]`` of so many neighbouring scenes each."""
    ends = np.cumsum([2 * event.grids for event in video.events])
    parts = np.array_split(render_video(video).numpy(), ends[:-1])
    spread = [part[np.linspace(0, len(part) - 1, KEYFRAMES + 2)[1:-1].astype(int)] for part in parts]
    return [np.concatenate(spread[first : first + scenes]) for first in range(0, len(spread), scenes)]


def main() -> None:
    """Entry point of ``python -m experiments.tiny_model.joined_scenes``."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--scenes", type=int, nargs="+", default=[1, 2, 3], help="joined to an event")
    parser.add_argument("--videos", type=int, default=400, help="drawn; those of too few scenes are left out")
    parser.add_argument("--seed", type=int, default=5)
    options = parser.parse_args()
    embedder = EventEmbedder.from_pretrained("tiny", device="cpu")
    print("| scenes of an event | questions | by mean | by best keyframe |\n|---|---|---|---|")
    for scenes in options.scenes:
        found = hits(embedder, scenes, options.seed, options.videos)
        mean, best = 100 * found.mean(axis=0)
        print(f"| {scenes} | {len(found):,} | {mean:.1f} % | {best:.1f} % |")


if __name__ == "__main__":
    main()
