"""Questions from a file, answered one by one into another; an interrupted run goes on where it stopped.

A row of questions is a JSON object: ``question``, and ``video``, which is a path, an object with ``source``, ``start``
and ``end``, or a list of these; if wanted ``id`` (by default the number of the line) and ``options``. Relative paths
start from the file's folder. A row of answers is an `marc.records.AnswerRecord` beside ``id``, ``status`` and what
tells answers to other questions or of other options apart (``asked``); a question that failed has a ``reason``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from marc.io import append_line, drop_torn_line, make_folders, message_of, parse_json, sha256_json, whole_lines
from marc.records import AnswerRecord, FailureRecord, as_json
from marc.types import Clip

if TYPE_CHECKING:
    from marc.inference.assistant import VideoAssistant

KNOWN = ("id", "video", "question", "options")


@dataclass(frozen=True)
class BatchQuestion:
    """One row of questions.

    Attributes:
        id: Its own; unique in the file.
        clips: What it is about.
        question: In natural language.
        options: Possible answers.
    """

    id: str
    clips: tuple[Clip, ...]
    question: str
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class BatchAnswers:
    """Where answers are written, a line each as soon as it is known.

    Attributes:
        file: JSON lines.
        settings: Tells answers of other options apart.
        retry_failed: Ask again what failed earlier.
    """

    file: Path
    settings: str
    retry_failed: bool = False

    def open(self, questions: Sequence[BatchQuestion]) -> list[BatchQuestion]:
        """Prepares the file; gives the questions that have no answer yet.

        Raises:
            ValueError: If it holds answers of other options, or to other questions, or is no such file.
            OSError: If it cannot be written.
        """
        make_folders(self.file.parent)
        drop_torn_line(self.file)
        self.file.touch()
        asked = {each.id: self._asked(each) for each in questions}
        done = set()
        for number, line in enumerate(whole_lines(self.file), 1):
            row = _answered(line, f"{self.file}, line {number}")
            if row["asked"] != asked.get(row["id"]):
                raise ValueError(
                    f"{self.file} holds answers to other questions or of other options ({row['id']}): name another "
                    "file, or delete it"
                )
            if row["status"] == "ok" or not self.retry_failed:
                done.add(row["id"])
        return [each for each in questions if each.id not in done]

    def _asked(self, question: BatchQuestion) -> str:
        clips = [[str(clip.source), clip.start, clip.end] for clip in question.clips]
        return sha256_json([self.settings, clips, question.question, question.options])[:16]

    def write(self, question: BatchQuestion, values: Mapping[str, Any]) -> None:
        """Appends a row."""
        row = {"id": question.id, "asked": self._asked(question), "question": question.question, **values}
        append_line(self.file, json.dumps(row))


def read_questions(path: str | Path) -> list[BatchQuestion]:
    """The questions of a file of JSON lines.

    Raises:
        ValueError: If a row is none; the message names file and line.
    """
    path = Path(path)
    questions: dict[str, BatchQuestion] = {}
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        if not line.strip():
            continue
        try:
            question = _question(parse_json(line, "the row"), str(number), path.parent)
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
            raise ValueError(f"{path}, line {number}: {_reason(error)}") from error
        if question.id in questions:
            raise ValueError(f"{path}, line {number}: the id {question.id!r} was there before")
        questions[question.id] = question
    if not questions:
        raise ValueError(f"{path}: there is no question in it")
    return list(questions.values())


def answer_all(
    assistant: VideoAssistant, questions: Sequence[BatchQuestion], answers: BatchAnswers
) -> Iterator[tuple[BatchQuestion, str]]:
    """Answers questions.

    Args:
        assistant: Answers.
        questions: Those that `BatchAnswers.open` gave.
        answers: Where the rows go.

    Yields:
        Each question as it is done, and what went wrong with it; an empty text if nothing did.
    """
    for question in questions:
        try:
            answer = assistant.ask(question.clips, question.question, options=question.options)
        except (ValueError, OSError) as error:
            problem = message_of(error)
            answers.write(question, as_json(FailureRecord.of(problem)))
            yield question, problem
            continue
        answers.write(question, {"status": "ok", **as_json(AnswerRecord.of(answer))})
        yield question, ""


def _answered(line: bytes, where: str) -> dict[str, Any]:
    """A row of answers."""
    row = parse_json(line, where)
    if not isinstance(row, dict) or not all(isinstance(row.get(name), str) for name in ("id", "asked", "status")):
        raise ValueError(f"{where}: no row of answers; name another file, or delete the line")
    return row


def _question(row: Any, number: str, folder: Path) -> BatchQuestion:
    if not isinstance(row, dict):
        raise TypeError(f"a row is an object with {', '.join(KNOWN)}, got {type(row).__name__}")
    if unknown := sorted(set(row) - set(KNOWN)):
        raise ValueError(f"a row has {', '.join(KNOWN)}, not {', '.join(unknown)}")
    question, options = row["question"], row.get("options") or []
    if not isinstance(question, str) or not question.strip():
        raise ValueError("the question is empty")
    if not isinstance(options, list) or not all(isinstance(option, str) for option in options):
        raise TypeError("options are a list of texts")
    videos = row["video"] if isinstance(row["video"], list) else [row["video"]]
    if not videos:
        raise ValueError("there is no video")
    clips = tuple(_clip(video, folder) for video in videos)
    return BatchQuestion(str(row.get("id", number)), clips, question, tuple(options))


def _clip(video: Any, folder: Path) -> Clip:
    if isinstance(video, str):
        video = {"source": video}
    if (
        not isinstance(video, dict)
        or not isinstance(video.get("source"), str)
        or set(video) - {"source", "start", "end"}
    ):
        raise TypeError(f"a video is a path, or an object with source, start and end, got {video!r}"[:200])
    return Clip(folder / video["source"], float(video.get("start") or 0.0), _maybe(video.get("end")))


def _maybe(seconds: Any) -> float | None:
    return None if seconds is None else float(seconds)


def _reason(error: Exception) -> str:
    return f"there is no {error}" if isinstance(error, KeyError) else str(error)
