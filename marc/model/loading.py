"""From a name or a folder to the model and its processor: one way for the embedded model and for the real one."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoProcessor, PreTrainedConfig
from transformers.utils import PROCESSOR_NAME

from marc.compression.config import CompressionConfig, Layout, budget_fields, override_compression
from marc.extras import extra
from marc.io import message_of, read_json, reading
from marc.model.chat_templates import check_template
from marc.model.checkpoints import (
    check_dtype,
    check_report,
    check_sizes,
    check_weights,
    loading_quietly,
)
from marc.model.config import CompressedConfig
from marc.model.devices import check_attention, find_device
from marc.model.family import Family, find_family
from marc.model.modeling import CompressedVLM
from marc.model.names import EMBEDDED, check_name, did_you_mean
from marc.model.processing import CompressedProcessor
from marc.model.tiny import build_tiny

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
) -> tuple[CompressedVLM, CompressedProcessor]:
    """Loads a model for inference, and its processor with the same compression.

    Args:
        name_or_path: ``"tiny"``, the embedded model; a folder; or a hub name such as ``Qwen/Qwen2.5-VL-3B-Instruct``.
            Stock checkpoints of a known family are taken as they are and get the default compression. A folder may
            hold LoRA's adapters, as training writes them: they are merged into the base model that they name.
        device: Where to put the model; by default the GPU if there is one.
        dtype: Of the weights; by default bfloat16 on a GPU and float32 on a CPU.
        attn_implementation: As in transformers: ``"sdpa"``, ``"eager"`` or ``"flash_attention_2"``.
        device_map: As in transformers, instead of ``device``.
        quantization_config: As in transformers; the model then stays where it was loaded.
        **compression_overrides: What replaces the checkpoint's compression: fields of `CompressionConfig`, or
            ``budget`` (`marc.compression.config.parse_budget`).

    Raises:
        ValueError: If there is no such model, it is of no known family, weights are missing, or an option is wrong.
    """
    name = str(name_or_path)
    device = find_device(device)
    check_attention(attn_implementation)
    check_dtype(dtype)
    override_compression(CompressionConfig(), compression_overrides)
    with reading(name, "checkpoint"):
        model, processor = _load(name, device, dtype, attn_implementation, device_map, quantization_config)
    compression = override_compression(model.compression, compression_overrides)
    model.compression = processor.compression = compression
    return model.eval(), processor


def layout_for_asking(name: str | Path, overrides: Mapping[str, Any]) -> dict[str, Layout]:
    """The layout in which transformers' engine is asked where neither a checkpoint nor anybody else names one.

    A stock checkpoint was taught with single cells and has never seen an average of some: it is asked with cells, in
    the layout ``details``, if its family has places for them and nothing is to merge inside the tower.

    Args:
        name: As in `load_model`.
        overrides: What replaces the checkpoint's compression there.

    Returns:
        What else replaces it.
    """
    name, budget = str(name), overrides.get("budget")
    named = {*overrides, *(budget_fields(budget, "details") if budget else ())}
    if name == EMBEDDED or "layout" in named or overrides.get("tower_layer"):
        return {}
    above: set[str] = set()
    while base := _adapters_base(name):
        if _names_compression(name) or name in above:  # of each other: whoever loads them says so
            return {}
        above.add(name)
        name = base
    check_name(name)
    with reading(name, "config.json"):
        stored = _read_config(name)
        family = _family(name, stored)
    is_silent = family.tower_with_attention is not None and getattr(stored, "compression", None) is None
    return {"layout": "details"} if is_silent else {}


def _names_compression(folder: str) -> bool:
    """Whether the processor beside adapters is one of ours, which says how videos are compressed."""
    values = read_json(file) if (file := Path(folder) / PROCESSOR_NAME).is_file() else None
    return isinstance(values, dict) and "compression" in values


def load_processor(
    name_or_path: str | Path = EMBEDDED, **compression_overrides: Any
) -> tuple[CompressedConfig, CompressedProcessor]:
    """Loads what an engine needs that has the weights itself: a model's configuration, and its processor.

    Args:
        name_or_path: As in `load_model`, but no adapters.
        **compression_overrides: As in `load_model`.

    Raises:
        ValueError: As `load_model`.
    """
    name = checkpoint_folder(name_or_path)
    check_name(name)
    with reading(name, "config.json"):
        stored = _read_config(name)
        family = _family(name, stored)
        config = _our_config(family, stored)
    processor = _load_processor(name, family)
    _check_processor(name, processor, config)
    assert isinstance(config.compression, CompressionConfig)
    config.compression = processor.compression = override_compression(config.compression, compression_overrides)
    return config, processor


def checkpoint_folder(name_or_path: str | Path) -> str:
    """The folder or hub name of a model's whole weights.

    Raises:
        ValueError: If a folder holds adapters.
    """
    name = str(EMBEDDED_FOLDER if name_or_path == EMBEDDED else name_or_path)
    if _adapters_base(name):
        raise ValueError(
            f"{name}: holds adapters, and whole weights are needed; merge them: "
            "[part.save_pretrained('MERGED') for part in marc.model.load_model(FOLDER)]"
        )
    return name


def _load(
    name: str,
    device: torch.device,
    dtype: str | torch.dtype | None,
    attn_implementation: str | None,
    device_map: Any,
    quantization_config: Any,
) -> tuple[CompressedVLM, CompressedProcessor]:
    """See `load_model`."""
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
        processor = _load_processor(folder, model.family)
        _check_processor(folder, processor, model.config)
        if _adapters_base(folder):
            model.compression = processor.compression
        model = model if device_map or quantization_config else model.to(device)
    return model, processor


def stored_dtype(name: str) -> str:
    """The type of a checkpoint's weights, or of those of the base of adapters, as their configuration says it.

    Raises:
        ValueError: If there is no such model.
    """
    check_name(name)
    folder = str(EMBEDDED_FOLDER) if name == EMBEDDED else name
    while base := _adapters_base(folder):
        folder = base
    with reading(name, "config.json"):
        return str(_read_config(folder).dtype or torch.float32).removeprefix("torch.")


def _load_checkpoint(name: str, *, adapters: tuple[str, ...] = (), **kwargs: Any) -> CompressedVLM:
    check_name(name)
    if base := _adapters_base(name):
        above = (*adapters, str(Path(name).resolve()))
        if str(Path(base).resolve()) in above:
            raise ValueError(f"{Path(name) / ADAPTERS}: the adapters' base is these adapters themselves ({base})")
        return _merge_adapters(_load_checkpoint(base, adapters=above, **kwargs), name)
    with reading(name, "config.json"):
        stored = _read_config(name)
        family = _family(name, stored)
        config = _our_config(family, stored)
        check_sizes(name, config)
    with reading(name, "weights or config.json"), loading_quietly():
        model, report = family.ours.load("generator").from_pretrained(
            name,
            config=config,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            use_safetensors=True,
            **kwargs,
        )
    check_report(name, report)
    check_weights(model, name)
    return model


def _read_config(name: str) -> PreTrainedConfig:
    try:
        return AutoConfig.from_pretrained(name, trust_remote_code=False)
    except OSError as error:
        raise ValueError(f"cannot load the model {name!r}: {did_you_mean(name)}{message_of(error)}") from error


def _adapters_base(folder: str) -> str | None:
    """The model to which a folder's adapters belong; None if it holds none."""
    file = Path(folder) / ADAPTERS
    if not file.is_file():
        return None
    values = read_json(file)
    base = values.get("base_model_name_or_path") if isinstance(values, dict) else None
    if not isinstance(base, str) or not base:
        raise ValueError(
            f"{file}: base_model_name_or_path is empty or no text: name the model that the adapters belong to"
        )
    return base


def _merge_adapters(model: CompressedVLM, folder: str) -> CompressedVLM:
    with extra("train"):
        from peft import PeftModel

    with reading(folder, "adapters"):
        merged: CompressedVLM = PeftModel.from_pretrained(model, folder).merge_and_unload()
    merged.name_or_path = folder
    return merged


def _load_processor(name: str, family: Family) -> CompressedProcessor:
    with reading(name, "processor"):
        processor = AutoProcessor.from_pretrained(name, trust_remote_code=False)
        check_template(processor.chat_template, name)
    return our_processor(processor, family, name)


def our_processor(processor: Any, family: Family, name: str) -> CompressedProcessor:
    """A checkpoint's processor as one of ours: itself, or its parts.

    Args:
        processor: Ours, or transformers' of the same family.
        family: The model's.
        name: Of the checkpoint.

    Raises:
        ValueError: If it is of another family.
    """
    ours, stock = family.ours.load("processor"), family.stock.load("processor")
    if isinstance(processor, ours):
        return processor
    if not isinstance(processor, stock):
        raise ValueError(f"{name}: expected {family.title}'s processor, found {type(processor).__name__}")
    if processor.video_processor.cap_pixels_per_frame is None:  # what it then does, without a warning
        processor.video_processor.cap_pixels_per_frame = False
    return ours(
        processor.image_processor,
        processor.tokenizer,
        processor.video_processor,
        chat_template=processor.chat_template,
    )


def _check_processor(name: str, processor: CompressedProcessor, config: Any) -> None:
    """Refuses a processor that makes patches or writes placeholders for another model."""
    vision, videos, images = config.vision_config, processor.video_processor, processor.image_processor
    pairs = {
        "patch_size": (vision.patch_size, videos.patch_size, images.patch_size),
        "temporal_patch_size": (vision.temporal_patch_size, videos.temporal_patch_size, images.temporal_patch_size),
        "spatial_merge_size": (vision.spatial_merge_size, videos.merge_size, images.merge_size),
        "video_token_id": (config.video_token_id, processor.video_token_id),
        "image_token_id": (config.image_token_id, processor.image_token_id),
    }
    for field, (wanted, *found) in pairs.items():
        if other := [each for each in found if each != wanted]:
            raise ValueError(f"{name}: the processor is another model's: {field} is {other[0]}, the model's {wanted}")


def _family(name: str, config: PreTrainedConfig) -> Family:
    """The family of a checkpoint whose temporal grids hold as many frames as are read for one."""
    try:
        family = find_family(config.model_type)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    frames = config.vision_config.temporal_patch_size
    if frames != family.frames_per_grid:
        read = family.frames_per_grid
        raise ValueError(f"{name}: {frames} frames are one temporal grid; videos are read {read} each")
    return family


def _our_config(family: Family, config: PreTrainedConfig) -> CompressedConfig:
    if isinstance(config, CompressedConfig):
        return config
    values = config.to_dict()
    del values["model_type"]
    return family.ours.load("config")(**values)
