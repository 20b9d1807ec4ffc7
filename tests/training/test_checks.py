from types import SimpleNamespace

import pytest

from marc.model import CompressionConfig
from marc.model.tiny import build_tiny
from marc.training.budgets import BudgetMix
from marc.training.checks import (
    check_generation,
    check_rules,
    check_tower_parts,
    check_video_options,
    require_a_batch,
)


@pytest.mark.parametrize(("stage", "layer"), [(3, None), (2, 1), (None, 1)])
def test_what_deepspeed_can_follow(stage, layer):
    check_tower_parts(*with_tower_layer(layer), deepspeed(stage))


def test_zero3_cannot_follow_a_tower_in_parts():
    with pytest.raises(ValueError, match="tower_layer"):
        check_tower_parts(*with_tower_layer(1), deepspeed(3))


def test_zero3_cannot_follow_a_tower_that_tells_what_it_attends_to():
    processor, args = with_tower_layer(None)[0], deepspeed(3)
    for names, refused in ((["events", "uniform:1"], False), (["events", "visionzip:1"], True)):
        args.budget_mix = BudgetMix(dict.fromkeys(names, 1.0))
        if not refused:
            check_tower_parts(processor, args)
            continue
        with pytest.raises(ValueError, match="layout visionzip rebuilds the tower, which ZeRO-3 cannot follow"):
            check_tower_parts(processor, args)


def test_vllm_cannot_place_what_a_rule_keeps():
    processor = with_tower_layer(None)[0]
    args = SimpleNamespace(budget_mix=BudgetMix({"events": 1, "tiny:1": 1}), use_vllm=True)
    with pytest.raises(ValueError, match=r"use_vllm: vLLM numbers tokens .* the layout tiny after it"):
        check_rules(processor, args, trains_tower=False)


def test_the_best_weights_cannot_be_loaded_but_the_best_adapters_can():
    model, processor = build_tiny()
    args = SimpleNamespace(load_best_model_at_end=True, **vars(deepspeed(None)))
    check_video_options(model, processor, args, peft_config=object())
    with pytest.raises(ValueError, match="load_best_model_at_end"):
        check_video_options(model, processor, args)


def test_options_that_generate_without_the_video_are_refused():
    name = "use_transformers_continuous_batching"
    check_generation(SimpleNamespace(**{name: False}), {})
    with pytest.raises(ValueError, match=name):
        check_generation(SimpleNamespace(**{name: True}), {})


VLLM = {
    "use_vllm": True,
    "vllm_mode": "colocate",
    "vllm_tensor_parallel_size": 1,
    "vllm_enable_sleep_mode": False,
    "vllm_structured_outputs_regex": None,
    "keep_visuals": 0,
}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("vllm_mode", "server"),
        ("vllm_tensor_parallel_size", 2),
        ("vllm_enable_sleep_mode", True),
        ("vllm_structured_outputs_regex", "[A-D]"),
        ("keep_visuals", 3),
    ],
)
def test_what_vllm_beside_the_trainer_is_not_prepared_for_is_refused(name, value):
    check_generation(SimpleNamespace(**VLLM), {})
    with pytest.raises(ValueError, match=f"{name} must be .* with use_vllm: .*; got "):
        check_generation(SimpleNamespace(**{**VLLM, name: value}), {})


@pytest.mark.parametrize("name", ["rollout_func", "tools", "environment_factory"])
def test_arguments_that_generate_without_the_video_are_refused(name):
    check_generation(SimpleNamespace(), {name: None})
    with pytest.raises(ValueError, match=name):
        check_generation(SimpleNamespace(), {name: [print]})


def test_a_data_set_smaller_than_a_batch_is_refused():
    args = SimpleNamespace(generation_batch_size=64, num_generations=8)
    require_a_batch([0] * 8, args)
    require_a_batch(None, args)
    with pytest.raises(ValueError, match=r"has 7 rows, and a generation batch takes 8 prompts"):
        require_a_batch([0] * 7, args)


def with_tower_layer(layer: int | None) -> tuple:
    return build_tiny(compression=CompressionConfig(tower_layer=layer))[1:]


def deepspeed(stage: int | None) -> SimpleNamespace:
    plugin = None if stage is None else SimpleNamespace(zero_stage=stage)
    return SimpleNamespace(deepspeed_plugin=plugin, budget_mix=BudgetMix({}))
