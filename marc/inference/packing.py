"""Rows that begin alike as one sequence: what they share once, then the rest of each.

Several questions about a video share its tokens, several answers to one prompt share the whole of it. The sequence of
a batch is made by choosing tokens from its rows, so that each keeps the label and the position that it has in its row,
and no token of it is padding. `marc.model.prefix_attention` lets each row see its prefix and itself. Losses and
gradients are those of single rows, to rounding.

Shapes: B rows, L places of a padded row, N tokens of the sequence, R prefixes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from marc.model.attention import why_not_shared
from marc.model.prefix_attention import PREFIX_ATTENTION, PrefixStates, SharedPrefixes


@dataclass(frozen=True)
class Row:
    """A row to pack.

    Attributes:
        ids: Its token ids, without padding.
        opening: How many of them others may share; at least 1, and fewer than all.
        shows: What its visual tokens show: rows share their beginning only where they show the same.
        start: Place of its first token in the padded row.
    """

    ids: Sequence[int]
    opening: int
    shows: Any = ()
    start: int = 0

    @property
    def beginning(self) -> Hashable:
        """What rows must have in common to share it."""
        return self.shows, tuple(self.ids[: self.opening])


@dataclass(frozen=True)
class KnownPrefixes:
    """What a pass over rows has to do with passes before and after it; by what the rows share (`Row.beginning`).

    Attributes:
        stored: Read before: it takes these from there.
        kept: It reads these, and leaves its states there.
        joined: It reads these with the gradients that wait there.
    """

    stored: Mapping[Hashable, PrefixStates] = field(default_factory=dict)
    kept: Mapping[Hashable, PrefixStates] = field(default_factory=dict)
    joined: Mapping[Hashable, PrefixStates] = field(default_factory=dict)


@dataclass(frozen=True)
class PackedRows:
    """How the rows of a batch become one sequence: all prefixes, then the rest of all rows.

    Attributes:
        places: Which tokens are chosen, counted through the padded rows: ``int64 [N]``.
        leaders: The first row of each prefix that the sequence reads, with its visual tokens.
        prefixes: Who sees whom.
    """

    places: Tensor
    leaders: list[int]
    prefixes: SharedPrefixes

    def choose(self, values: Tensor) -> Tensor:
        """The sequence's part of values of every place, ``[..., B, L] -> [..., 1, N]``."""
        return values.flatten(-2)[..., self.places].unsqueeze(-2)

    def find(self, places: Tensor) -> Tensor:
        """Where places, counted through the padded rows, stand in the sequence; they must be in it."""
        home = places.new_zeros(int(self.places.max()) + 1)
        home[self.places] = torch.arange(len(self.places), device=home.device)
        return home[places]


def pack_rows(
    rows: Sequence[Row], width: int, device: torch.device | str, known: KnownPrefixes | None = None
) -> PackedRows:
    """Finds what the rows share.

    Args:
        rows: At least one.
        width: L, of the padded rows.
        device: Of the result.
        known: Prefixes of other passes.
    """
    known = known or KnownPrefixes()
    groups: dict[Hashable, list[int]] = defaultdict(list)
    for index, row in enumerate(rows):
        groups[row.beginning].append(index)
    read = [beginning for beginning in groups if beginning not in known.stored]
    stored = [beginning for beginning in groups if beginning in known.stored]

    def part(index: int, start: int, stop: int) -> Tensor:
        first = index * width + rows[index].start
        return torch.arange(first + start, first + stop, device=device)

    leaders = [groups[beginning][0] for beginning in read]
    owned = [(owner, index) for owner, beginning in enumerate([*read, *stored]) for index in groups[beginning]]
    parts = [part(index, 0, rows[index].opening) for index in leaders]
    parts += [part(index, rows[index].opening, len(rows[index].ids)) for _, index in owned]
    places = torch.cat(parts)
    packed = torch.arange(len(places), device=device).split([len(part) for part in parts])
    prefixes, rests = packed[: len(leaders)], packed[len(leaders) :]
    owners, states = [owner for owner, _ in owned], [known.stored[beginning] for beginning in stored]
    kept, joined = (
        tuple((each[own], where) for own, where in zip(read, prefixes, strict=True) if own in each)
        for each in (known.kept, known.joined)
    )
    shared = replace(SharedPrefixes.of(prefixes, rests, owners, len(places), states), kept=kept, joined=joined)
    return PackedRows(places, leaders, shared)


def use_prefix_attention(model: Any) -> None:
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
    if reason := why_not_shared(text):
        raise ValueError(f"pack_questions: not for this model: {reason}; leave pack_questions out")
    text.config._attn_implementation = PREFIX_ATTENTION
