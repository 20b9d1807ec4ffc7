"""Who answers when: requests in flight that can be answered together are, and one bad video touches no other.

One thread works with the assistant. A question waits until no other has come for a moment; those of equal settings
and budgets are one generation, in which what prompts about one video begin with is read once (`marc.inference.hf`)
and each output can be heard as it comes.
"""

from __future__ import annotations

import threading
import time
import traceback
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Literal

from marc.compression import CompressionConfig
from marc.inference.assistant import VideoAssistant
from marc.inference.listening import Listener
from marc.inference.query import Query, budget_for
from marc.inference.selectors import RetrievingSelector
from marc.serving.options import ServeOptions
from marc.types import Answer, GenerationOptions
from marc.video.options import SubtitleOptions

LONGEST_GATHERING = 8
"""Moments for which a question waits at most while others keep coming."""


class BusyError(Exception):
    """More requests wait than may."""


@dataclass(frozen=True)
class Setting:
    """What a client may set for a question."""

    generation: GenerationOptions
    compression: CompressionConfig
    k: int | Literal["auto"]
    subtitles: SubtitleOptions


@dataclass(eq=False)
class Work:
    """One request.

    Attributes:
        query: What is asked.
        setting: And how.
        listener: Who waits for the output.
        answer: What came back.
    """

    query: Query
    setting: Setting
    listener: Listener = field(default_factory=Listener)
    answer: Future[Answer] = field(default_factory=Future)

    @property
    def generation(self) -> tuple[Setting, CompressionConfig]:
        """What is equal of questions that can be answered in one generation: the setting, and each one's budget."""
        return self.setting, budget_for(self.query.question, self.setting.compression)

    def leave(self) -> None:
        """Nobody waits for it any more."""
        self.listener.is_left = True
        self.answer.cancel()


class Desk:
    """Answers requests one batch after the other.

    Args:
        assistant: Answers; nobody else may use it meanwhile.
        options: How many may wait, and how long for each other.

    Attributes:
        assistant: Answers.
        usual: What holds where a request says nothing else, whatever is being answered just now.
    """

    def __init__(self, assistant: VideoAssistant, options: ServeOptions) -> None:
        self.assistant, self.usual = assistant, _setting_of(assistant)
        self._options = options
        self._waiting: deque[Work] = deque()
        self._changed = threading.Condition()
        self._is_open = True
        self._in_flight = 0  # requests that there were when the last generation ended, its own among them
        self._thread = threading.Thread(target=self._work, name="marc-desk", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Requests that are not being worked on."""
        return len(self._waiting)

    def submit(self, work: Work) -> None:
        """Takes a request.

        Raises:
            BusyError: If too many wait, or the desk is closed.
        """
        with self._changed:
            if not self._is_open or len(self._waiting) >= self._options.max_waiting:
                raise BusyError
            self._waiting.append(work)
            self._changed.notify()

    def close(self) -> None:
        """Finishes what is in work, refuses what waits, and ends."""
        with self._changed:
            self._is_open = False
            for work in self._waiting:
                work.answer.cancel()
            self._waiting.clear()
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        while batch := self._next_batch():
            self._set(batch[0].setting)
            try:
                self._answer(batch)
            finally:
                self._set(self.usual)
                self._in_flight = len(batch) + len(self._waiting)

    def _next_batch(self) -> list[Work]:
        """The request that has waited longest, and others that can be answered with it; none: the desk is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or not self._is_open)
            self._gather()
            if not self._waiting:
                return []
            first = self._waiting.popleft()
            alike = [work for work in self._waiting if work.generation == first.generation]
            alike = alike[: self._options.max_batch - 1]
            for work in alike:
                self._waiting.remove(work)
        return [first, *alike]

    def _gather(self) -> None:
        """Waits until no question has come for a moment, or there are as many as one generation may have.

        Where clients ask one question after the other, there are no more of them than were in flight before.
        """
        moment, most = self._options.gather_ms / 1000, self._options.max_batch
        if self._in_flight > 1:
            most = min(most, self._in_flight)
        end = time.monotonic() + LONGEST_GATHERING * moment
        while self._is_open and len(self._waiting) < most:
            if time.monotonic() > end or not self._changed.wait(moment):
                return

    def _set(self, setting: Setting) -> None:
        """Has the assistant answer so."""
        assistant = self.assistant
        assistant.generation, assistant.subtitles = setting.generation, setting.subtitles
        if assistant.backend.compression != setting.compression:
            assistant.backend.compression = setting.compression
        if isinstance(selector := assistant.selector, RetrievingSelector):
            selector.retrieval = replace(selector.retrieval, k=setting.k)

    def _answer(self, batch: Sequence[Work]) -> None:
        wanted = [work for work in batch if work.answer.set_running_or_notify_cancel()]
        if not self._answer_together(wanted):  # some of them cannot be answered: each is asked by itself
            for work in wanted:
                if not work.answer.done():
                    self._answer_together([work])

    def _answer_together(self, batch: Sequence[Work]) -> bool:
        """Answers requests in one generation; what it raises is an answer where it must be."""
        try:
            answers = self.assistant.ask_batch([work.query for work in batch], [work.listener for work in batch])
        except BaseException as error:
            _forget_locals(error)
            for work in batch:
                if len(batch) == 1 or work.listener.has_heard:
                    work.answer.set_exception(error)
            return False
        for work, answer in zip(batch, answers, strict=True):
            work.answer.set_result(answer)
        return True


def _setting_of(assistant: VideoAssistant) -> Setting:
    selector = assistant.selector
    k = selector.retrieval.k if isinstance(selector, RetrievingSelector) else 3
    return Setting(assistant.generation, assistant.backend.compression, k, assistant.subtitles)


def _forget_locals(error: BaseException) -> None:
    """Frees what the frames behind an error hold, such as pictures: the answer keeps it, and they the answer."""
    each: BaseException | None = error
    while each is not None:
        traceback.clear_frames(each.__traceback__)
        each = each.__cause__ or each.__context__
