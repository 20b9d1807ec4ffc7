"""Passes of a model that several share: what comes while one runs goes into the next together.

Nobody waits for others to come. Where the model is slower than those who ask, passes grow by themselves; where it is
faster, each is of one asker.

Shape legend: S items, D embedding dimensions.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from threading import Lock
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

Item = TypeVar("Item")

logger = logging.getLogger(__name__)


@dataclass(eq=False)
class _Request(Generic[Item]):
    items: Sequence[Item]
    kind: Hashable | None
    vectors: Future[NDArray[np.float32]] = field(default_factory=Future)

    def shares_with(self, other: _Request[Item]) -> bool:
        return self.kind is not None and self.kind == other.kind


class JoinedPasses(Generic[Item]):
    """Gives many threads the vectors of what they bring, in passes that they share.

    Args:
        embed: One vector of each item ``float32 [S, D]``.
        most: Items of a shared pass. Who brings more has a pass alone.
        runner: An executor of one thread, the only one in which the model runs.
    """

    def __init__(self, embed: Callable[[Sequence[Item]], NDArray[np.float32]], most: int, runner: Executor) -> None:
        self._embed, self._most, self._runner = embed, most, runner
        self._waiting: list[_Request[Item]] = []
        self._lock = Lock()

    def vectors(self, items: Sequence[Item], kind: Hashable | None) -> NDArray[np.float32]:
        """The vectors of some items ``float32 [S, D]``, once they are there.

        Args:
            items: What is to be embedded, in one pass.
            kind: Those of an equal kind fit into one pass; None: into none with others.

        Raises:
            Exception: What the model raises if it is given these items and no others.
        """
        request = _Request(items, kind)
        with self._lock:
            self._waiting.append(request)
        self._runner.submit(self._run)  # one for each that waits, so that none is left, whoever joins whom
        return request.vectors.result()

    def _run(self) -> None:
        with self._lock:
            together = self._taken()
        if together:
            self._pass(together)

    def _taken(self) -> list[_Request[Item]]:
        """Who has waited longest, and those that fit in; they wait no more."""
        if not self._waiting:
            return []
        first, *others = self._waiting
        together, left, room = [first], list[_Request[Item]](), self._most - len(first.items)
        for other in others:
            if other.shares_with(first) and len(other.items) <= room:
                together.append(other)
                room -= len(other.items)
            else:
                left.append(other)
        self._waiting = left
        return together

    def _pass(self, together: Sequence[_Request[Item]]) -> None:
        """Embeds what some have brought; if that fails, each one's alone, so that nobody has another's error."""
        try:
            vectors_SD = self._embed([item for each in together for item in each.items])
            ends = np.cumsum([len(each.items) for each in together])
            assert len(vectors_SD) == ends[-1], f"{len(vectors_SD)} vectors of {ends[-1]} items"
        except BaseException as error:
            if len(together) == 1:
                together[0].vectors.set_exception(error)
                return
            logger.warning("a pass that %d shared failed, and each gets its own: %s", len(together), error)
        else:
            for each, own_SD in zip(together, np.split(vectors_SD, ends[:-1]), strict=True):
                each.vectors.set_result(own_SD)
            return
        for each in together:  # out here, where nothing holds the memory of the pass that failed
            self._pass([each])
