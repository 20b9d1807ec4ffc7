"""Micro-world videos as real H.264 files, and their questions as rows in Video-R1's format.

Each world frame is enlarged by a whole factor and held for several video frames: a player shows calm motion, and
TransNetV2, which needs native frame rates, sees the cuts. At the default pace (half a second per frame) sampling 2
frames per second gives back exactly the world's frames.

    marc world export data/world --videos 200
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from marc.io import read_json, replacing, write_json
from marc.world.arena.scenes import AnyVideo
from marc.world.levels import kinds_of, questions, sample
from marc.world.options import WorldOptions
from marc.world.questions import WorldQuestion
from marc.world.scenes import Level, Split, video_rng
from marc.world.texts import reasoning, solution

QUESTION_STREAM = 1_000_000_000
"""Added to a video's number to seed its questions."""
ROWS = "eval_world.json"
SETTINGS = "export.json"
"""Beside the rows: what they and the videos were made with."""
_ELSEWHERE = "export to another folder, or delete this one"


@dataclass(frozen=True)
class FileOptions:
    """How a video becomes a file.

    Attributes:
        scale: Pixels of the file for one pixel of the world.
        hold: Video frames that show one world frame.
        fps: Frames per second of the file.
        crf: Quality of the encoder, lower is better.
    """

    scale: int = 8
    hold: int = 10
    fps: float = 20.0
    crf: int = 18

    def __post_init__(self) -> None:
        for name in ("scale", "hold"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")

    @classmethod
    def of_level(cls, level: Level) -> FileOptions:
        """As the files of a level are made: those of ``arena``, whose frames are larger, are enlarged less."""
        return cls(scale=4) if level == "arena" else cls()

    @property
    def seconds_per_frame(self) -> float:
        """How long a world frame is shown."""
        return self.hold / self.fps


def write_world_video(video: AnyVideo, path: str | Path, options: FileOptions | None = None) -> None:
    """Write a video as H.264.

    Args:
        video: What it shows.
        path: File to write.
        options: Size, pace and quality; ``None``: those of its level.
    """
    from marc.video import write_video
    from marc.world.levels import render

    options = options or FileOptions.of_level(video.level)
    frames = render(video, scale=options.scale).numpy()
    write_video(path, np.repeat(frames, options.hold, axis=0), fps=options.fps, crf=options.crf)


def cuts_in_seconds(video: AnyVideo, options: FileOptions = FileOptions()) -> list[float]:
    """Times at which a new event begins in the file."""
    edges = np.cumsum([2 * event.grids for event in video.events])[:-1]
    return [float(edge * options.seconds_per_frame) for edge in edges]


def video_questions(video: AnyVideo, split: Split, seed: int, index: int, count: int) -> list[WorldQuestion]:
    """The fixed questions about video number `index` of a split, a third of them multiple choice."""
    rng = video_rng(video.level, split, seed, QUESTION_STREAM + index)
    return questions(video, rng, count)


def to_row(question: WorldQuestion, video: AnyVideo, path: str, identity: int) -> dict[str, Any]:
    """A question as a row of Video-R1's JSON files, with the world's own columns behind.

    ``process`` is the reasoning in ``<think>`` tags, as in Video-R1-COT; ``event`` the index of the event that the
    question is about, if it is about one.
    """
    return {
        "problem_id": identity,
        "problem": question.text,
        "data_type": "video",
        "problem_type": question.problem_type,
        "options": list(question.options),
        "process": reasoning(question),
        "solution": solution(question),
        "path": path,
        "data_source": f"marc-world-{video.level}",
        "question_type": question.kind,
        "events": str(len(video.events)),
        "event": question.event,
    }


def rows_of(videos: Sequence[AnyVideo], world: WorldOptions, split: Split) -> list[dict[str, Any]]:
    """The rows of a data set.

    Args:
        videos: Drawn, from the first on.
        world: What they are drawn with.
        split: Of which split.
    """
    rows: list[dict[str, Any]] = []
    for index, video in enumerate(videos):
        for question in video_questions(video, split, world.seed, index, world.questions):
            rows.append(to_row(question, video, path_of(video), len(rows)))
    return rows


def path_of(video: AnyVideo) -> str:
    """Where a video's file is, from the folder of the rows on."""
    return f"videos/{video.name}.mp4"


def export_world(
    folder: str | Path,
    world: WorldOptions = WorldOptions(),
    *,
    split: Split = "test",
    options: FileOptions | None = None,
    workers: int = 1,
) -> Path:
    """Write a data set: ``videos/*.mp4`` and ``eval_world.json``; videos that are there already are kept.

    An export that was interrupted goes on, and one may be repeated with more videos.

    Args:
        folder: Where to.
        world: Which videos, and how many questions about them.
        split: ``"train"``, ``"validation"`` or ``"test"``.
        options: How videos become files; ``None``: as those of their level.
        workers: Processes that write videos.

    Returns:
        The path of ``eval_world.json``.

    Raises:
        ValueError: The folder holds an export of other settings, or of more videos.
    """
    target, options = Path(folder), options or FileOptions.of_level(world.level)
    drawn = [sample(world.level, split, world.seed, index) for index in range(world.videos)]
    rows = rows_of(drawn, world, split)
    settings = {**asdict(world), "split": split, **asdict(options)}
    _refuse_another(target, settings, rows)
    (target / "videos").mkdir(parents=True, exist_ok=True)
    write_json(target / SETTINGS, settings)
    missing = [(video, path) for video in drawn if not (path := target / path_of(video)).exists()]
    if workers > 1:
        with ProcessPoolExecutor(workers) as pool:
            list(pool.map(partial(_write, options=options), missing, chunksize=4))
    else:
        for item in missing:
            _write(item, options)
    write_json(target / ROWS, rows)
    return target / ROWS


def _refuse_another(target: Path, settings: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> None:
    """Refuses a folder whose videos or rows would not be those of one export afterwards.

    Raises:
        ValueError: Naming what differs.
    """
    if (target / SETTINGS).exists():
        found = read_json(target / SETTINGS)
        if not isinstance(found, dict) or not isinstance(found.get("videos"), int):
            raise ValueError(f"{target / SETTINGS}: not of marc world export; {_ELSEWHERE}")
        differing = [name for name in settings if name != "videos" and found.get(name) != settings[name]]
        if found["videos"] > settings["videos"]:
            differing.append("videos")
        if differing:
            name = differing[0]
            raise ValueError(
                f"{target}: holds an export of {name} {found.get(name)}, not {settings[name]}; {_ELSEWHERE}"
            )
    if (target / ROWS).exists():
        before = read_json(target / ROWS)
        if not isinstance(before, list) or before != rows[: len(before)]:
            raise ValueError(f"{target / ROWS}: holds other questions than are to be written; {_ELSEWHERE}")


def _write(item: tuple[AnyVideo, Path], options: FileOptions) -> None:
    video, path = item
    with replacing(path) as temporary:
        write_world_video(video, temporary, options)


def write_sample(path: str | Path, *, seed: int = 0, questions: int = 8, level: Level = "easy") -> Path:
    """Write one video of about half a minute with as many events as its level has, and its questions beside it.

    Args:
        path: The video file to write; the questions go to the same name with ``.json``.
        seed: Another seed is another video.
        questions: Number of questions.
        level: Of the video.

    Returns:
        The path of the questions.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    index, video = _busiest(level, seed)
    write_world_video(video, target)
    asked = _one_of_each_kind(video_questions(video, "test", seed, index, 40), kinds_of(video), questions)
    rows = [to_row(question, video, target.name, number) for number, question in enumerate(asked)]
    cuts = cuts_in_seconds(video)
    questions_file = target.with_suffix(".json")
    write_json(questions_file, {"video": target.name, "cuts": cuts, "questions": rows})
    return questions_file


def _busiest(level: Level, seed: int) -> tuple[int, AnyVideo]:
    """The first test video with the most events that a level has."""
    drawn = [(index, sample(level, "test", seed, index)) for index in range(50)]
    return max(drawn, key=lambda item: (len(item[1].events), -item[0]))


def _one_of_each_kind(questions: Sequence[WorldQuestion], kinds: Iterable[str], count: int) -> list[WorldQuestion]:
    """The first question of each kind, then more in their order."""
    firsts = {kind: next((item for item in questions if item.kind == kind), None) for kind in kinds}
    leading = [item for item in firsts.values() if item is not None]
    return [*leading, *(item for item in questions if item not in leading)][:count]
