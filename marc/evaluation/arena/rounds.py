"""Has every contestant answer the same questions about one video after the other, killable at any moment.

Videos of the micro-world are drawn in memory. A video is encoded once for all that look at tokens only, once more for
each that wants the tower's attention. One line of ``rows.jsonl`` holds what all contestants answered about one video:
a run that is killed loses the video in hand, and one that goes on in the same folder gives the same rows.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from marc.evaluation.arena.options import EVERY_TOKEN, OURS, ArenaOptions, compression_of, fraction_of
from marc.inference.encoding import encode_once
from marc.inference.hf import HFBackend
from marc.inference.video_input import VideoInput, VisualPatches
from marc.io import append_line, drop_torn_line, make_folders, parse_json, read_json, whole_lines, write_json
from marc.model import CompressedProcessor, CompressedVLM
from marc.types import FRAMES_PER_GRID
from marc.version import __version__
from marc.world.arena.scenes import AnyVideo
from marc.world.export import video_questions
from marc.world.frames import draw_frames
from marc.world.levels import sample
from marc.world.measure import answers_right

ROWS, SETTINGS = "rows.jsonl", "settings.json"


@dataclass(frozen=True)
class Outcome:
    """What a contestant made of one video.

    Attributes:
        prompt_tokens: What the video cost in the prompt.
        right: Which questions were answered right.
    """

    prompt_tokens: int
    right: tuple[bool, ...]


@dataclass(frozen=True)
class Round:
    """One video.

    Attributes:
        seed: Of the world.
        index: Of the video.
        events: How many it has.
        kinds: Of its questions.
        outcomes: By contestant and part.
    """

    seed: int
    index: int
    events: int
    kinds: tuple[str, ...]
    outcomes: Mapping[tuple[str, str], Outcome]

    @classmethod
    def from_line(cls, line: bytes, where: Path) -> Round:
        """Reads what `to_line` wrote."""
        row = parse_json(line, where)
        outcomes = {
            (name, part): Outcome(tokens, tuple(mark == "1" for mark in right))
            for name, part, tokens, right in row.pop("outcomes")
        }
        return cls(outcomes=outcomes, **{**row, "kinds": tuple(row["kinds"])})

    def to_line(self) -> str:
        """As JSON."""
        outcomes = [
            [name, part, each.prompt_tokens, "".join("01"[right] for right in each.right)]
            for (name, part), each in self.outcomes.items()
        ]
        return json.dumps({**asdict(replace(self, outcomes={})), "outcomes": outcomes})


def play(
    model: CompressedVLM,
    processor: CompressedProcessor,
    options: ArenaOptions,
    folder: Path,
    *,
    looks: MutableMapping[tuple[int, int], Look] | None = None,
) -> Iterator[tuple[Round, int]]:
    """Plays the rounds that a folder lacks, and hands on all.

    Args:
        model: Answers.
        processor: Its own.
        options: What is compared.
        folder: Receives the rows; one of an earlier run of the same options and weights is continued.
        looks: Keeps what the tower saw, by seed and index, for models that differ in other weights alone; None:
            a video is forgotten after its round.

    Yields:
        Every round in order, and how many there are in all.

    Raises:
        ValueError: If the folder holds another comparison.
    """
    backend = HFBackend(model, processor)
    make_folders(folder)
    rows = folder / ROWS
    drop_torn_line(rows)
    lines = whole_lines(rows) if rows.exists() else []
    settings = {"version": __version__, "weights": backend.fingerprint(), **asdict(options)}
    _agree(folder / SETTINGS, settings, is_begun=bool(lines))
    known = {(each.seed, each.index): each for each in (Round.from_line(line, rows) for line in lines)}
    world = options.world
    numbers = [(world.seed + seed, index) for seed in range(options.seeds) for index in range(world.videos)]
    for seed, index in numbers:
        if (seed, index) not in known:
            look = None if looks is None else looks.get((seed, index))
            look = look or Look(backend, sample(world.level, "test", seed, index))
            known[seed, index] = _round(backend, options, seed, index, look)
            if looks is not None:
                looks[seed, index] = look
            append_line(rows, known[seed, index].to_line())
        yield known[seed, index], len(numbers)


def _agree(path: Path, settings: dict[str, Any], *, is_begun: bool) -> None:
    """Writes what a comparison is, or refuses another one than that which is begun."""
    settings = json.loads(json.dumps(settings))
    if is_begun and (before := read_json(path)) != settings:
        others = [name for name in settings if before.get(name) != settings[name]]
        raise ValueError(f"{path} is of another comparison ({', '.join(others)} differ): choose another folder")
    write_json(path, settings)


def _round(backend: HFBackend, options: ArenaOptions, seed: int, index: int, look: Look) -> Round:
    """Asks about one video, a part at a time."""
    asked = video_questions(look.video, "test", seed, index, options.world.questions)
    style = options.style or backend.config.prompt_style
    outcomes: dict[tuple[str, str], Outcome] = {}
    for part in dict.fromkeys(part for _, part in options.entries):
        names = [name for name, own in options.entries if own == part]
        shown = [look.at(name, part) for name in names]
        # One that wants the attention would have the tower run again for all.
        encode_once(backend.model, [each for each in shown if not each.has_its_own_tower])
        encode_once(backend.model, shown)
        for name, each in zip(names, shown, strict=True):
            right = tuple(answers_right(backend, style, [each], [asked]))
            outcomes[name, part] = Outcome(each.prompt_tokens, right)
    return Round(seed, index, len(look.video.events), tuple(question.kind for question in asked), outcomes)


class Look:
    """Ways to look at one video; what the tower saw stays.

    Attributes:
        video: Drawn once.

    Args:
        backend: Of the model that looks.
        video: To draw.
    """

    def __init__(self, backend: HFBackend, video: AnyVideo) -> None:
        self.video = video
        self._processor, self._base = backend.processor, backend.compression
        events = tuple(video.event_of_frame[::FRAMES_PER_GRID])
        self._drawn = VisualPatches.of_frames(self._processor, draw_frames(video), None)
        # Gives up its pixels for the tower's tokens, which are not all that some rules look at.
        self._alone, self._cut = (replace(self._drawn, events=each, inputs={}) for each in (None, events))
        height, width = self._drawn.size
        self._cells = height * width
        self._whole = VideoInput.of(self._alone, self._processor, compression_of(EVERY_TOKEN, 0, 1, self._base))
        self._seen: dict[tuple[str, str], VideoInput] = {}

    def at(self, name: str, part: str) -> VideoInput:
        """What a contestant sees for a part of what every token costs."""
        if (name, part) not in self._seen:
            tokens = int(self._whole.prompt_tokens * fraction_of(part))
            compression = compression_of(name, tokens, self._cells, self._base)
            patches = self._cut if name in OURS else self._alone
            if compression.rule is not None and compression.rule.wants_more:
                patches = replace(self._drawn, inputs={})
            self._seen[name, part] = VideoInput.of(patches, self._processor, compression)
        return self._seen[name, part]
