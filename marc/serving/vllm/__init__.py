"""vLLM's plugin: it serves our checkpoints, and stock ones by ``--hf-overrides``, with compressed videos.

vLLM calls `register` in each of its processes (entry point ``vllm.general_plugins``); nothing of vLLM is imported
before. `marc.serving.vllm.processing` reads and plans what requests show, `marc.serving.vllm.tower` encodes and
merges it, and a module for each family has the model.
"""

from __future__ import annotations

MODELS = {
    "MarcForConditionalGeneration": "marc.serving.vllm.qwen2_5_vl:ServedMarc",
    "MarcQwen3VLForConditionalGeneration": "marc.serving.vllm.qwen3_vl:ServedMarcQwen3VL",
    "MarcQwen3VLMoeForConditionalGeneration": "marc.serving.vllm.qwen3_vl_moe:ServedMarcQwen3VLMoe",
}
"""Architectures, as ``config.json`` names them, and their classes."""


def register() -> None:
    """Makes vLLM know our models, their configurations and processors, and the video loader ``marc``."""
    from vllm import ModelRegistry

    from marc.model.auto import install

    install()
    known = ModelRegistry.get_supported_archs()
    for architecture, served in MODELS.items():
        if architecture not in known:
            ModelRegistry.register_model(architecture, served)
    import marc.serving.vllm.loader  # noqa: F401  (registers the loader)
