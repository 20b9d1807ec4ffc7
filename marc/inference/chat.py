"""Talking about videos: every turn's answer knows the turns before it, and what was read once is not read again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from queue import SimpleQueue
from threading import Event, Thread
from typing import TYPE_CHECKING

from marc.data.prompts import Message
from marc.types import Answer

if TYPE_CHECKING:
    from marc.inference.assistant import VideoAssistant
    from marc.inference.seen import Footage, SeenVideo


_TAGS = ("<think>", "</think>", "<answer>", "</answer>")


class Chat:
    """A conversation about videos and pictures; `marc.VideoAssistant.chat` begins one.

    What is seen of the videos, and how much, is chosen for the first question and stays.

    Attributes:
        messages: The turns so far, in Hugging Face chat format.
        answer: The last answer; None before the first.

    Args:
        assistant: Answers.
        videos: What it is about.
    """

    def __init__(self, assistant: VideoAssistant, videos: Sequence[Footage]) -> None:
        self.messages: list[Message] = []
        self.answer: Answer | None = None
        self._assistant, self._videos = assistant, videos
        self._turns = assistant.backend.converse()
        self._seen: tuple[SeenVideo, ...] | None = None

    def ask(self, question: str, tell: Callable[[str], object] | None = None) -> Answer:
        """Answers a question that may refer to earlier ones.

        Args:
            question: In natural language.
            tell: Is told each piece of the output as it comes, some of them empty; ``False`` in return ends the output
                there.

        Raises:
            ValueError: If a video cannot be read, or the model has no room for the conversation any more.
        """
        query = self._assistant.query(self._videos, question)
        self.answer, self._seen, self.messages = self._assistant.answer_turn(
            query, self._turns, self._seen, self.messages, tell
        )
        return self.answer

    def stream(self, question: str) -> Iterator[str]:
        """As `ask`, piece by piece as the output comes; `answer` is there at the end.

        Whoever stops listening stops the work.
        """
        return streamed(lambda tell: self.ask(question, tell))


def answer_pieces(pieces: Iterable[str]) -> Iterator[str]:
    """The answer in what a model says, as it comes: what stands in ``<answer>``, without the reasoning before it.

    What has neither ``<think>`` nor ``<answer>`` is the answer itself. Where what looked like it turns out to be
    reasoning, because only its end is marked, the answer begins on a new line.
    """
    said = given = ""
    for piece in pieces:
        said += piece
        answer = _answer_in(said)
        if answer.startswith(given):
            yield answer[len(given) :]
            given = answer
        elif answer:
            yield f"\n{answer}"
            given = answer


def _answer_in(said: str) -> str:
    """What of an unfinished output is the answer for certain."""
    begun, thought, behind = said.strip(), "<think>", said.rpartition("</think>")
    if not behind[1] and (begun.startswith(thought) or thought.startswith(begun)):
        return ""
    before, marked, answer = behind[2].partition("<answer>")
    shown, is_whole, _ = (answer if marked else before).partition("</answer>")
    return shown.strip() if is_whole else _without_begun_tag(shown).strip()


def _without_begun_tag(text: str) -> str:
    """A text without what may become a tag at its end."""
    rest = text[text.rfind("<") :] if "<" in text else ""
    return text.removesuffix(rest) if any(tag.startswith(rest) for tag in _TAGS) else text


def streamed(work: Callable[[Callable[[str], object]], object]) -> Iterator[str]:
    """What some work tells, piece by piece while it goes on in a thread; what it raises is raised.

    Args:
        work: Is given a function that it tells pieces to, which says ``False`` once nobody listens any more.
    """
    told: SimpleQueue[str | BaseException | None] = SimpleQueue()
    is_left = Event()

    def tell(text: str) -> bool:
        if text:
            told.put(text)
        return not is_left.is_set()

    def run() -> None:
        try:
            work(tell)
            told.put(None)
        except BaseException as error:
            told.put(error)

    thread = Thread(target=run, daemon=True)
    thread.start()
    try:
        while isinstance(piece := told.get(), str):
            yield piece
    finally:
        is_left.set()
        thread.join()
    if piece is not None:
        raise piece
