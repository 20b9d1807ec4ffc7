"""Attention over many segments of a sequence in a few calls instead of one call each.

Vision towers attend within pictures, some within windows of them. Without flash-attn transformers slices the
sequence and calls the attention once per segment, thousands of times per video. Here segments of equal length go
through ``scaled_dot_product_attention`` as one batch; each segment's numbers are the same.

transformers hands the segments' boundaries, instead of slicing, to implementations with "flash" in their name. Hence
the name under which this one is registered.

Shapes: N tokens, G segments of one length, L their length, A heads, E features of a head.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

SEGMENT_ATTENTION = "sdpa_segments_like_flash"
"""Name for ``attn_implementation``; for vision towers only."""


def segment_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    cu_seq_lens_q: Tensor,
    max_length_q: int,
    scaling: float,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention within each segment, without a mask.

    Args:
        module: The attention layer.
        query: ``[1, A, N, E]``.
        key: As ``query``.
        value: As ``query``.
        attention_mask: Must be ``None``.
        cu_seq_lens_q: ``int [segments + 1]``, where each segment begins and the last one ends.
        max_length_q: Length of the longest.
        scaling: Factor on the scores.
        dropout: Probability.

    Returns:
        ``[1, N, A, E]``.
    """
    assert attention_mask is None

    def attend(*segments_GALE: Tensor) -> Tensor:
        mixed_GLAE, _ = sdpa_attention_forward(
            module, *segments_GALE, None, dropout=dropout, scaling=scaling, is_causal=False
        )
        return mixed_GLAE.flatten(0, 1)

    tokens = query.shape[2]
    if (len(cu_seq_lens_q) - 1) * max_length_q == tokens:
        whole = (states[0].unflatten(1, (-1, max_length_q)).transpose(0, 1) for states in (query, key, value))
        return attend(*whole)[None], None
    output_NAE = query.new_empty(tokens, query.shape[1], query.shape[3])
    for places_GL in _places_by_length(cu_seq_lens_q):
        output_NAE[places_GL.flatten()] = attend(
            *(states[0][:, places_GL].transpose(0, 1) for states in (query, key, value))
        )
    return output_NAE[None], None


def _places_by_length(boundaries: Tensor) -> list[Tensor]:
    """Places of the tokens of all segments of a length, ``int64 [G, L]`` per length.

    They are found once for boundaries that many layers share, and kept with these.
    """
    known = vars(boundaries)
    if "places_by_length" not in known:
        starts, lengths = boundaries[:-1], boundaries.diff()
        known["places_by_length"] = [
            starts[lengths == length][:, None] + torch.arange(length, device=boundaries.device)
            for length in lengths.unique().tolist()
        ]
    places: list[Tensor] = known["places_by_length"]
    return places


AttentionInterface.register(SEGMENT_ATTENTION, segment_attention)
