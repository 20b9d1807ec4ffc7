"""Questions that wait until a watched source shows what they ask for, and are told once.

    waiting = WaitingQuestions(assistant, memory, ["when a red car appears"])
    for frame, second in camera:
        memory.push(frame, second)
        for told in waiting.look():
            print(told.second, told.question)

Each embedded frame is compared with the questions first, which costs nothing; only where one fits better than nearly
all before, the model looks at the last frames and is asked.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from marc.inference.live import last_frames

if TYPE_CHECKING:
    from marc.inference.assistant import VideoAssistant
    from marc.memory.live.memory import LiveMemory

USUAL = 0.9
"""A frame is worth a look whose cosine is as high as that share of those before."""
FIRST = 8
"""Frames at the beginning that are all worth a look."""
COMPARED = 1000
"""Frames with which a frame is compared."""
_WHEN = re.compile(
    r"(?:tell me )?(?:(?:when|if|as soon as|once)\b)?\s*(.*?)(?:\s+(?:appears?|arrives?|comes?|shows? up))?[.!]?",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Told:
    """A question that needs to wait no more.

    Attributes:
        question: As it was put.
        second: The time of the frame that was looked at.
        score: The cosine of question and frame.
    """

    question: str
    second: float
    score: float


@dataclass
class _Waiting:
    """A question that waits.

    Attributes:
        question: As it was put.
        check: What the model is asked.
        vector: Of that.
        scores: Cosines of the latest frames.
    """

    question: str
    check: str
    vector: NDArray[np.float32]
    scores: deque[float] = field(default_factory=lambda: deque(maxlen=COMPARED))

    def is_worth_a_look(self, score: float, above: float | None) -> bool:
        if above is not None:
            return score >= above
        return len(self.scores) <= FIRST or score >= float(np.quantile(self.scores, USUAL))


class WaitingQuestions:
    """Questions that wait for a source.

    Args:
        assistant: Is asked whether it is so.
        memory: What grows with the source; notes what was told, so that it is not told again after a restart.
        questions: Such as ``"when a red car appears"``, or a question to which the answer will be yes.
        above: Cosine from which on a frame is worth a look; None: as high as nine of ten before.

    Raises:
        ValueError: If one is empty.
    """

    def __init__(
        self, assistant: VideoAssistant, memory: LiveMemory, questions: Sequence[str], above: float | None = None
    ) -> None:
        self._assistant, self._memory, self._above = assistant, memory, above
        self._looked_at = -1.0
        left = [question for question in dict.fromkeys(questions) if question not in memory.told]
        checks = [check_of(question) for question in left]
        vectors = memory.embedder.embed_questions(checks) if checks else []
        self._waiting = [
            _Waiting(question, check, embedded.vector)
            for question, check, embedded in zip(left, checks, vectors, strict=True)
        ]

    def __len__(self) -> int:
        return len(self._waiting)

    def look(self) -> list[Told]:
        """The questions that are to be told now; looks at each embedded frame once."""
        frame = self._memory.newest_embedded
        if frame is None or frame.vector is None or frame.second <= self._looked_at or not self._waiting:
            return []
        self._looked_at = frame.second
        told = []
        for each in list(self._waiting):
            score = float(each.vector @ frame.vector)
            each.scores.append(score)
            if each.is_worth_a_look(score, self._above) and self._is_so(each.check):
                told.append(Told(each.question, frame.second, score))
                self._waiting.remove(each)
                self._memory.tell(each.question, frame.second)
        return told

    def _is_so(self, check: str) -> bool:
        answer = self._assistant.ask(last_frames(self._memory.snapshot()), check).answer
        return answer.strip().casefold().startswith("yes")


def check_of(question: str) -> str:
    """What a model is asked to know whether a question that waits is to be told.

    Raises:
        ValueError: The question is empty.
    """
    text = question.strip()
    if text.endswith("?") and text.strip("? "):
        return text
    match = _WHEN.fullmatch(text)
    if match is None or not match[1].strip("? "):
        raise ValueError(f"a question that waits says for what, such as 'when a red car appears', got {question!r}")
    return f"Is there {match[1]}?"
