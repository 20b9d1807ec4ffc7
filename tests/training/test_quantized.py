"""QLoRA, as far as a CPU allows it."""

from pathlib import Path

import bitsandbytes as bnb
import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainingArguments

from marc.training import run as launch

RECIPE = Path(__file__).resolve().parents[2] / "configs" / "grpo_world.yaml"
WORLD = ["--world_videos", "2", "--world_questions", "2", "--max_steps", "2", "--per_device_train_batch_size", "8"]


def test_four_bits_need_lora():
    with pytest.raises(ValueError, match=r"load_in_4bit: .* lora_rank"):
        launch.RunOptions(load_in_4bit=True)


def test_only_the_language_model_is_quantized():
    options = launch.quantized("bfloat16")
    config = options["quantization_config"]
    assert config.load_in_4bit and config.bnb_4bit_quant_type == "nf4"
    assert config.bnb_4bit_compute_dtype == torch.bfloat16
    assert set(config.llm_int8_skip_modules) == {"model.visual", "lm_head"}


def test_two_steps_in_four_bits(tmp_path):
    policy, _ = launch.load_policy(launch.RunOptions(load_in_4bit=True, lora_rank=2), TrainingArguments("unused"))
    quantized = {name for name, module in policy.named_modules() if isinstance(module, bnb.nn.Linear4bit)}
    assert quantized and all("language_model" in name for name in quantized)
    recipe = ["--config", str(RECIPE), "--output_dir", str(tmp_path), *WORLD]
    launch.run_grpo([*recipe, "--load_in_4bit", "true", "--lora_rank", "2"])
    adapters = load_file(tmp_path / "adapter_model.safetensors")
    assert all(weight.any() for name, weight in adapters.items() if "lora_B" in name), "zero as they began"
