"""Questions about one video as one sequence: what they share once, then each of them and its completion.

Rows share a *prefix* if they name the same videos and images and agree in every token up to the last visual one. Rows
about different files never do; rows of text alone share what every chat begins with. The sequence of a batch is made
by choosing tokens from its rows, so that each keeps the label and the position that it has in its row, and no token of
it is padding. `marc.model.prefix_attention` lets each question see its prefix and itself.

Shapes: Q rows, L tokens of the longest, N tokens of the sequence, R prefixes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from marc.model import MarcForConditionalGeneration
from marc.model.prefix_attention import PREFIX_ATTENTION, SharedPrefixes
from marc.training.inputs import View


@dataclass(frozen=True)
class PackedRows:
    """How the rows of a batch become one sequence: all prefixes, then all questions.

    Attributes:
        places: Which tokens are chosen, counted through the padded rows: ``int64 [N]``.
        leaders: The first row of each prefix, whose visual tokens the sequence reads.
        prefixes: Who sees whom.
    """

    places: Tensor
    leaders: list[int]
    prefixes: SharedPrefixes

    def choose(self, values: Tensor) -> Tensor:
        """The sequence's part of values of every token, ``[..., Q, L] -> [..., 1, N]``."""
        return values.flatten(-2)[..., self.places].unsqueeze(-2)


def pack_rows(
    rows: Sequence[Sequence[int]],
    views: Sequence[Sequence[View]],
    model: MarcForConditionalGeneration,
    device: torch.device,
) -> PackedRows:
    """Finds what the rows share.

    Args:
        rows: Token ids, one row for each question.
        views: What each row sees.
        model: Knows which tokens are visual.
        device: Of the result.
    """
    openings = [opening(row, model) for row in rows]
    groups: dict[tuple[tuple[View, ...], tuple[int, ...]], list[int]] = {}
    for index, (row, seen) in enumerate(zip(rows, views, strict=True)):
        groups.setdefault((tuple(seen), tuple(row[: openings[index]])), []).append(index)
    longest = max(map(len, rows))

    def part(row: int, start: int, stop: int) -> Tensor:
        return torch.arange(row * longest + start, row * longest + stop, device=device)

    leaders = [group[0] for group in groups.values()]
    owned = [(owner, row) for owner, group in enumerate(groups.values()) for row in group]
    parts = [part(row, 0, openings[row]) for row in leaders]
    parts += [part(row, openings[row], len(rows[row])) for _, row in owned]
    places = torch.cat(parts)
    packed = torch.arange(len(places), device=device).split([len(part) for part in parts])
    prefixes, questions = packed[: len(leaders)], packed[len(leaders) :]
    shared = SharedPrefixes.of(prefixes, questions, [owner for owner, _ in owned], len(places))
    return PackedRows(places, leaders, shared)


def opening(row: Sequence[int], model: MarcForConditionalGeneration) -> int:
    """Tokens of a row that others may share: up to the last visual one, or the first alone."""
    visual = (model.config.image_token_id, model.config.video_token_id)
    return 1 + max((place for place, token in enumerate(row) if token in visual), default=0)


def use_prefix_attention(model: MarcForConditionalGeneration) -> None:
    """Lets the language model read packed sequences; for all others its attention stays ``sdpa``.

    Raises:
        ValueError: If it has another attention, which knows no shared prefixes.
    """
    text = model.model.language_model
    attention = text.config._attn_implementation
    if attention not in ("sdpa", PREFIX_ATTENTION):
        raise ValueError(
            f"pack_questions: the attention {attention!r} cannot keep questions about a video apart; set "
            "attn_implementation: sdpa, or leave pack_questions out"
        )
    if text.has_sliding_layers:
        raise ValueError("pack_questions: not for a model with use_sliding_window; leave pack_questions out")
    text.config._attn_implementation = PREFIX_ATTENTION
