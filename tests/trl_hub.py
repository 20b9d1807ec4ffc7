"""Dummies of the models and data sets of the hub with which TRL's own tests are run, made in a folder.

Names such as ``trl-internal-testing/tiny-Qwen2ForCausalLM-2.5`` are folders here; transformers and datasets find them
when they are called from the folder that holds ``trl-internal-testing``.
"""

import json
from pathlib import Path

import torch
from datasets import Dataset
from PIL import Image
from tiny_inputs import noise
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AddedToken,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    Gemma2Config,
    LlamaConfig,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2Config,
    Qwen3Config,
)

from marc.model.tiny import build_tiny

NAMESPACE = "trl-internal-testing"
FIRST_SPECIAL = 151643
"""Qwen's tokenizer: ``<|endoftext|>``, ``<|im_start|>``, ``<|im_end|>`` follow; TRL's tests write these numbers."""
SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|finetune_right_pad_id|>")
CHAT = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
PROMPTS = (
    "Beautiful is better than",
    "Explicit is",
    "Simple is better",
    "Complex",
    "Flat is better than",
    "Sparse is better",
    "Readability",
    "Special cases aren't special",
    "Although practicality beats",
    "Errors should never",
    "Unless explicitly",
    "In the face of ambiguity, refuse",
    "There should be one-- and preferably only one",
    "Although that way may not be obvious at first unless",
    "Now is better",
    "Although never is often better",
    "If the implementation is hard to explain,",
    "If the implementation is easy",
    "Namespaces are one honking great",
)
TRAINED = 17
SHAPE = {
    "vocab_size": FIRST_SPECIAL + len(SPECIALS),
    "hidden_size": 8,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "eos_token_id": FIRST_SPECIAL + 2,
    "pad_token_id": FIRST_SPECIAL,
    "bos_token_id": None,
}


def build_hub(folder: Path) -> None:
    """Makes ``folder/trl-internal-testing``."""
    home = folder / NAMESPACE
    tokenizer = build_tokenizer()
    causal = {"tiny-Qwen2ForCausalLM-2.5": Qwen2Config, "tiny-Qwen3ForCausalLM": Qwen3Config}
    for name, config in {**causal, "tiny-Gemma2ForCausalLM": Gemma2Config}.items():
        save(AutoModelForCausalLM.from_config, config(**SHAPE), tokenizer, home / name)
    rewards = {
        "tiny-Qwen2ForSequenceClassification-2.5": Qwen2Config,
        "tiny-Qwen3ForSequenceClassification": Qwen3Config,
        "tiny-LlamaForSequenceClassification-3.2": LlamaConfig,
    }
    for name, config in rewards.items():
        save(AutoModelForSequenceClassification.from_config, config(**SHAPE, num_labels=1), tokenizer, home / name)
    save_qwen_vl(home / "tiny-Qwen2_5_VLForConditionalGeneration")
    chats = [[{"role": "user", "content": text}] for text in PROMPTS]
    save_dataset(home / "zen", {"standard_prompt_only": PROMPTS, "conversational_prompt_only": chats})
    pictures = [Image.fromarray(noise(1, seed=index)[0]) for index in range(len(PROMPTS))]
    save_dataset(home / "zen-image", {"conversational_prompt_only": chats}, image=pictures)


def build_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level tokenizer whose special tokens have Qwen's numbers."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {character: number for number, character in enumerate(alphabet)}
    vocabulary |= {f"<unused {number}>": number for number in range(len(alphabet), FIRST_SPECIAL)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in SPECIALS])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>", chat_template=CHAT
    )


def save(build, config, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """A random model of a configuration, and its tokenizer."""
    torch.manual_seed(0)
    build(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def save_qwen_vl(folder: Path) -> None:
    """The tiny model as a stock Qwen2.5-VL."""
    ours, processor = build_tiny()
    values = ours.config.to_dict()
    del values["compression"], values["model_type"], values["text_after_video"]
    model = Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(**values))
    model.load_state_dict(ours.state_dict())
    model.generation_config = ours.generation_config
    model.save_pretrained(folder)
    Qwen2_5_VLProcessor(
        processor.image_processor,
        processor.tokenizer,
        processor.video_processor,
        chat_template=processor.chat_template,
    ).save_pretrained(folder)


def save_dataset(folder: Path, configurations: dict, **columns) -> None:
    """A data set of prompts with the splits ``train`` and ``test`` in each of its configurations."""
    described = []
    for name, prompts in configurations.items():
        rows = Dataset.from_dict({"prompt": list(prompts), **columns})
        parts = {"train": range(TRAINED), "test": range(TRAINED, len(prompts))}
        for split, numbers in parts.items():
            (folder / name).mkdir(parents=True, exist_ok=True)
            rows.select(numbers).to_parquet(folder / name / f"{split}.parquet")
        files = [{"split": split, "path": f"{name}/{split}.parquet"} for split in parts]
        described.append({"config_name": name, "data_files": files})
    (folder / "README.md").write_text(f"---\nconfigs: {json.dumps(described)}\n---\n")
