"""Many questions about one video in one sequence: tokens, positions, and who sees whom.

A packed sequence is ``prefix | question 1 | question 2 | …``: the prefix holds the chat's opening and the visual
tokens, and every question continues it as if it were alone (`marc.model.prefix_attention`).

Shapes: B videos, Q questions of a video, M tokens of a question, P prefix tokens, N visual tokens, D features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
from torch import Tensor
from transformers import Cache

from experiments.tiny_model.bank import VisualTokens
from marc.data.prompts import chat_messages, render_question
from marc.model import MarcForConditionalGeneration, MarcProcessor
from marc.model.attention import attention
from marc.model.prefix_attention import PREFIX_ATTENTION, SharedPrefixes
from marc.world.questions import WorldQuestion

IGNORED = -100


def prompt(question: WorldQuestion, style: str) -> str:
    """The question as the user's text, options included, in one of the styles of `marc.data.prompts`."""
    return render_question(question.text, problem_type=question.problem_type, options=question.options, style=style)


def completion(question: WorldQuestion, *, think: bool) -> str:
    """What the model should say, with a sentence of reasoning or without."""
    thought = f"<think>{question.thought}</think>" if think else ""
    return f"{thought}<answer>{question.answer}</answer>"


@dataclass(frozen=True)
class Packed:
    """B sequences of Q questions each.

    Attributes:
        opening: Tokens before the visual ones, ``[O]``.
        questions: Padded on the right, ``[B, Q, M]``.
        labels: Next-token targets aligned with ``questions``: `IGNORED` but at the completion, ``[B, Q, M]``.
        lengths: Tokens of each question, ``[B, Q]``.
        prompts: Of these, tokens before the completion, ``[B, Q]``.
        visual: The visual tokens.
    """

    opening: Tensor
    questions: Tensor
    labels: Tensor
    lengths: Tensor
    prompts: Tensor
    visual: VisualTokens

    @cached_property
    def prefix(self) -> int:
        """P, tokens before the first question."""
        return len(self.opening) + self.visual.features.shape[1]


class Packer:
    """Turns questions into token sequences in the format of a processor's chat template."""

    def __init__(self, processor: MarcProcessor) -> None:
        self.tokenizer = tokenizer = processor.tokenizer
        messages = chat_messages("QUESTION")
        text = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        before, after = text.split("<|video_pad|>")
        self.opening = torch.tensor(self._ids(before))
        self.closing, self.turn = after.split("QUESTION")
        self.end = tokenizer.eos_token
        self.encode = lru_cache(maxsize=200_000)(self._encode)

    def _ids(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def _encode(self, question: str, answer: str) -> tuple[list[int], int]:
        start = self._ids(self.closing + question + self.turn)
        return start + self._ids(answer + self.end), len(start)

    def pack(self, questions: Sequence[Sequence[WorldQuestion]], visual: VisualTokens, style: str) -> Packed:
        """Pack the same number of questions for every video.

        Args:
            questions: Q questions for each of the B videos.
            visual: What the videos look like to the language model.
            style: Prompt style; Video-R1's asks for reasoning, so there the completion thinks first.
        """
        think = style.startswith("video-r1")
        rows = [
            [self.encode(prompt(question, style), completion(question, think=think)) for question in video]
            for video in questions
        ]
        longest = max(len(ids) for row in rows for ids, _ in row)
        ids = torch.tensor([[ids + [0] * (longest - len(ids)) for ids, _ in row] for row in rows])
        lengths = torch.tensor([[len(ids) for ids, _ in row] for row in rows])
        prompts = torch.tensor([[start for _, start in row] for row in rows])
        target = torch.arange(1, longest + 1)
        inside = (target >= prompts[..., None]) & (target < lengths[..., None])
        labels = torch.where(inside, ids.roll(-1, dims=-1), IGNORED)
        return Packed(self.opening, ids, labels, lengths, prompts, visual)


def packed_positions(packed: Packed, *, jump: bool) -> Tensor:
    """M-RoPE positions of the packed sequences, ``[3, B, P + Q * M]``.

    Args:
        packed: The batch.
        jump: The completion continues after the largest position so far, as in transformers' generation with a cache;
            otherwise right after the prompt, as in one forward pass. They differ only where the video's times reach
            beyond the prompt.
    """
    batch, count, length = packed.questions.shape
    start = len(packed.opening)
    opening = torch.arange(start).expand(3, batch, -1)
    visual = (packed.visual.positions + start).permute(2, 0, 1)
    latest = (packed.visual.positions.masked_fill(~packed.visual.valid[..., None], 0) + start).flatten(1).amax(1)
    side = packed.visual.positions[..., 1:].flatten(1).amax(1) + start
    first = side + 1
    token = torch.arange(length)
    text = first[:, None, None] + token.expand(batch, count, length)
    if jump:
        behind = (latest[:, None] - (first[:, None] + packed.prompts - 1)).clamp(min=0)
        text = text + torch.where(token >= packed.prompts[..., None], behind[..., None], 0)
    return torch.cat((opening, visual, text.reshape(batch, -1).expand(3, -1, -1)), dim=2)


def packed_prefixes(packed: Packed) -> SharedPrefixes:
    """Who sees whom in a packed batch."""
    batch, count, length = packed.questions.shape
    places = torch.arange(batch * (packed.prefix + count * length)).view(batch, -1)
    opening = torch.ones(batch, len(packed.opening), dtype=torch.bool)
    real = torch.cat((opening, packed.visual.valid), dim=1)
    prefixes = [row[seen] for row, seen in zip(places[:, : packed.prefix], real, strict=True)]
    questions = places[:, packed.prefix :].reshape(-1, length)
    owners = [video for video in range(batch) for _ in range(count)]
    return SharedPrefixes.of(prefixes, list(questions), owners, places.numel())


def packed_hidden(
    model: MarcForConditionalGeneration, packed: Packed, *, jump: bool, cache: Cache | None = None
) -> Tensor:
    """Last hidden states of the questions, ``[B, Q, M, D]``.

    Args:
        model: The model.
        packed: The batch.
        jump: See `packed_positions`.
        cache: Receives the keys and values of all tokens.
    """
    text = model.model.language_model
    batch, count, length = packed.questions.shape
    opening = text.embed_tokens(packed.opening).expand(batch, -1, -1)
    questions = text.embed_tokens(packed.questions.reshape(batch, -1))
    with attention(model.model.language_model.config, PREFIX_ATTENTION):
        output = text(
            inputs_embeds=torch.cat((opening, packed.visual.features.to(opening.dtype), questions), dim=1),
            position_ids=packed_positions(packed, jump=jump),
            attention_mask={"full_attention": None},
            past_key_values=cache,
            use_cache=cache is not None,
            shared_prefixes=packed_prefixes(packed),
        )
    return output.last_hidden_state[:, packed.prefix :].view(batch, count, length, -1)
