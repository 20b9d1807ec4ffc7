"""The models that the bench runs: true architectures with random weights, built where they run, nothing downloaded.

Speed and memory do not depend on the values of the model's weights. Several models share one set of them
(`Weights.model`), so that stock transformers and every setting of ours run in one process on the memory of one.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from transformers import BaseVideoProcessor, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin

from marc.compression import CompressionConfig
from marc.model import MarcConfig, MarcForConditionalGeneration, MarcProcessor
from marc.model.family import find_family
from marc.model.tiny import CHAT_TEMPLATE, build_tokenizer
from marc.options import OptionError

PATCH, MERGE = 14, 2
FACTOR = PATCH * MERGE
"""Frames are multiples of this many pixels."""

Model = TypeVar("Model", bound=PreTrainedModel)
FAMILY = find_family(MarcConfig.model_type)
StockModel = FAMILY.stock.load("generator")
Tower = FAMILY.stock.load("tower")


@dataclass(frozen=True, eq=False)
class Architecture:
    """A Qwen2.5-VL.

    Attributes:
        text: Fields of transformers' text configuration.
        vision: Fields of its vision configuration.
        cells: ``(height, width)`` of a temporal grid in visual tokens.
        embedder: The dual encoder of the memory, ``"tiny"`` or a model of open_clip, which gets random weights.
        words: Whether a word of the question is one token; else every byte is, which makes a prompt of real length.
    """

    text: dict[str, Any]
    vision: dict[str, Any]
    cells: tuple[int, int]
    embedder: str
    words: bool = False

    @property
    def depth(self) -> int:
        """Blocks of the vision tower."""
        return self.vision["depth"]

    @property
    def tokens_per_grid(self) -> int:
        """Visual tokens of a temporal grid."""
        return self.cells[0] * self.cells[1]

    @property
    def patches(self) -> tuple[int, int]:
        """``(height, width)`` of a frame in patches of the tower."""
        return self.cells[0] * MERGE, self.cells[1] * MERGE

    @property
    def frame_pixels(self) -> int:
        """Pixels of a frame as the model reads it."""
        return self.tokens_per_grid * FACTOR**2


def _text(hidden: int, intermediate: int, layers: int, heads: int, kv_heads: int, vocabulary: int) -> dict[str, Any]:
    return {
        "vocab_size": vocabulary,
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "max_position_embeddings": 128000,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
    }


def _vision(hidden: int, intermediate: int, depth: int, heads: int, output: int) -> dict[str, Any]:
    return {
        "depth": depth,
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_heads": heads,
        "out_hidden_size": output,
        "patch_size": PATCH,
        "spatial_merge_size": MERGE,
        "window_size": 112,
        "fullatt_block_indexes": [depth * quarter // 4 - 1 for quarter in (1, 2, 3, 4)],
        "tokens_per_second": 2,
    }


ARCHITECTURES = {
    "3b": Architecture(
        _text(2048, 11008, 36, 16, 2, 151936) | {"tie_word_embeddings": True},
        _vision(1280, 3420, 32, 16, 2048),
        cells=(8, 16),
        embedder="PE-Core-B-16",
    ),
    "7b": Architecture(
        _text(3584, 18944, 28, 28, 4, 152064) | {"tie_word_embeddings": False},
        _vision(1280, 3420, 32, 16, 3584),
        cells=(8, 16),
        embedder="PE-Core-B-16",
    ),
    "scaled": Architecture(
        _text(256, 1376, 9, 2, 1, 9600) | {"tie_word_embeddings": True},
        _vision(160, 428, 8, 2, 256),
        cells=(4, 8),
        embedder="tiny",
        words=True,
    ),
}
"""Qwen2.5-VL-3B and 7B, and the 3B at an eighth of its width, a quarter of its depth and of its tokens a grid.

The scaled one keeps the 3B's head sizes and about its ratio of tower to prefill for 64 frames.
"""


def find_architecture(name: str) -> Architecture:
    """One of `ARCHITECTURES`, or that of a Qwen2.5-VL's configuration, of which nothing else is read.

    Args:
        name: Such a name, a folder with a ``config.json``, such a file, or a name of the hub.

    Raises:
        OptionError: If there is no such configuration, or it has other patches.
    """
    if name in ARCHITECTURES:
        return ARCHITECTURES[name]
    try:
        config = FAMILY.stock.load("config").from_pretrained(name)
    except (OSError, ValueError) as error:
        problem = (
            f"must be one of {', '.join(ARCHITECTURES)}, or a folder, file or hub name of a Qwen2.5-VL's "
            f"configuration, got {name!r}: {error}"
        )
        raise OptionError("model", problem, "--") from error
    like = ARCHITECTURES["3b"]
    text = {key: getattr(config.text_config, key) for key in like.text if key != "tie_word_embeddings"}
    vision = {key: getattr(config.vision_config, key) for key in like.vision}
    if (vision["patch_size"], vision["spatial_merge_size"]) != (PATCH, MERGE):
        problem = f"{name}: only patches of {PATCH} pixels, {MERGE} x {MERGE} a token, are measured"
        raise OptionError("model", problem, "--")
    return replace(like, text=text | {"tie_word_embeddings": config.tie_word_embeddings}, vision=vision)


def build_config(
    architecture: Architecture, tokenizer: PreTrainedTokenizerBase, compression: CompressionConfig | None = None
) -> PreTrainedConfig:
    """Transformers' configuration, or ours if a compression is given.

    Args:
        architecture: Sizes.
        tokenizer: Its special tokens are the model's.
        compression: The options of ours.
    """
    token_id = tokenizer.convert_tokens_to_ids
    values: dict[str, Any] = {
        "text_config": deepcopy(architecture.text) | {"bos_token_id": None, "eos_token_id": None},
        "vision_config": dict(architecture.vision),
        "image_token_id": token_id("<|image_pad|>"),
        "video_token_id": token_id("<|video_pad|>"),
        "vision_start_token_id": token_id("<|vision_start|>"),
        "vision_end_token_id": token_id("<|vision_end|>"),
        "tie_word_embeddings": architecture.text["tie_word_embeddings"],
    }
    if compression is None:
        return FAMILY.stock.load("config")(**values)
    return MarcConfig(**values, compression=compression)


def video_processor(least: int, most: int) -> BaseVideoProcessor:
    """Transformers' video processor, for frames of so many pixels."""
    size = _pixels(least, most)
    make = FAMILY.stock.load("video_processor")
    return make(patch_size=PATCH, merge_size=MERGE, size=size, cap_pixels_per_frame=False)


def _pixels(least: int, most: int) -> dict[str, int]:
    """Limits on a picture's size as transformers' processors name them."""
    return {"shortest_edge": least, "longest_edge": most}


@dataclass(frozen=True)
class Placement:
    """Where weights are, of what type, and how they attend.

    Attributes:
        device: Where they are drawn and stay.
        dtype: Their type.
        attn_implementation: As in transformers, for every model that shares them.
    """

    device: torch.device
    dtype: torch.dtype = torch.float32
    attn_implementation: str | None = None


@dataclass(frozen=True)
class Weights:
    """One set of random weights, which any number of models share.

    Attributes:
        architecture: Their sizes.
        placement: Where they are.
        tokenizer: Of the kind of the project's tiny model.
        holder: The model that they were made for.
    """

    architecture: Architecture
    placement: Placement
    tokenizer: PreTrainedTokenizerBase
    holder: PreTrainedModel

    @classmethod
    def random(cls, architecture: Architecture, placement: Placement, corpus: Sequence[str] = ()) -> Weights:
        """Draws the weights on the device where they stay.

        Args:
            architecture: Sizes.
            placement: Where, and of what type.
            corpus: Texts whose words the tokenizer learns, if the architecture wants words.
        """
        tokenizer = build_tokenizer(2 * list(corpus) if architecture.words else ())
        config = build_config(architecture, tokenizer, CompressionConfig())
        torch.manual_seed(0)
        with placement.device:
            holder = MarcForConditionalGeneration._from_config(config, dtype=placement.dtype)
        return cls(architecture, placement, tokenizer, holder.eval().requires_grad_(False))

    def model(self, model_class: type[Model], compression: CompressionConfig | None = None) -> Model:
        """A model of its own class and configuration on these weights; it generates as many tokens as are asked for.

        Args:
            model_class: Transformers' class or ours.
            compression: The options of ours.
        """
        config = build_config(self.architecture, self.tokenizer, compression)
        attention, dtype = self.placement.attn_implementation, self.placement.dtype
        with torch.device("meta"):
            model = model_class._from_config(config, dtype=dtype, attn_implementation=attention).eval()
        model.load_state_dict(self.holder.state_dict(keep_vars=True), assign=True)
        model.tie_weights()
        for name, buffer in self.holder.named_buffers():
            module, _, leaf = name.rpartition(".")
            model.get_submodule(module).register_buffer(leaf, buffer, persistent=False)
        model.generation_config.eos_token_id = None
        model.generation_config.pad_token_id = self.tokenizer.pad_token_id
        return model

    def processor(self, compression: CompressionConfig | None = None) -> ProcessorMixin:
        """Transformers' processor, or ours if a compression is given."""
        least, most = FACTOR**2, self.architecture.frame_pixels
        image = FAMILY.stock.load("image_processor")(patch_size=PATCH, merge_size=MERGE, size=_pixels(least, most))
        video = video_processor(least, most)
        if compression is None:
            return FAMILY.stock.load("processor")(image, self.tokenizer, video, chat_template=CHAT_TEMPLATE)
        return MarcProcessor(image, self.tokenizer, video, chat_template=CHAT_TEMPLATE, compression=compression)

    @property
    def bytes(self) -> int:
        """Memory of the weights."""
        return sum(parameter.nbytes for parameter in self.holder.parameters())
