"""One backward pass through a trained tower for each video of an optimizer step, however its answers are spread.

Of the micro-batches that show a video, all but the last read features without gradients: those with which the answers
were generated, where the weights are still the same, else encoded when they are first needed. The loss's gradients for
these features add up here. The last one encodes the video with gradients, and what has added up joins the gradient of
its features. The tower runs forward and backward within that one micro-batch, as it would for it alone: processes that
train together count the same calls, and no activation of the tower waits for other micro-batches.

Shapes: M visual tokens that remain, W features of all streams of a token (`marc.model.streams`).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

from torch import Tensor
from transformers import TrainerCallback

from marc.inference.video_input import VideoInput
from marc.model.prefix_attention import PrefixStates
from marc.model.waiting_gradients import WaitingGradients

Idle = Callable[[Mapping[str, Any]], "list[bool] | None"]
"""Tells from which rows of a batch nothing is learned; None: something from all."""


class StepEncodings(TrainerCallback):
    """What the passes of an optimizer step have in common; as a callback it is told when one begins and ends.

    That is encodings of a trained tower, and prompts, whose passes `marc.training.prompts_once` knows.

    Attributes:
        is_open: Whether a step is under way, in which the weights stay the same.
        features: Without gradients, of these weights: ``[M, W]`` of each input.
        prompts: Likewise of prompts, see `marc.training.prompts_once`.
        read: Prompts of each batch that has gradients for them, by the batch's identity.
        following: The batches of this step after the one in hand.
        apart: Inputs that the pass in hand reads without gradients for the tower, which another pass has.
    """

    is_open: bool
    features: dict[VideoInput, Tensor]
    prompts: dict[Hashable, PrefixStates]
    read: dict[int, list[Hashable]]
    following: Sequence[Mapping[str, Any]]
    apart: frozenset[VideoInput]

    def __init__(self) -> None:
        self._start(is_open=False)

    def _start(self, *, is_open: bool) -> None:
        self.is_open, self._passes = is_open, 0
        self.features, self.prompts, self.read = {}, {}, {}
        self.following, self.apart = [], frozenset()
        self._gradients = WaitingGradients()

    def on_step_begin(self, args: Any, state: Any, control: Any, **about: Any) -> None:
        """See the class."""
        self._start(is_open=True)

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **about: Any) -> None:
        """See the class."""
        assert not (self._gradients or self.prompts), "what is read apart is read with gradients later in the step"
        self._start(is_open=False)

    def next_batch(self, after: Sequence[Mapping[str, Any]], passes: int) -> None:
        """Notes which batches of the step follow the one that is begun.

        Args:
            after: All that follow it; they may reach into later steps.
            passes: Batches of the step.
        """
        self._passes += 1
        self.following = after[: max(0, passes - self._passes)]

    def next_pass(self, batch: Mapping[str, Any], idle: Idle) -> None:
        """Notes what the pass with gradients that is begun reads apart.

        Args:
            batch: Of the pass; ``visuals`` holds what each row shows.
            idle: Asked of this batch and of those that follow.
        """
        shown = frozenset(each for row in batch.get("visuals") or () for each in row)
        later = [_learned(each, idle) for each in self.following]
        self.apart = shown - _learned(batch, idle).difference(*later)

    def leaf(self, each: VideoInput, features: Tensor) -> Tensor:
        """An input's features ``[M, W]``, whose gradient waits for the pass that encodes it with gradients."""
        return self._gradients.leaf(each, features)

    def joined(self, each: VideoInput, features: Tensor) -> Tensor:
        """An input's features ``[M, W]`` as the tower gives them, now with the gradient that waits for them."""
        self._gradients.join(each, features)
        return features


def _learned(batch: Mapping[str, Any], idle: Idle) -> frozenset[VideoInput]:
    """What the rows of a batch show that have gradients."""
    rows = batch.get("visuals") or []
    nothing = idle(batch) or [False] * len(rows)
    return frozenset(each for row, is_idle in zip(rows, nothing, strict=True) if not is_idle for each in row)
