"""From a name or a folder to the model and its processor: one way for the embedded model and for the real one."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoProcessor, PreTrainedConfig, Qwen2_5_VLConfig, Qwen2_5_VLProcessor

from marc.compression.config import override_compression
from marc.extras import extra
from marc.model.qwen2_5_vl.config import MarcConfig
from marc.model.qwen2_5_vl.modeling import MarcForConditionalGeneration
from marc.model.qwen2_5_vl.processing import MarcProcessor
from marc.model.tiny import build_tiny

EMBEDDED = "tiny"
"""Name of the model that needs no download."""
EMBEDDED_FOLDER = Path(__file__).resolve().parents[1] / "assets" / "tiny"
ADAPTERS = "adapter_config.json"
"""The file by which a folder of adapters is known."""

logger = logging.getLogger(__name__)


def load_model(
    name_or_path: str | Path = EMBEDDED,
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    attn_implementation: str | None = None,
    device_map: Any = None,
    quantization_config: Any = None,
    **compression_overrides: Any,
) -> tuple[MarcForConditionalGeneration, MarcProcessor]:
    """Loads a model for inference, and its processor with the same compression.

    Args:
        name_or_path: ``"tiny"``, the embedded model; a folder; or a hub name such as ``Qwen/Qwen2.5-VL-3B-Instruct``.
            Stock Qwen2.5-VL checkpoints are taken as they are and get the default compression. A folder may hold
            LoRA's adapters, as training writes them: they are merged into the base model that they name.
        device: Where to put the model; by default the GPU if there is one.
        dtype: Of the weights; by default bfloat16 on a GPU and float32 on a CPU.
        attn_implementation: As in transformers: ``"sdpa"``, ``"eager"`` or ``"flash_attention_2"``.
        device_map: As in transformers, instead of ``device``.
        quantization_config: As in transformers; the model then stays where it was loaded.
        **compression_overrides: What replaces the checkpoint's compression: fields of `CompressionConfig`, or
            ``budget`` (`marc.compression.config.parse_budget`).

    Raises:
        ValueError: If there is no such model, it is not a Qwen2.5-VL, weights are missing, or an option is wrong.
    """
    name = str(name_or_path)
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    dtype = dtype or (torch.bfloat16 if device.type == "cuda" else torch.float32)
    if name == EMBEDDED and not EMBEDDED_FOLDER.is_dir():
        logger.warning("the trained embedded model is not installed: its answers are random")
        model, processor = build_tiny()
        model = model.to(device, getattr(torch, dtype) if isinstance(dtype, str) else dtype)
    else:
        folder = str(EMBEDDED_FOLDER) if name == EMBEDDED else name
        model = _load_checkpoint(
            folder,
            dtype=dtype,
            attn_implementation=attn_implementation,
            device_map=device_map,
            quantization_config=quantization_config,
        )
        processor = _load_processor(folder)
        if _adapters_base(folder):
            model.compression = processor.compression
        model = model if device_map or quantization_config else model.to(device)
    compression = override_compression(model.compression, compression_overrides)
    model.compression = processor.compression = compression
    return model.eval(), processor


def _load_checkpoint(name: str, **kwargs: Any) -> MarcForConditionalGeneration:
    if base := _adapters_base(name):
        return _merge_adapters(_load_checkpoint(base, **kwargs), name)
    config = _marc_config(_found(AutoConfig.from_pretrained, name))
    model, report = _found(
        MarcForConditionalGeneration.from_pretrained, name, config=config, output_loading_info=True, **kwargs
    )
    wrong = {kind: sorted(map(str, keys)) for kind, keys in report.items() if keys}
    if wrong:
        raise ValueError(f"{name}: the weights do not fit the model: {wrong}")
    return model


def _adapters_base(folder: str) -> str | None:
    """The model to which a folder's adapters belong; None if it holds none."""
    file = Path(folder) / ADAPTERS
    if not file.is_file():
        return None
    base = json.loads(file.read_text(encoding="utf-8")).get("base_model_name_or_path")
    if not base:
        raise ValueError(f"{file}: base_model_name_or_path is empty: name the model that the adapters belong to")
    return str(base)


def _merge_adapters(model: MarcForConditionalGeneration, folder: str) -> MarcForConditionalGeneration:
    with extra("train"):
        from peft import PeftModel

    merged: MarcForConditionalGeneration = PeftModel.from_pretrained(model, folder).merge_and_unload()
    merged.name_or_path = folder
    return merged


def _load_processor(name: str) -> MarcProcessor:
    processor = _found(AutoProcessor.from_pretrained, name)
    if isinstance(processor, MarcProcessor):
        return processor
    if not isinstance(processor, Qwen2_5_VLProcessor):
        raise ValueError(f"{name}: expected Qwen2.5-VL's processor, found {type(processor).__name__}")
    return MarcProcessor(
        processor.image_processor,
        processor.tokenizer,
        processor.video_processor,
        chat_template=processor.chat_template,
    )


def _marc_config(config: PreTrainedConfig) -> MarcConfig:
    if isinstance(config, MarcConfig):
        return config
    if not isinstance(config, Qwen2_5_VLConfig):
        raise ValueError(f"{config.name_or_path}: a Qwen2.5-VL or MARC model is needed, found {config.model_type!r}")
    values = config.to_dict()
    del values["model_type"]
    return MarcConfig(**values)


def _found(load: Any, name: str, **kwargs: Any) -> Any:
    try:
        return load(name, **kwargs)
    except OSError as error:
        known = "a local folder with a checkpoint, a model name of the hub that can be reached, or 'tiny'"
        raise ValueError(f"cannot load the model {name!r}; it must be {known}: {error}") from error
