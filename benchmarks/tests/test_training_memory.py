"""Counted memory against what real tensors take, on models that fit here, and the recipes for GPUs of 24 GB."""

from pathlib import Path

import bitsandbytes as bnb
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import DynamicCache

from benchmarks.architectures import ARCHITECTURES, build_config
from benchmarks.training_memory import (
    GIB,
    NF4_BLOCK,
    LiveBytes,
    Step,
    adapted,
    cache_bytes,
    count,
    main,
    pass_bytes,
    trained,
    weight_bytes,
)
from marc.compression import CompressionConfig
from marc.model.tiny import build_tokenizer
from marc.training.run import quantized

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
OF_24_GB = [f"grpo_{model}_{weights}" for model in ("3b", "qwen3vl_2b", "qwen3vl_4b") for weights in ("lora", "qlora")]
LEFT = 22 * GIB
"""Of 24 GB, after CUDA's context and the head's tiles."""
SMALL = ["scaled", "scaled-qwen3-vl"]


def real(name: str, rank: int):
    """The same model as `adapted` makes, with weights, on the CPU."""
    architecture = ARCHITECTURES[name]
    config = build_config(architecture, build_tokenizer(), CompressionConfig(layout="frames", duplicates=None))
    model = architecture.our_model._from_config(config, dtype=torch.bfloat16, attn_implementation="sdpa")
    lora = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=architecture.family.language_linears)
    return get_peft_model(model, lora).train()


def test_tensors_count_while_they_are_held_and_views_never():
    known = torch.zeros(1000)
    with LiveBytes([known]) as live:
        first = torch.zeros(10)
        view = first.view(2, 5).t()
        known.view(10, 100)
        assert live.live == live.peak == 40
        second = first + 1
        assert live.live == 80
        del first, view
        assert live.live == 40
        del second
    assert live.live == 0 and live.peak == 80


@pytest.mark.parametrize("name", SMALL)
def test_weights_and_adapters_are_those_of_a_real_model(name):
    counted, own = adapted(ARCHITECTURES[name], 4, four_bits=False), real(name, 4)
    assert sum(weight.numel() for weight in trained(counted)) == own.get_nb_trainable_parameters()[0]
    frozen = {weight.data_ptr(): weight.nbytes for weight in own.parameters() if not weight.requires_grad}
    assert weight_bytes(counted, four_bits=False) == sum(frozen.values())
    assert {weight.dtype for weight in trained(counted)} == {torch.float32} == {w.dtype for w in trained(own)}
    assert {w.dtype for w in trained(adapted(ARCHITECTURES[name], 4, four_bits=True))} == {torch.bfloat16}


def test_four_bits_are_bitsandbytes():
    options = quantized("bfloat16")["quantization_config"]
    given = {"quant_type": options.bnb_4bit_quant_type, "compress_statistics": options.bnb_4bit_use_double_quant}
    layer = bnb.nn.Linear4bit(256, 512, bias=False, compute_dtype=torch.bfloat16, **given).to("cpu")
    state = layer.weight.quant_state
    assert layer.weight.numel() + state.absmax.nbytes == 256 * 512 // 2 + 256 * 512 // NF4_BLOCK * 4
    model = adapted(ARCHITECTURES["scaled"], 4, four_bits=True)
    linears = sum(weight.numel() for name, weight in model.named_parameters() if "base_layer.weight" in name)
    saved = weight_bytes(model, four_bits=False) - weight_bytes(model, four_bits=True)
    assert linears > 0 and saved == linears * 2 - linears // 2 - linears // NF4_BLOCK * 4


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_pass_takes_what_a_real_one_takes(name, checkpointing):
    own = pass_bytes(real(name, 4), 96, checkpointing=checkpointing)
    counted = pass_bytes(adapted(ARCHITECTURES[name], 4, four_bits=False), 96, checkpointing=checkpointing)
    assert counted == pytest.approx(own, rel=0.1)


def test_checkpointing_saves_and_tokens_cost():
    model = adapted(ARCHITECTURES["scaled"], 4, four_bits=False)
    whole = pass_bytes(model, 256, checkpointing=False)
    assert pass_bytes(model, 512, checkpointing=False) == pytest.approx(2 * whole, rel=0.05)
    assert pass_bytes(model, 256, checkpointing=True) < whole / 3


def test_the_optimizer_keeps_two_moments_and_a_gradient():
    weights = trained(real("scaled", 4))
    optimizer = torch.optim.AdamW(weights)
    for weight in weights:
        weight.grad = torch.zeros_like(weight)
    optimizer.step()
    moments = sum(value.nbytes for state in optimizer.state.values() for value in state.values() if value.ndim)
    assert moments == 2 * sum(weight.nbytes for weight in weights)


@pytest.mark.parametrize("name", SMALL)
def test_the_cache_is_a_real_caches(name):
    step = Step(prompt=7, completion=5, answers=4, rows=4, group=4, frames=2)
    model = real(name, 4)
    text = model.get_base_model().model.language_model
    cache = DynamicCache(config=text.config)
    with torch.no_grad():
        states = torch.zeros(1, step.tokens, text.config.hidden_size, dtype=torch.bfloat16)
        positions = torch.zeros(3, 1, step.tokens, dtype=torch.long)
        text(inputs_embeds=states, position_ids=positions, past_key_values=cache, use_cache=True)
    assert step.tokens == 7 + 4 * 5
    assert cache_bytes(model, step) == sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)


@pytest.mark.parametrize("recipe", OF_24_GB)
def test_recipes_fit_into_24_gb(recipe):
    counted = count(str(CONFIGS / f"{recipe}.yaml"))
    assert counted.peak < LEFT
    assert min(counted.weights, counted.adapters, counted.pass_with_gradients, counted.generation, counted.tower) > 0
    assert (counted.waiting > 0) == recipe.endswith("_lora"), "a row a batch"
    if recipe == "grpo_3b_lora":
        assert counted.weights == 2 * 3_754_622_976 and counted.optimizer == 3 * counted.adapters


def test_all_weights_are_not_counted_here():
    with pytest.raises(ValueError, match=r"grpo_3b_full\.yaml: counted are recipes with lora_rank"):
        count(str(CONFIGS / "grpo_3b_full.yaml"))


def test_the_command_prints_a_row(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["training_memory", str(CONFIGS / "grpo_qwen3vl_2b_qlora.yaml")])
    main()
    header, _, row = capsys.readouterr().out.splitlines()
    assert header.startswith("| recipe | weights |") and header.endswith("| peak |") and row.count("|") == 10
