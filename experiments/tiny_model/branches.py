"""Several completions of every packed question, sampled and scored without reading a prompt twice.

`experiments.tiny_model.packing` reads one video's questions behind one prefix. Here every question
branches into G completions,
each of which sees the prefix, its question and itself. Prefix and questions are read once; their keys and values stay
in a cache, from which sampling goes on token by token and scoring with whole completions. TRL repeats the prompt for
each completion, which is what most of a step costs where answers have a few tokens. The numbers are the same: the
tests compare them with the model's own forward, and the loss with `marc.training.CGRPOTrainer`'s.

Shapes: B videos, Q questions of a video, M tokens of a question, P prefix tokens, G completions of a question, C
tokens of a completion, c new ones of them, D features, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import AttentionInterface, DynamicCache

from experiments.tiny_model.packing import Packed, packed_hidden, packed_positions
from marc.model import MarcForConditionalGeneration
from marc.model.attention import attention

BRANCHES = "marc_packed_completions"


@dataclass(frozen=True)
class Completions:
    """G completions of every question.

    Attributes:
        tokens: ``int64 [B, Q, G, C]``, the end token included; what follows it means nothing.
        mask: True up to the end token, ``bool [B, Q, G, C]``.
    """

    tokens: Tensor
    mask: Tensor


@dataclass
class ReadPrompts:
    """Prefix and questions that a model has read.

    Attributes:
        packed: The prompts, without completions.
        last: Hidden state of each question's last token, ``[B, Q, D]``.
        cache: Keys and values; grows with every completion token that is read.
    """

    packed: Packed
    last: Tensor
    cache: DynamicCache


@dataclass(frozen=True)
class BranchMask:
    """Who sees whom.

    Attributes:
        prefix: P.
        questions: Q.
        length: M.
        group: G.
        attention: New tokens of a question's completions to prefix, question and all completion tokens so far, in the
            order of time first and completion second: ``bool [B * Q, 1, c * G, P + M + C * G]``.
    """

    prefix: int
    questions: int
    length: int
    group: int
    attention: Tensor


def prompts_only(packed: Packed) -> Packed:
    """A packed batch cut after its longest prompt; shorter prompts keep a rest of their completion, unseen."""
    return replace(packed, questions=packed.questions[..., : int(packed.prompts.max())])


def read_prompts(model: MarcForConditionalGeneration, packed: Packed) -> ReadPrompts:
    """Reads prefix and questions once.

    Args:
        model: The model.
        packed: From `prompts_only`.
    """
    cache = DynamicCache(config=model.model.language_model.config)
    hidden = packed_hidden(model, packed, jump=False, cache=cache)
    last = (packed.prompts - 1)[..., None, None].expand(-1, -1, 1, hidden.shape[-1])
    return ReadPrompts(packed, hidden.gather(2, last).squeeze(2), cache)


def read_completions(model: MarcForConditionalGeneration, prompts: ReadPrompts, tokens_BQGc: Tensor) -> Tensor:
    """Reads the next c tokens of every completion: their hidden states ``[B, Q, G, c, D]``."""
    text = model.model.language_model
    packed = prompts.packed
    batch, count, group, new = tokens_BQGc.shape
    length = packed.questions.shape[2]
    read = (prompts.cache.get_seq_length() - packed.prefix - count * length) // (count * group)
    start = packed_positions(packed, jump=False)[0, :, packed.prefix :].view(batch, count, length)[..., 0]
    position = (start + packed.prompts + read)[:, None, :, None] + torch.arange(new)[:, None, None]
    with attention(model.model.language_model.config, BRANCHES):
        output = text(
            inputs_embeds=text.embed_tokens(tokens_BQGc.permute(0, 3, 1, 2).reshape(batch, -1)),
            position_ids=position.expand(-1, -1, -1, group).reshape(batch, -1).expand(3, -1, -1),
            attention_mask={"full_attention": None},
            past_key_values=prompts.cache,
            use_cache=True,
            branch_mask=branch_mask(packed, group, read, new),
        )
    return output.last_hidden_state.view(batch, new, count, group, -1).permute(0, 2, 3, 1, 4)


def branch_mask(packed: Packed, group: int, read: int, new: int) -> BranchMask:
    """The mask of `new` tokens of each of `group` completions, of which `read` tokens each are known."""
    count, length = packed.questions.shape[1:]
    opening = torch.ones(len(packed.opening), dtype=torch.bool)
    prefix = torch.cat((opening.expand(len(packed.visual.valid), -1), packed.visual.valid), dim=1)
    question = torch.arange(length) < packed.prompts[..., None]
    before = torch.cat((prefix.repeat_interleave(count, dim=0), question.flatten(0, 1)), dim=1)
    time = torch.arange(read + new)
    earlier = (time <= time[read:, None])[:, None, :, None] & torch.eye(group, dtype=torch.bool)[None, :, None, :]
    own = earlier.reshape(new * group, -1).expand(len(before), 1, -1, -1)
    seen = before[:, None, None].expand(-1, -1, new * group, -1)
    return BranchMask(packed.prefix, count, length, group, torch.cat((seen, own), dim=-1))


def branch_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    branch_mask: BranchMask,
    scaling: float,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention of completions, as `AttentionInterface` wants it: ``[B, H, L, d]`` in, ``[B, L, H, d]`` out."""
    assert attention_mask is None
    batch, heads, width = len(query), query.shape[1], query.shape[3]
    prefix, count, length = branch_mask.prefix, branch_mask.questions, branch_mask.length
    known = prefix + count * length
    key, value = (item.repeat_interleave(module.num_key_value_groups, dim=1) for item in (key, value))

    def per_question(item: Tensor) -> Tensor:
        """``[B, H, time * Q * G, d]`` to ``[B * Q, H, time * G, d]``."""
        split = item.view(batch, heads, -1, count, branch_mask.group, width)
        return split.permute(0, 3, 1, 2, 4, 5).reshape(batch * count, heads, -1, width)

    def seen(item: Tensor) -> Tensor:
        shared = item[:, None, :, :prefix].expand(-1, count, -1, -1, -1).flatten(0, 1)
        question = item[:, :, prefix:known].view(batch, heads, count, length, width).transpose(1, 2).flatten(0, 1)
        return torch.cat((shared, question, per_question(item[:, :, known:])), dim=2)

    mixed = F.scaled_dot_product_attention(
        per_question(query), seen(key), seen(value), branch_mask.attention, scale=scaling
    )
    mixed = mixed.view(batch, count, heads, -1, branch_mask.group, width).permute(0, 3, 1, 4, 2, 5)
    return mixed.reshape(batch, -1, heads, width), None


AttentionInterface.register(BRANCHES, branch_attention)


@torch.no_grad()
def sample(
    model: MarcForConditionalGeneration,
    packed: Packed,
    *,
    group: int,
    length: int,
    end: int,
    never: Tensor,
    generator: torch.Generator | None,
) -> Completions:
    """Draws G completions of every question at temperature 1, or takes the likeliest tokens.

    Args:
        model: The model.
        packed: From `prompts_only`.
        group: G.
        length: Most tokens of a completion.
        end: The token that ends a completion.
        never: Tokens that are not to be drawn.
        generator: Draws; ``None``: the likeliest token.
    """
    prompts = read_prompts(model, packed)
    batch, count = packed.prompts.shape
    hidden = prompts.last[:, :, None].expand(-1, -1, group, -1)
    drawn: list[Tensor] = []
    open_ = torch.ones(batch, count, group, dtype=torch.bool)
    masks: list[Tensor] = []
    for _ in range(length):
        logits = model.lm_head(hidden).float()
        logits[..., never] = -torch.inf
        if generator is None:
            token = logits.argmax(-1)
        else:
            shares = logits.softmax(-1).flatten(0, 2)
            token = torch.multinomial(shares, 1, generator=generator).view(batch, count, group)
        drawn.append(token)
        masks.append(open_)
        open_ = open_ & (token != end)
        if not open_.any():
            break
        hidden = read_completions(model, prompts, token[..., None]).squeeze(3)
    return Completions(torch.stack(drawn, dim=3), torch.stack(masks, dim=3))


def completion_logits(model: MarcForConditionalGeneration, packed: Packed, completions: Completions) -> Tensor:
    """Logits that every token of the completions was drawn from, ``float [B, Q, G, C, V]``."""
    prompts = read_prompts(model, packed)
    group = completions.tokens.shape[2]
    hidden = [prompts.last[:, :, None, None].expand(-1, -1, group, -1, -1)]
    if completions.tokens.shape[3] > 1:
        hidden.append(read_completions(model, prompts, completions.tokens[..., :-1]))
    return model.lm_head(torch.cat(hidden, dim=3)).float()
