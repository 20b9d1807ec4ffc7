"""Outputs that are heard as they come: each row of a generation has its listener, and ends when that one leaves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import StoppingCriteria, TextStreamer
from transformers.generation.streamers import BaseStreamer


class Listener:
    """Who waits for an output.

    Attributes:
        is_left: Nobody waits any more: the output may end where it is.
        has_heard: Whether a piece was told that is not empty.

    Args:
        tell: Is told each piece of the output as it comes, some of them empty; ``False`` in return leaves. None: the
            whole output is waited for.
        is_left: Whether nobody waits from the beginning.
    """

    def __init__(self, tell: Callable[[str], object] | None = None, is_left: bool = False) -> None:
        self.is_left, self.has_heard = is_left, False
        self._tell = tell

    @property
    def hears(self) -> bool:
        """Whether pieces are wanted."""
        return self._tell is not None

    def hear(self, piece: str) -> None:
        """Hands on a piece."""
        if self._tell is None:
            return
        self.has_heard = self.has_heard or bool(piece)
        if self._tell(piece) is False:
            self.is_left = True


class ListeningRows(BaseStreamer):
    """The listeners to the rows of one generation: a streamer of transformers' for many rows.

    Args:
        tokenizer: Makes texts of tokens.
        listeners: One for each row.
        ends: Tokens that end a row.

    Attributes:
        stop: Ends the rows that nobody waits for.
    """

    def __init__(self, tokenizer: Any, listeners: Sequence[Listener], ends: frozenset[int]) -> None:
        self.stop = _Left(listeners)
        self._tokenizer, self._listeners, self._ends = tokenizer, listeners, ends
        self._texts = [_Text(tokenizer, each) if each.hears else None for each in listeners]

    def in_order(self, rows: Sequence[int]) -> ListeningRows:
        """The same listeners to rows in another order."""
        return ListeningRows(self._tokenizer, [self._listeners[row] for row in rows], self._ends)

    def put(self, value: Tensor) -> None:
        """Part of transformers' interface: the prompts, ``[B, L]``, then the next token of each row, ``[B]``."""
        if value.dim() > 1:
            return
        for row, text in enumerate(self._texts):
            if text is None:
                continue
            token = value[row]
            text.put(token[None])
            if int(token) in self._ends:
                text.end()
                self._texts[row] = None

    def end(self) -> None:
        """Part of transformers' interface."""
        for text in filter(None, self._texts):
            text.end()


class _Text(TextStreamer):
    def __init__(self, tokenizer: Any, listener: Listener) -> None:
        super().__init__(tokenizer, skip_special_tokens=True)
        self._listener = listener

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        """Part of transformers' interface: after each token, with no text as long as a word has not ended."""
        self._listener.hear(text)


class _Left(StoppingCriteria):
    """Ends rows that nobody waits for."""

    def __init__(self, listeners: Sequence[Listener]) -> None:
        self._listeners = listeners

    def __call__(self, input_ids: Tensor, scores: Tensor, rows: Tensor | None = None, **_: Any) -> Tensor:
        """Part of transformers' interface; ``rows`` says which of all they are, by default all."""
        asked = range(len(input_ids)) if rows is None else rows.tolist()
        return torch.tensor([self._listeners[row].is_left for row in asked], device=input_ids.device)
