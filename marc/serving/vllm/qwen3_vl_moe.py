"""Qwen3-VL with a mixture of experts in vLLM with compressed videos: Qwen3-VL's ways, other layers.

Checkpoints hold the experts' weights in one of two layouts, with rows and columns exchanged; vLLM reads the published
one alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from torch import Tensor
from vllm.model_executor.models.qwen3_vl_moe import Qwen3VLMoeForConditionalGeneration, Qwen3VLMoeProcessingInfo
from vllm.multimodal import MULTIMODAL_REGISTRY

from marc.serving.vllm.processing import ReadingInfo
from marc.serving.vllm.qwen3_vl import NumbersGrids, Processor, Qwen3VLDummyInputsBuilder


class Info(ReadingInfo, Qwen3VLMoeProcessingInfo):
    """What the processor knows of the model."""


@MULTIMODAL_REGISTRY.register_processor(Processor, info=Info, dummy_inputs=Qwen3VLDummyInputsBuilder)
class ServedMarcQwen3VLMoe(NumbersGrids, Qwen3VLMoeForConditionalGeneration):
    """Qwen3-VL-MoE for compressed videos."""

    def __init__(self, *, vllm_config: Any, prefix: str = "") -> None:
        # Configurations of today leave it out, as transformers always does it.
        vllm_config.model_config.hf_text_config.norm_topk_prob = True
        super().__init__(vllm_config=vllm_config, prefix=prefix)

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> set[str]:
        """Part of vLLM's interface."""
        loaded: set[str] = super().load_weights(self._as_published(weights))
        return loaded

    def _as_published(self, weights: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
        """Weights with those of experts as ``[experts, inputs, outputs]``, as far as their shapes tell the layouts."""
        text = self.config.text_config
        outer, inner = text.hidden_size, text.moe_intermediate_size
        published = {"gate_up_proj": (outer, 2 * inner), "down_proj": (inner, outer)}
        for name, weight in weights:
            part = name.rpartition(".")[2]
            if ".mlp.experts." in name and part in published and weight.shape[1:] != published[part]:
                weight = weight.transpose(1, 2)
            yield name, weight
