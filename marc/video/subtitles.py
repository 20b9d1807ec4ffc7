"""The subtitles of a video as text of its parts.

They are read from a file beside the video (`film.srt`, `film.en.vtt`, `film.ass`) or else from a text track in it.
Subtitles that are pictures (PGS, DVD) are not text and are left out.

Shape legend: E events.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from marc.types import Event
from marc.video.jobs import ReadSubtitles
from marc.video.process import POOL
from marc.video.reading import TIMEOUT, check_file
from marc.video.subtitle_tracks import Cue, Track

logger = logging.getLogger(__name__)

SUFFIXES = (".srt", ".vtt", ".ass", ".ssa")
ROLLING_GAP = 0.1
"""Seconds between two cues in which a repeated row counts as one that stays."""
_TAGS = re.compile(r"(\.([a-z]{2,3}([-_][a-z0-9]+)*|default|forced))*", re.IGNORECASE)
"""Language and kind in a file's name: `.en`, `.pt-BR`, `.en.sdh`."""


@dataclass(frozen=True)
class SubtitleLine:
    """What is said or heard in ``[start, end)``, in seconds since the first picture."""

    start: float
    end: float
    text: str


@dataclass(frozen=True)
class Subtitles:
    """The subtitles of a video.

    Attributes:
        lines: In the order of their times.
        source: The file's name, or such as ``"track 2 (eng)"``; empty where there are none.
    """

    lines: tuple[SubtitleLine, ...] = ()
    source: str = ""


def read_subtitles(video: str | Path, choice: str | Path = "auto", *, timeout: float = TIMEOUT) -> Subtitles:
    """Read the subtitles of a video.

    Args:
        video: A video file.
        choice: ``"auto"`` for a file beside the video, else a text track in it, else none; ``"none"`` for none; or the
            path of a file in SRT, WebVTT or ASS.
        timeout: Seconds after which to give up waiting for one more line.

    Returns:
        Its lines, markup and the repetitions of rolling captions taken out. Lines that end before the first picture
        are left out.

    Raises:
        VideoError: The video or the subtitles cannot be read.
    """
    if choice == "none":
        return Subtitles()
    check_file(video, timeout)
    path = (beside(video) or Path(video)) if choice == "auto" else Path(choice)
    check_file(path, timeout)
    job = ReadSubtitles(os.path.abspath(path), os.path.abspath(video))
    track, cues = Track(), list[Cue]()
    for result, _ in POOL.run(job, timeout):
        if isinstance(result, Track):
            track = result
        else:
            cues += result
    for remark in track.remarks:
        logger.warning("%s", remark)
    if track.name and not cues:
        logger.warning("%s: no line of subtitles was found in %s", path, track.name)
    return Subtitles(without_repetitions(cues), track.name)


def beside(video: str | Path) -> Path | None:
    """The subtitle file of a video in its folder: one of just its name before others, forced ones last."""
    video = Path(video)
    found = []
    for file in video.absolute().parent.iterdir():
        stem, suffix = os.path.splitext(file.name)
        if suffix.lower() in SUFFIXES and stem.startswith(video.stem) and file.is_file():
            tags = stem[len(video.stem) :]
            if _TAGS.fullmatch(tags):
                found.append(("forced" in tags.lower(), bool(tags), tags, SUFFIXES.index(suffix.lower()), file))
    return video.parent / min(found)[-1].name if found else None


def text_of(subtitles: Subtitles, start: float, end: float) -> str:
    """The text of all lines that overlap ``[start, end)``, in order."""
    return " ".join(line.text for line in subtitles.lines if _overlap(line, start, end) > 0)


def event_texts(subtitles: Subtitles, events: Sequence[Event]) -> list[str]:
    """The text of each event ``[E]``, empty where nothing is said.

    A line belongs to the event that it overlaps most, the earlier one of two; a line outside all events to none.

    Args:
        subtitles: Lines in the order of their times.
        events: Events in the order of their times.
    """
    texts: list[list[str]] = [[] for _ in events]
    first = 0
    for line in subtitles.lines:
        while first < len(events) and events[first].end <= line.start:
            first += 1
        best, most = None, 0.0
        for index in range(first, len(events)):
            if events[index].start >= line.end:
                break
            overlap = _overlap(line, events[index].start, events[index].end)
            if overlap > most:
                best, most = index, overlap
        if best is not None:
            texts[best].append(line.text)
    return [" ".join(parts) for parts in texts]


def _overlap(line: SubtitleLine, start: float, end: float) -> float:
    return min(line.end, end) - max(line.start, start)


@dataclass
class _Shown:
    """Rows that came together, and until when they are counted as shown."""

    start: float
    end: float
    rows: list[str] = field(default_factory=list)


def without_repetitions(cues: Iterable[Cue]) -> tuple[SubtitleLine, ...]:
    """Lines of text without what rolling captions repeat.

    Such captions show a row again in the next cue, one place higher, or word by word as it grows. A row that goes on
    without a gap is the same row; one that begins with the whole of an older one takes its place.

    Args:
        cues: In any order.
    """
    lines: list[_Shown] = []
    before: dict[str, tuple[_Shown, float]] = {}
    for cue in sorted(cues, key=lambda cue: (cue.start, cue.end)):
        if cue.end <= 0:
            continue
        before = {row: shown for row, shown in before.items() if shown[1] + ROLLING_GAP >= cue.start}
        line, now = _Shown(max(cue.start, 0.0), cue.end), {}
        for row in dict.fromkeys(cue.rows):
            known = row if row in before else next((old for old in before if row.startswith(f"{old} ")), None)
            if known is None:
                line.rows.append(row)
                now[row] = line, cue.end
            else:
                older, end = before.pop(known)
                older.rows[older.rows.index(known)] = row
                now[row] = older, max(end, cue.end)
        if line.rows:
            lines.append(line)
        else:
            for older, end in now.values():
                older.end = max(older.end, end)
        before |= now
    return tuple(SubtitleLine(line.start, line.end, " ".join(line.rows)) for line in lines)
