"""QLoRA, as far as a CPU allows it."""

from pathlib import Path

import bitsandbytes as bnb
import pytest
import torch
from accelerate import PartialState
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


@pytest.mark.parametrize(("zero3", "device_map"), [(False, {"": 0}), (True, None)])
def test_where_a_process_loads_on_gpus(zero3, device_map, monkeypatch):
    """Transformers refuses a map under ZeRO-3, and loads onto the process's own GPU."""
    PartialState()
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("transformers.integrations.is_deepspeed_zero3_enabled", lambda: zero3)
    assert launch.quantized("bfloat16")["device_map"] == device_map


def test_two_steps_in_four_bits(tmp_path):
    policy, _ = launch.load_policy(launch.RunOptions(load_in_4bit=True, lora_rank=2), TrainingArguments("unused"))
    quantized = {name for name, module in policy.named_modules() if isinstance(module, bnb.nn.Linear4bit)}
    assert quantized and all("language_model" in name for name in quantized)
    recipe = ["--config", str(RECIPE), "--output_dir", str(tmp_path), *WORLD]
    launch.run_grpo([*recipe, "--load_in_4bit", "true", "--lora_rank", "2"])
    adapters = load_file(tmp_path / "adapter_model.safetensors")
    assert all(weight.any() for name, weight in adapters.items() if "lora_B" in name), "zero as they began"


def test_a_recipe_in_four_bits_resumes_exactly(tmp_path):
    """That of a GPU of 24 GB, with the embedded model and the micro-world in place of its own; killed after a step."""
    paper = RECIPE.with_name("grpo_3b_qlora.yaml")
    small = {"model": "tiny", "style": "video-r1", "teacher": "online", "dtype": "float32", "bf16": "false"}
    small |= {"layout": "events", "lora_rank": "2", "max_completion_length": "64", "attn_implementation": "sdpa"}
    small |= {"gradient_accumulation_steps": "2", "save_steps": "1", "report_to": "none", "learning_rate": "1e-3"}
    small |= {"lr_scheduler_type": "constant", "dataloader_pin_memory": "false", "log_completions": "false"}
    recipe = ["--config", str(paper), *(word for name, value in small.items() for word in (f"--{name}", value))]
    world = [*recipe, "--world_videos", "2", "--world_questions", "2", "--world_level", "hard"]
    whole, parts = (["--output_dir", str(tmp_path / name)] for name in ("whole", "parts"))
    launch.run_grpo([*world, *whole, "--max_steps", "2"])
    launch.run_grpo([*world, *parts, "--max_steps", "1"])
    launch.run_grpo([*world, *parts, "--max_steps", "2", "--resume", "true"])
    found = [load_file(tmp_path / name / "adapter_model.safetensors") for name in ("whole", "parts")]
    assert found[0].keys() == found[1].keys()
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])
    assert any(weight.any() for name, weight in found[0].items() if "lora_B" in name), "something was learnt"
