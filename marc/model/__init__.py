"""Models with compressed videos: one record and one folder per family, one way to load any.

`CompressedVLM` and `CompressedProcessor` are what models and processors of every family are; the names that begin with
``Marc`` are those of the Qwen2.5-VL family. All are imported when they are asked for. transformers' Auto classes know
every family as soon as `marc` is imported (`marc.model.auto`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from marc.lazy import handed_on

if TYPE_CHECKING:
    from marc.compression.config import CompressionConfig as CompressionConfig
    from marc.model.modeling import CompressedVLM as CompressedVLM
    from marc.model.processing import CompressedProcessor as CompressedProcessor
    from marc.model.qwen2_5_vl.config import MarcConfig as MarcConfig
    from marc.model.qwen2_5_vl.modeling import MarcForConditionalGeneration as MarcForConditionalGeneration
    from marc.model.qwen2_5_vl.modeling import MarcModel as MarcModel
    from marc.model.qwen2_5_vl.processing import MarcProcessor as MarcProcessor

_HOMES = {
    "CompressedProcessor": "marc.model.processing",
    "CompressedVLM": "marc.model.modeling",
    "CompressionConfig": "marc.compression.config",
    "MarcConfig": "marc.model.qwen2_5_vl.config",
    "MarcForConditionalGeneration": "marc.model.qwen2_5_vl.modeling",
    "MarcModel": "marc.model.qwen2_5_vl.modeling",
    "MarcProcessor": "marc.model.qwen2_5_vl.processing",
}

__all__ = [
    "CompressedProcessor",
    "CompressedVLM",
    "CompressionConfig",
    "MarcConfig",
    "MarcForConditionalGeneration",
    "MarcModel",
    "MarcProcessor",
]

__getattr__ = handed_on(__name__, _HOMES)
