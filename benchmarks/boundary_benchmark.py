"""How well each shot detector finds known boundaries: precision, recall and F1 on generated videos.

A found transition is right if it overlaps a true one or misses it by at most 2 frames, the tolerance of the evaluation
script of TransNetV2 (Soucek and Lokoc 2020); each true transition can be found once. Videos of the kinds ``flash`` and
``motion`` have no boundary: there the table gives the false cuts and the number of disturbances. The videos go through
the same path as a user's: H.264 file, decoder, detector.

Run: ``python -m benchmarks.boundary_benchmark`` (``--help`` for the options); results are in docs/segmentation.md.
``--footage labels.csv`` takes your own videos instead: a header ``video,last,first`` and a line for every true
transition, with the index of the last frame of the earlier shot and of the first frame of the later
(``clip.mp4,29,30``); ``clip.mp4,,`` is a video without any. Paths are relative to the file.
``python -m benchmarks.fetch_footage`` fetches labelled clips.
"""

from __future__ import annotations

import csv
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from benchmarks.synthetic_cuts import FPS, KINDS, LabelledVideo, make_video
from marc.memory.detectors import ShotDetector
from marc.memory.detectors.scenedetect import SceneDetectDetector
from marc.memory.live.detection import LiveTransNetV2Detector
from marc.memory.shots import find_shots
from marc.video import probe, write_video

TOLERANCE = 2  # frames

FrameTransition = tuple[int, int]  # last frame of the earlier shot, first frame of the later one


@dataclass(frozen=True)
class Outcome:
    """Counts of one detector on the videos of one kind.

    Attributes:
        hits: True transitions that were found.
        missed: True transitions that were not.
        false: Found transitions that are none.
        disturbances: Flashes or fast movements in the videos.
    """

    hits: int = 0
    missed: int = 0
    false: int = 0
    disturbances: int = 0

    def __add__(self, other: Outcome) -> Outcome:
        return Outcome(
            self.hits + other.hits,
            self.missed + other.missed,
            self.false + other.false,
            self.disturbances + other.disturbances,
        )

    @property
    def precision(self) -> float:
        """Share of the found transitions that are right; 1 if none was found."""
        return self.hits / (self.hits + self.false) if self.hits + self.false else 1.0

    @property
    def recall(self) -> float:
        """Share of the true transitions that were found; 1 if there are none."""
        return self.hits / (self.hits + self.missed) if self.hits + self.missed else 1.0

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall."""
        total = 2 * self.hits + self.missed + self.false
        return 2 * self.hits / total if total else 1.0


def compare(truth: Sequence[FrameTransition], found: Sequence[FrameTransition], *, disturbances: int = 0) -> Outcome:
    """Matches found transitions with the true ones of a video, both in time order, at a tolerance of 2 frames."""
    hits, next_found = 0, 0
    for last, first in truth:
        while next_found < len(found) and found[next_found][1] + TOLERANCE - 1 < last:
            next_found += 1
        if next_found < len(found) and found[next_found][0] <= first + TOLERANCE - 1:
            hits += 1
            next_found += 1
    return Outcome(hits, len(truth) - hits, len(found) - hits, disturbances)


def evaluate(detector: ShotDetector, videos: Iterable[tuple[Path, LabelledVideo]]) -> dict[str, Outcome]:
    """Outcome of a detector by kind of video, for files and their truth."""
    outcomes: dict[str, Outcome] = {}
    for path, video in videos:
        shots, rate = find_shots(path, detector), probe(path).fps
        found = [(round(item.start * rate), round(item.end * rate)) for item in shots.transitions]
        outcome = compare(video.transitions, found, disturbances=video.disturbances)
        outcomes[video.kind] = outcomes.get(video.kind, Outcome()) + outcome
    return outcomes


def _transnetv2(*, exact: bool, gradual: bool) -> ShotDetector:
    from marc.memory.detectors.transnetv2 import TransNetV2Detector

    return TransNetV2Detector(exact=exact, gradual=gradual)


_DETECTORS: dict[str, Callable[[], ShotDetector]] = {
    "transnetv2": lambda: _transnetv2(exact=False, gradual=True),
    "transnetv2, every frame": lambda: _transnetv2(exact=True, gradual=True),
    "transnetv2, as published": lambda: _transnetv2(exact=True, gradual=False),
    "transnetv2, live": LiveTransNetV2Detector,
    "scenedetect": SceneDetectDetector,
}


def main(
    seeds: Annotated[int, typer.Option(min=1, help="Videos of each kind; each has 8 shots or 8 disturbances.")] = 4,
    first_seed: Annotated[int, typer.Option(min=0, help="Seed of the first video of each kind.")] = 0,
    detector: Annotated[list[str] | None, typer.Option(help="Only these detectors; may be repeated.")] = None,
    footage: Annotated[Path | None, typer.Option(help="Labels of your own videos, to be used instead.")] = None,
) -> None:
    """Print the table of every detector on every kind of generated video."""
    detectors = detector or [*_DETECTORS]
    unknown = set(detectors) - set(_DETECTORS)
    if unknown:
        raise typer.BadParameter(f"unknown: {', '.join(unknown)}; choose from {', '.join(_DETECTORS)}")
    with tempfile.TemporaryDirectory() as folder:
        if footage is not None:
            videos = read_footage(footage)
        else:
            videos = list(_generated(Path(folder), range(first_seed, first_seed + seeds)))
        print("| detector | kind | true | precision | recall | F1 | false cuts / disturbances |")
        print("|---|---|---|---|---|---|---|")
        for name in detectors:
            started = time.process_time()
            outcomes = evaluate(_DETECTORS[name](), videos)
            if footage is not None:
                outcomes["all"] = sum(outcomes.values(), start=Outcome())
            _print_rows(name, outcomes)
            print(f"{name}: {time.process_time() - started:.0f} s of CPU time", flush=True)


def read_footage(labels: Path) -> list[tuple[Path, LabelledVideo]]:
    """Videos and their true transitions from a table, see the top of this file.

    Raises:
        ValueError: The table is empty, lacks a column or holds something else than frame numbers.
    """
    transitions: dict[str, list[FrameTransition]] = {}
    with open(labels, newline="") as file:
        for row in csv.DictReader(file):
            try:
                of_video = transitions.setdefault(row["video"], [])
                if row["last"] or row["first"]:
                    of_video.append((int(row["last"]), int(row["first"])))
            except (KeyError, TypeError, ValueError) as error:
                raise ValueError(f"{labels}: a row needs video, last and first, but there is {row}") from error
    if not transitions:
        raise ValueError(f"{labels}: no rows; the first line is video,last,first")
    no_frames = np.empty((0, 0, 0, 3), np.uint8)
    return [
        (labels.parent / name, LabelledVideo(name, name, no_frames, tuple(sorted(truth)), 0))
        for name, truth in transitions.items()
    ]


def _generated(folder: Path, seeds: Iterable[int]) -> Iterator[tuple[Path, LabelledVideo]]:
    """Generated videos of every kind, their frames in files."""
    for kind in KINDS:
        for seed in seeds:
            video = make_video(kind, seed)
            path = folder / f"{video.name}.mp4"
            write_video(path, video.rgb, fps=FPS)
            yield path, replace(video, rgb=video.rgb[:0])


def _print_rows(name: str, outcomes: dict[str, Outcome]) -> None:
    if "dissolve" in outcomes:
        outcomes = outcomes | {"gradual (dissolve + fade)": outcomes["dissolve"] + outcomes["fade"]}
    for kind, outcome in outcomes.items():
        if outcome.disturbances:
            print(f"| {name} | {kind} | 0 | | | | {outcome.false} / {outcome.disturbances} |")
        else:
            scores = f"{outcome.precision:.3f} | {outcome.recall:.3f} | {outcome.f1:.3f}"
            print(f"| {name} | {kind} | {outcome.hits + outcome.missed} | {scores} | |")


if __name__ == "__main__":
    typer.run(main)
