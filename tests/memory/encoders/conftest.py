"""Tiny models with random weights in the formats in which real embedding models are published."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

WORDS = ("a", "red", "cat", "dog", "what", "is", "on", "the", "last", "slide", "?")


@pytest.fixture(scope="session")
def siglip_folder(tmp_path_factory) -> Path:
    """As google/siglip2-base-patch16-224: SigLIP 2's weights in SigLIP's format, of one size."""
    from transformers import SiglipConfig, SiglipImageProcessor, SiglipModel, SiglipProcessor

    config = SiglipConfig(
        text_config=_text(vocab_size=64, pad_token_id=0, eos_token_id=1, bos_token_id=2),
        vision_config=_vision(image_size=32, patch_size=8),
    )
    processor = SiglipProcessor(SiglipImageProcessor(size={"height": 32, "width": 32}), _tokenizer())
    return _saved(tmp_path_factory.mktemp("siglip"), SiglipModel, config, processor)


@pytest.fixture(scope="session")
def naflex_folder(tmp_path_factory) -> Path:
    """As google/siglip2-base-patch16-naflex, which keeps the shape of pictures."""
    from transformers import Siglip2Config, Siglip2ImageProcessor, Siglip2Model, Siglip2Processor

    config = Siglip2Config(
        text_config=_text(vocab_size=64, pad_token_id=0, eos_token_id=1, bos_token_id=2),
        vision_config=_vision(num_patches=16, patch_size=8),
    )
    processor = Siglip2Processor(Siglip2ImageProcessor(patch_size=8, max_num_patches=16), _tokenizer())
    return _saved(tmp_path_factory.mktemp("naflex"), Siglip2Model, config, processor)


@pytest.fixture(scope="session")
def videoprism_folder(tmp_path_factory) -> Path:
    """As google/videoprism-lvt-base-f16r288, of four frames."""
    from transformers import LlavaOnevisionVideoProcessor, VideoPrismClipModel, VideoPrismConfig, VideoPrismProcessor

    config = VideoPrismConfig(
        text_config=_text(vocab_size=64),
        vision_config=_vision(
            image_size=36, num_frames=4, num_spatial_layers=1, num_temporal_layers=1, num_auxiliary_layers=1
        ),
    )
    videos = LlavaOnevisionVideoProcessor(size={"height": 36, "width": 36}, do_normalize=False)
    return _saved(
        tmp_path_factory.mktemp("videoprism"), VideoPrismClipModel, config, VideoPrismProcessor(videos, _tokenizer())
    )


@pytest.fixture(scope="session")
def qwen3_vl_folder(tmp_path_factory) -> Path:
    """As Qwen/Qwen3-VL-Embedding-2B: a whole Qwen3-VL, of which the language model's states are read."""
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration, Qwen3VLProcessor

    from marc.model.qwen2_5_vl.tiny_parts import CHAT_TEMPLATE, build_tokenizer
    from marc.model.qwen3_vl.tiny import config_values, picture_processors

    tokenizer = build_tokenizer()
    images, videos = picture_processors(None)
    processor = Qwen3VLProcessor(images, tokenizer, videos, chat_template=CHAT_TEMPLATE)
    config = Qwen3VLConfig(**config_values(tokenizer))
    return _saved(tmp_path_factory.mktemp("qwen3-vl"), Qwen3VLForConditionalGeneration, config, processor)


@pytest.fixture
def load() -> Callable[..., Any]:
    """Loads a folder through the way that users take, in float32 on a CPU unless said otherwise."""
    from marc.memory import EventEmbedder

    return lambda folder, **options: EventEmbedder.from_pretrained(
        folder, **{"device": "cpu", "precision": "fp32", **options}
    )


def _text(**values: Any) -> dict[str, Any]:
    sizes = {"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    return {**sizes, "max_position_embeddings": 12, **values}


def _vision(**values: Any) -> dict[str, Any]:
    sizes = {"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    return {**sizes, **values}


def _tokenizer() -> Any:
    """Words by number, ``</s>`` behind them, as Gemma's and T5's tokenizers are read by these models."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    numbers = {word: index for index, word in enumerate(("<pad>", "</s>", "<unk>", *WORDS))}
    backend = Tokenizer(models.WordLevel(numbers, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=12
    )


def _saved(folder: Path, kind: Callable[[Any], Any], config: Any, processor: Any) -> Path:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = kind(config)
        for parameter in model.parameters():  # what begins as zeros or ones would hide what is not read
            parameter.data += 0.1 * torch.randn(parameter.shape)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
