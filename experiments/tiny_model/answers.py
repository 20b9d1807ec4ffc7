"""Answers to packed questions: drawn, read as text, graded.

Shapes: B videos, Q questions of a video, G completions of a question, N = B * Q * G.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import torch
from torch import Tensor

from experiments.tiny_model.bank import VisualTokens
from experiments.tiny_model.branches import Completions, prompts_only, sample
from experiments.tiny_model.packing import IGNORED, Packed, packed_hidden
from marc.grading import extract_answer
from marc.model import MarcForConditionalGeneration, MarcProcessor
from marc.model.family import vision_token_ids
from marc.world.questions import WorldQuestion


class Sampler:
    """Draws answers and reads them as text.

    Args:
        processor: Of the model.
    """

    def __init__(self, processor: MarcProcessor) -> None:
        self.tokenizer = processor.tokenizer
        self.never = torch.tensor(vision_token_ids(self.tokenizer))
        self.end: int = self.tokenizer.eos_token_id
        self.text = lru_cache(maxsize=100_000)(self._text)

    def draw(
        self,
        model: MarcForConditionalGeneration,
        packed: Packed,
        group: int,
        generator: torch.Generator | None = None,
    ) -> Completions:
        """G answers to every question, at most a token longer than the longest right one; greedy without generator."""
        longest = int((packed.lengths - packed.prompts).max())
        return sample(
            model,
            packed,
            group=group,
            length=longest + 1,
            end=self.end,
            never=self.never,
            generator=generator,
        )

    def texts(self, completions: Completions) -> list[str]:
        """N answers as text, without the end token."""
        kept = completions.mask & (completions.tokens != self.end)
        rows = completions.tokens.flatten(0, 2).tolist()
        return [
            self.text(tuple(row[:length])) for row, length in zip(rows, kept.sum(-1).flatten().tolist(), strict=True)
        ]

    def _text(self, tokens: tuple[int, ...]) -> str:
        return str(self.tokenizer.decode(list(tokens)))


def select(packed: Packed, videos: Tensor, places: Tensor) -> Packed:
    """Some of the questions, each as the only one of its own row."""
    questions, lengths, prompts, labels = (
        item[videos, places][:, None] for item in (packed.questions, packed.lengths, packed.prompts, packed.labels)
    )
    visual = packed.visual
    chosen = VisualTokens(visual.features[videos], visual.positions[videos], visual.valid[videos])
    return replace(packed, questions=questions, labels=labels, lengths=lengths, prompts=prompts, visual=chosen)


@torch.no_grad()
def answers_right(
    model: MarcForConditionalGeneration, sampler: Sampler, packed: Packed, rows: Sequence[Sequence[WorldQuestion]]
) -> Tensor:
    """Which questions greedy generation, as `marc ask` does it, answers exactly right, ``bool [B, Q]``.

    Where every token of the expected completion is the likeliest one, that is what would be generated; only the other
    questions are, since another reasoning may lead to the right answer.
    """
    likeliest = model.lm_head(packed_hidden(model, packed, jump=False)).argmax(-1)
    right = ((likeliest == packed.labels) | (packed.labels == IGNORED)).all(-1)
    videos, places = (~right).nonzero(as_tuple=True)
    if len(videos):
        said = sampler.texts(sampler.draw(model, prompts_only(select(packed, videos, places)), group=1))
        asked = [rows[video][place] for video, place in zip(videos.tolist(), places.tolist(), strict=True)]
        same = [extract_answer(text) == item.answer for text, item in zip(said, asked, strict=True)]
        right[videos, places] = torch.tensor(same)
    return right
