"""The models that the bench runs: true architectures with random weights, built where they run, nothing downloaded.

Speed and memory do not depend on the values of the model's weights. Several models share one set of them
(`Weights.model`), so that stock transformers and every setting of ours run in one process on the memory of one. Sizes
are those of the ``config.json`` files that Qwen publishes with the weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from transformers import (
    AutoConfig,
    BaseVideoProcessor,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    ProcessorMixin,
)

from marc.compression import CompressionConfig
from marc.model.family import Family, family_of, find_family
from marc.model.tiny import CHAT_TEMPLATE, build_tokenizer
from marc.options import OptionError

TIMES = (" seconds", " seconds")
"""What one token says in the tokenizers of real checkpoints, and in ours."""

Model = TypeVar("Model", bound=PreTrainedModel)


@dataclass(frozen=True, eq=False)
class Architecture:
    """A model of one of the families.

    Attributes:
        family: Which.
        text: Fields of transformers' text configuration.
        vision: Fields of its vision configuration.
        cells: ``(height, width)`` of a temporal grid in visual tokens.
        embedder: The dual encoder of the memory, ``"tiny"`` or a model of open_clip, which gets random weights.
        words: Whether a word of the question is one token; else every byte is, which makes a prompt of real length.
    """

    family: Family
    text: dict[str, Any]
    vision: dict[str, Any]
    cells: tuple[int, int]
    embedder: str
    words: bool = False

    @property
    def stock_model(self) -> Any:
        """Transformers' class."""
        return self.family.stock.load("generator")

    @property
    def our_model(self) -> Any:
        """Our class."""
        return self.family.ours.load("generator")

    @property
    def depth(self) -> int:
        """Blocks of the vision tower."""
        return int(self.vision["depth"])

    @property
    def merge(self) -> int:
        """Patches along each side of a visual token."""
        return int(self.vision["spatial_merge_size"])

    @property
    def factor(self) -> int:
        """Pixels along each side of a visual token; frames are multiples of it."""
        return int(self.vision["patch_size"]) * self.merge

    @property
    def tokens_per_grid(self) -> int:
        """Visual tokens of a temporal grid."""
        return self.cells[0] * self.cells[1]

    @property
    def patches(self) -> tuple[int, int]:
        """``(height, width)`` of a frame in patches of the tower."""
        return self.cells[0] * self.merge, self.cells[1] * self.merge

    @property
    def frame_pixels(self) -> int:
        """Pixels of a frame as the model reads it."""
        return self.tokens_per_grid * self.factor**2

    def build_tokenizer(self, corpus: Sequence[str] = ()) -> PreTrainedTokenizerBase:
        """A tokenizer of the kind of the project's tiny model.

        Args:
            corpus: Texts whose words it learns, if words are wanted.
        """
        return build_tokenizer((*TIMES, *(2 * list(corpus) if self.words else ())))


def qwen2_5_text(
    hidden: int, intermediate: int, layers: int, heads: int, kv_heads: int, vocabulary: int = 151936, *, tied: bool
) -> dict[str, Any]:
    """Qwen2.5-VL's text configuration."""
    return {
        "vocab_size": vocabulary,
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "max_position_embeddings": 128000,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
        "tie_word_embeddings": tied,
    }


def qwen2_5_vision(hidden: int, intermediate: int, depth: int, heads: int, output: int) -> dict[str, Any]:
    """Its vision configuration."""
    return {
        "depth": depth,
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_heads": heads,
        "out_hidden_size": output,
        "patch_size": 14,
        "spatial_merge_size": 2,
        "window_size": 112,
        "fullatt_block_indexes": [depth * quarter // 4 - 1 for quarter in (1, 2, 3, 4)],
        "tokens_per_second": 2,
    }


def qwen3_text(
    hidden: int, intermediate: int, layers: int, heads: int, kv_heads: int, vocabulary: int = 151936, *, tied: bool
) -> dict[str, Any]:
    """Qwen3-VL's text configuration."""
    rope = {"rope_type": "default", "rope_theta": 5e6, "mrope_section": [24, 20, 20], "mrope_interleaved": True}
    return {
        **qwen2_5_text(hidden, intermediate, layers, heads, kv_heads, vocabulary, tied=tied),
        "head_dim": 128,
        "max_position_embeddings": 262144,
        "rope_parameters": rope,
    }


def qwen3_vision(
    hidden: int, intermediate: int, depth: int, heads: int, output: int, deepstack: Sequence[int]
) -> dict[str, Any]:
    """Its vision configuration."""
    return {
        "depth": depth,
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_heads": heads,
        "out_hidden_size": output,
        "patch_size": 16,
        "spatial_merge_size": 2,
        "num_position_embeddings": 2304,
        "deepstack_visual_indexes": list(deepstack),
    }


QWEN2_5_VL, QWEN3_VL = find_family("qwen2_5_vl"), find_family("qwen3_vl")
LARGE: dict[str, Any] = {"cells": (8, 16), "embedder": "PE-Core-B-16"}
SMALL: dict[str, Any] = {"cells": (4, 8), "embedder": "tiny", "words": True}

ARCHITECTURES = {
    "3b": Architecture(
        QWEN2_5_VL,
        qwen2_5_text(2048, 11008, 36, 16, 2, tied=True),
        qwen2_5_vision(1280, 3420, 32, 16, 2048),
        **LARGE,
    ),
    "7b": Architecture(
        QWEN2_5_VL,
        qwen2_5_text(3584, 18944, 28, 28, 4, 152064, tied=False),
        qwen2_5_vision(1280, 3420, 32, 16, 3584),
        **LARGE,
    ),
    "qwen3-vl-2b": Architecture(
        QWEN3_VL,
        qwen3_text(2048, 6144, 28, 16, 8, tied=True),
        qwen3_vision(1024, 4096, 24, 16, 2048, (5, 11, 17)),
        **LARGE,
    ),
    "qwen3-vl-4b": Architecture(
        QWEN3_VL,
        qwen3_text(2560, 9728, 36, 32, 8, tied=True),
        qwen3_vision(1024, 4096, 24, 16, 2560, (5, 11, 17)),
        **LARGE,
    ),
    "qwen3-vl-8b": Architecture(
        QWEN3_VL,
        qwen3_text(4096, 12288, 36, 32, 8, tied=False),
        qwen3_vision(1152, 4304, 27, 16, 4096, (8, 16, 24)),
        **LARGE,
    ),
    "scaled": Architecture(
        QWEN2_5_VL,
        qwen2_5_text(256, 1376, 9, 2, 1, 9600, tied=True),
        qwen2_5_vision(160, 428, 8, 2, 256),
        **SMALL,
    ),
    "scaled-qwen3-vl": Architecture(
        QWEN3_VL,
        qwen3_text(256, 768, 9, 2, 1, 9600, tied=True),
        qwen3_vision(128, 512, 8, 2, 256, (1, 3, 5)),
        **SMALL,
    ),
}
"""Qwen2.5-VL-3B and 7B; Qwen3-VL-2B, 4B and 8B; and the smallest of each made small for a CPU.

The scaled ones have an eighth of the width, a quarter of the depth (of Qwen3-VL-2B a third) and of the tokens a grid.
They keep head sizes and about the ratio of tower to prefill for 64 frames.
"""


def find_architecture(name: str) -> Architecture:
    """One of `ARCHITECTURES`, or that of a configuration of any family, of which nothing else is read.

    Args:
        name: Such a name, a folder with a ``config.json``, such a file, or a name of the hub.

    Raises:
        OptionError: If there is no such configuration.
    """
    if name in ARCHITECTURES:
        return ARCHITECTURES[name]
    try:
        config = AutoConfig.from_pretrained(name)
        family = family_of(config)
    except (OSError, ValueError) as error:
        problem = (
            f"must be one of {', '.join(ARCHITECTURES)}, or a folder, file or hub name of the configuration of a "
            f"model of a known family, got {name!r}: {error}"
        )
        raise OptionError("model", problem, "--") from error
    text = {**config.text_config.to_dict(), "tie_word_embeddings": config.tie_word_embeddings}
    return Architecture(family, text, config.vision_config.to_dict(), **LARGE)


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
        "text_config": {
            **deepcopy(architecture.text),
            "bos_token_id": None,
            "eos_token_id": None,
            "pad_token_id": None,
        },
        "vision_config": dict(architecture.vision),
        "image_token_id": token_id("<|image_pad|>"),
        "video_token_id": token_id("<|video_pad|>"),
        "vision_start_token_id": token_id("<|vision_start|>"),
        "vision_end_token_id": token_id("<|vision_end|>"),
        "tie_word_embeddings": architecture.text["tie_word_embeddings"],
    }
    classes = architecture.family.stock if compression is None else architecture.family.ours
    ours = {} if compression is None else {"compression": compression}
    config: PreTrainedConfig = classes.load("config")(**values, **ours)
    return config


def video_processor(architecture: Architecture, least: int, most: int) -> BaseVideoProcessor:
    """Transformers' video processor, for frames of so many pixels."""
    make = architecture.family.stock.load("video_processor")
    processor: BaseVideoProcessor = make(
        patch_size=architecture.vision["patch_size"],
        merge_size=architecture.merge,
        size=_pixels(least, most),
        cap_pixels_per_frame=False,
        max_video_tokens=most // architecture.factor**2,
    )
    return processor


def build_processor(
    architecture: Architecture, tokenizer: PreTrainedTokenizerBase, compression: CompressionConfig | None = None
) -> ProcessorMixin:
    """Transformers' processor, or ours if a compression is given; see `build_config`."""
    least, most = architecture.factor**2, architecture.frame_pixels
    make = architecture.family.stock.load("image_processor")
    patch = architecture.vision["patch_size"]
    image = make(patch_size=patch, merge_size=architecture.merge, size=_pixels(least, most))
    video = video_processor(architecture, least, most)
    classes = architecture.family.stock if compression is None else architecture.family.ours
    ours = {} if compression is None else {"compression": compression}
    processor: ProcessorMixin = classes.load("processor")(image, tokenizer, video, chat_template=CHAT_TEMPLATE, **ours)
    return processor


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
        tokenizer = architecture.build_tokenizer(corpus)
        config = build_config(architecture, tokenizer, CompressionConfig())
        torch.manual_seed(0)
        with placement.device:
            holder = architecture.our_model._from_config(config, dtype=placement.dtype)
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
        return build_processor(self.architecture, self.tokenizer, compression)

    @property
    def bytes(self) -> int:
        """Memory of the weights."""
        return sum(parameter.nbytes for parameter in self.holder.parameters())
