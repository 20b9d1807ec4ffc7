"""The tiny flavour of the real models: the same classes at half a million parameters, built offline in a second.

It is the debug model of the project: tests, launchers and set-up run the real code path on it. `build_tiny` gives
random weights; the trained one, which answers questions about the micro-world, is loaded by its folder like any
checkpoint. The other names handed on here build its parts; they are those of the trained one's family.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from typing import TYPE_CHECKING

from marc.compression.config import CompressionConfig
from marc.model.family import families
from marc.model.qwen2_5_vl.tiny import build_config as build_config
from marc.model.qwen2_5_vl.tiny import build_processor as build_processor
from marc.model.qwen2_5_vl.tiny_parts import CHAT_TEMPLATE as CHAT_TEMPLATE
from marc.model.qwen2_5_vl.tiny_parts import PATCH as PATCH
from marc.model.qwen2_5_vl.tiny_parts import SPECIAL_TOKENS as SPECIAL_TOKENS
from marc.model.qwen2_5_vl.tiny_parts import build_tokenizer as build_tokenizer

if TYPE_CHECKING:
    from marc.model.modeling import CompressedVLM
    from marc.model.processing import CompressedProcessor

EMBEDDED_FAMILY = "qwen2_5_vl"
"""Of the trained one."""


def build_tiny(
    *,
    family: str = EMBEDDED_FAMILY,
    seed: int = 0,
    compression: CompressionConfig | None = None,
    corpus: Iterable[str] = (),
    max_pixels: int | None = None,
) -> tuple[CompressedVLM, CompressedProcessor]:
    """Builds a tiny model with random weights, and its processor.

    Args:
        family: Name of its family, see `marc.model.family`.
        seed: Of the weights; the caller's random state is left alone.
        compression: The options; ``None``: the defaults.
        corpus: Texts whose frequent words become single tokens.
        max_pixels: Upper limit on a frame's pixels; ``None``: that of 2 x 2 tokens.
    """
    record = next(each for each in families() if each.name == family)
    model, processor = import_module(record.tiny).build_tiny(
        seed=seed, compression=compression, corpus=corpus, max_pixels=max_pixels
    )
    return model, processor
