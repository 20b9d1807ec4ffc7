"""How a question about videos is written for a model, and how the model's tokens are read as text.

`marc.inference.assistant.VideoAssistant` asks with it; nothing here runs the model.
"""

from __future__ import annotations

from collections.abc import Sequence

from marc.data.prompts import Message, check_asks_to_think, message_about
from marc.inference.backend import Backend
from marc.inference.prompts import Prompt
from marc.inference.query import Query, with_kinds
from marc.inference.seen import SeenVideo
from marc.inference.video_input import VideoInput


class Wording:
    """The words of one model.

    Attributes:
        style: In which questions are put to it, one of `marc.data.prompts.style_names`.

    Args:
        backend: Has the model's processor and configuration.
        style: Of questions that are not written yet; None: the model's own.
    """

    def __init__(self, backend: Backend, style: str | None = None) -> None:
        self._backend = backend
        self.style = style or backend.config.prompt_style

    @property
    def room(self) -> int:
        """Tokens for which the model has positions."""
        return int(self._backend.config.get_text_config(decoder=True).max_position_embeddings)

    @property
    def ends(self) -> frozenset[int]:
        """Tokens that end an output."""
        config, tokenizer = self._backend.config.get_text_config(decoder=True), self._backend.processor.tokenizer
        ends = config.eos_token_id
        return frozenset([tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])])

    def check(self, query: Query, *, asks_bare: bool) -> None:
        """Refuses, before anything is read, what is no question or has no room.

        Args:
            query: The question.
            asks_bare: Whether the bare answer is asked for first (``think_below``).

        Raises:
            ValueError: Saying why.
        """
        if not isinstance(query.question, str):
            raise ValueError(f"a question is a text, got {type(query.question).__name__}")
        text = query.question if query.prompt is None else query.prompt
        if not (text.strip() and query.question.strip()):
            raise ValueError("the question is empty")
        room = self.room
        if len(text) > room and (tokens := len(self._backend.processor.tokenizer(text)["input_ids"])) > room:
            raise ValueError(f"the question has {tokens} tokens, the model has room for {room}")
        if asks_bare:
            check_asks_to_think(query.text(self.style))
            query.bare()

    def prompt(self, query: Query, shown: Sequence[tuple[VideoInput, str]], given: Sequence[int] = ()) -> Prompt:
        """What the model reads: videos, each with what is said in it, the question, and the answer's beginning."""
        messages = self.messages(query, [(video.kind, said) for video, said in shown])
        return self.prompt_of(messages, [video for video, _ in shown], given)

    def prompts(
        self, queries: Sequence[Query], seen: Sequence[Sequence[SeenVideo]], given: Sequence[int] = ()
    ) -> list[Prompt]:
        """The prompt of each question, with what is shown for it."""
        return [
            self.prompt(query, [(each.video, each.said) for each in shown], given)
            for query, shown in zip(queries, seen, strict=True)
        ]

    def messages(self, query: Query, shown: Sequence[tuple[str, str]]) -> list[Message]:
        """A question as a conversation in Hugging Face chat format.

        Args:
            query: The question.
            shown: ``"video"`` or ``"image"`` for each thing shown, with what is said in it.
        """
        if query.messages:
            return with_kinds(query.messages, shown)
        return message_about(shown, query.text(self.style))

    def prompt_of(
        self, messages: Sequence[Message], videos: Sequence[VideoInput], given: Sequence[int] = ()
    ) -> Prompt:
        """The prompt of a conversation, with the beginning of its next turn.

        Raises:
            ValueError: If the model has no room for it.
        """
        ids = self.tokens(self._backend.processor.apply_chat_template(list(messages), add_generation_prompt=True))
        prompt = Prompt((*ids, *given), tuple(videos))
        if prompt.tokens > self.room:
            raise ValueError(
                f"the prompt has {prompt.tokens} tokens, the model has room for {self.room}: ask about fewer videos, "
                "a shorter stretch, at a smaller budget or without subtitles in the prompt"
            )
        return prompt

    def tokens(self, text: str) -> list[int]:
        """The token ids of a text, with nothing around them."""
        ids: list[int] = self._backend.processor.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def texts(self, outputs: Sequence[Sequence[int]]) -> list[str]:
        """What the model has said, without special tokens."""
        texts: list[str] = self._backend.processor.batch_decode(outputs, skip_special_tokens=True)
        return texts
