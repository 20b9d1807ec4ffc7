"""Wall time by stage and peak memory of one pass from a file to an answer."""

from __future__ import annotations

import resource
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn
from transformers import LogitsProcessor

_seconds: ContextVar[Callable[[], float]] = ContextVar("seconds", default=time.perf_counter)


@contextmanager
def stages_timed_by(seconds: Callable[[], float]) -> Iterator[None]:
    """Makes every `StageClock` inside read another clock than the wall's, such as ``time.process_time``."""
    token = _seconds.set(seconds)
    try:
        yield
    finally:
        _seconds.reset(token)


class StageClock:
    """Adds up the wall time of named stages, waiting for the device at their ends.

    Attributes:
        seconds: Wall time by stage so far, in seconds, in the order in which the stages first ended.
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self.seconds: dict[str, float] = defaultdict(float)

    def now(self) -> float:
        """Seconds on a monotonic clock, after all work given to the device so far is done."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return _seconds.get()()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Times what runs inside."""
        start = self.now()
        yield
        self.seconds[name] += self.now() - start

    @contextmanager
    def module(self, name: str, module: nn.Module) -> Iterator[None]:
        """Times every forward pass of a module while inside, as a stage of its own."""
        starts: list[float] = []

        def begin(*_: Any) -> None:
            starts.append(self.now())

        def end(*_: Any) -> None:
            self.seconds[name] += self.now() - starts.pop()

        hooks = (module.register_forward_pre_hook(begin), module.register_forward_hook(end))
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()


class FirstToken(LogitsProcessor):
    """Notes when generation has its first logits: the end of the prefill."""

    def __init__(self, clock: StageClock) -> None:
        self.clock = clock
        self.reached: float | None = None

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Leaves the scores alone."""
        if self.reached is None:
            self.reached = self.clock.now()
        return scores


@contextmanager
def prefill_and_decode(clock: StageClock) -> Iterator[FirstToken]:
    """Times a generation as two stages; what is yielded must be among its processors of logits."""
    first, start = FirstToken(clock), clock.now()
    yield first
    end = clock.now()
    assert first.reached is not None
    clock.seconds["prefill"] += first.reached - start
    clock.seconds["decode"] += end - first.reached


def reset_peak_memory(device: torch.device | str) -> None:
    """Starts measuring anew; without effect on a CPU, whose peak is that of the process."""
    if torch.device(device).type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory_bytes(device: torch.device | str) -> int:
    """Peak memory allocated on a GPU since `reset_peak_memory`, or the process's peak resident set on a CPU."""
    if torch.device(device).type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
