"""What is refused before training starts: options and data that do not fit each other, each by name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sized
from dataclasses import replace
from itertools import islice
from typing import Any

from accelerate import PartialState
from accelerate.utils import gather_object
from peft import PeftModel
from tqdm import tqdm

from marc.data.rows import first_few
from marc.model import CompressedProcessor, CompressedVLM
from marc.training.budgets import LayerMix
from marc.training.config import CGRPOConfig, TowerConfig, VideoOptions
from marc.training.inputs import Messages, prompt_length, visual_sources
from marc.training.reader import VisualReader

_OTHER_GENERATION = {
    "use_transformers_continuous_batching": "it would generate without the videos of prompts",
    "rollout_func": "gradients would not see the videos of prompts",
    "tools": "later turns would not see the videos of prompts",
    "environment_factory": "later turns would not see the videos of prompts",
}


def check_video_options(model: Any, processor: Any, args: Any, peft_config: Any = None) -> None:
    """Refuses what no trainer of a compressed model can do.

    Raises:
        ValueError: Naming the option.
    """
    trains_adapters = isinstance(model, PeftModel) or peft_config is not None
    if args.load_best_model_at_end and not trains_adapters:
        raise ValueError("load_best_model_at_end would load no weights (see marc.training.resume); load them yourself")
    check_processor(model, processor)
    check_tower_parts(processor, args)


def check_generation(args: CGRPOConfig, given: Mapping[str, Any]) -> None:
    """Refuses ways to generate that would leave the videos out of the completions or of their gradients.

    Args:
        args: The options.
        given: The trainer's further arguments.

    Raises:
        ValueError: Naming the option or argument.
    """
    for name, reason in _OTHER_GENERATION.items():
        if getattr(args, name, None) or given.get(name):
            raise ValueError(f"{name}: {reason}; leave it out")
    if getattr(args, "use_vllm", False):
        _check_vllm(args)


def _check_vllm(args: CGRPOConfig) -> None:
    """Refuses what vLLM beside the trainer is not prepared for, see `marc.training.rollouts`."""
    wanted = {
        "vllm_mode": ("colocate", "vLLM runs in the trainer's process"),
        "vllm_tensor_parallel_size": (1, "each process has an engine of its own"),
        "vllm_enable_sleep_mode": (False, "the engine stays in memory"),
        "vllm_structured_outputs_regex": (None, "answers are free"),
        "keep_visuals": (0, "what is kept are the tower's tokens, and vLLM reads pixels"),
    }
    for name, (value, reason) in wanted.items():
        if getattr(args, name) != value:
            raise ValueError(f"{name} must be {value} with use_vllm: {reason}; got {getattr(args, name)}")


def check_tower_parts(processor: CompressedProcessor, args: Any) -> None:
    """Refuses a vision tower in other parts than its own under ZeRO-3, which does not know these.

    Raises:
        ValueError: Naming the option.
    """
    if args.deepspeed_plugin is None or args.deepspeed_plugin.zero_stage != 3:
        return
    if processor.compression.tower_layer is not None:
        raise ValueError("compression.tower_layer runs the tower in parts, which ZeRO-3 cannot follow; use ZeRO-2")
    for each in args.budget_mix.all(processor.compression):
        if each.rule is not None and each.rule.wants_more:
            raise ValueError(f"the layout {each.layout} rebuilds the tower, which ZeRO-3 cannot follow; use ZeRO-2")


def check_tower_training(model: Any, processor: Any, args: Any) -> LayerMix:
    """Refuses what training of a tower that merges inside cannot do.

    Returns:
        The places at which steps merge.

    Raises:
        ValueError: Naming the option.
    """
    if not isinstance(args, TowerConfig):
        raise ValueError(f"args must be a TowerConfig, got {type(args).__name__}")
    if not isinstance(model, CompressedVLM):
        raise ValueError(f"model must be a CompressedVLM, got {type(model).__name__}")
    check_video_options(model, processor, args)
    own = model.compression.tower_layer
    if not args.tower_layers and own is None:
        raise ValueError("tower_layer: after which block are grids to merge? (tower_layers: after which of several)")
    mix = args.layer_mix if args.tower_layers or own is None else LayerMix.of(own)
    layers = {name: mix.at(name, processor.compression).tower_layer for name in mix.drawn}
    if own is not None and own not in layers.values():
        name = next(iter(LayerMix.of(own).shares))
        raise ValueError(f"tower_layer {name} is where the model would merge, but no step does: {', '.join(layers)}")
    if set(layers.values()) == {None}:
        raise ValueError("tower_layers: no step merges anywhere; name a block")
    depth = len(model.model.visual.blocks)
    for name, layer in layers.items():
        if layer is not None and (layer if isinstance(layer, int) else layer[-1][0]) >= depth:
            raise ValueError(f"tower_layers {name}: that is not inside the vision tower of {depth} blocks")
    _check_budgets_of_tower(processor, args)
    return mix


def _check_budgets_of_tower(processor: CompressedProcessor, args: TowerConfig) -> None:
    inside = replace(processor.compression, tower_layer=1)  # refuses, as every budget does, a layout behind the tower
    if not any(each.enabled for each in args.budget_mix.drawn(inside)):
        raise ValueError("budget: every token of a video remains, so that nothing merges; set another one")


def check_rules(processor: CompressedProcessor, args: CGRPOConfig, *, trains_tower: bool) -> None:
    """Refuses rules that choose tokens by features where these change between answers and gradients, or come too late.

    Raises:
        ValueError: Naming the option.
    """
    rules = [each.layout for each in args.budget_mix.all(processor.compression) if each.enabled and each.rule]
    if rules and trains_tower:
        raise ValueError(f"the layout {rules[0]} chooses tokens by what the tower gives: set freeze_tower: true")
    if rules and args.use_vllm:
        raise ValueError(f"use_vllm: vLLM numbers tokens before it has seen them, and the layout {rules[0]} after it")


def check_processor(model: Any, processor: Any) -> None:
    """Refuses a processor that is not the model's.

    Raises:
        ValueError: If it is of another kind, or compresses otherwise.
    """
    if not isinstance(processor, CompressedProcessor):
        raise ValueError("processing_class must be the model's CompressedProcessor; marc.load_model returns both")
    if processor.compression != model.compression:
        raise ValueError(f"the processor's compression {processor.compression} is not the model's")


TEACHER_COLUMNS = ("problem_id", "prompt", "a_full")


def require_teacher(dataset: Any) -> None:
    """Refuses data without the teacher's accuracy.

    Raises:
        ValueError: If there is no column ``a_full``, or a video row without it, naming some.
    """
    names = dataset.column_names if dataset is not None else None
    if names is None:
        return
    advice = "`marc data teacher` writes it; teacher='online' asks in training; alpha=0 is plain GRPO"
    if "a_full" not in names:
        raise ValueError(
            "the retention reward needs the teacher's accuracy on each video row in a column 'a_full' (None for other "
            f"rows): {advice}"
        )
    missing = [
        str(row.get("problem_id", number))
        for number, row in enumerate(dataset.select_columns([n for n in names if n in TEACHER_COLUMNS]))
        if row["a_full"] is None and any(source.kind == "video" for source in visual_sources(row["prompt"]))
    ]
    if missing:
        raise ValueError(
            f"{len(missing)} video rows have no a_full, which the retention reward needs: problem_id "
            f"{first_few(missing)}; {advice}"
        )


def require_a_batch(dataset: Any, args: CGRPOConfig) -> None:
    """Refuses a data set of fewer prompts than a generation batch: TRL leaves incomplete ones out.

    Raises:
        ValueError: Naming both numbers.
    """
    assert args.generation_batch_size is not None and args.num_generations is not None
    prompts = args.generation_batch_size // args.num_generations
    if isinstance(dataset, Sized) and len(dataset) < prompts:
        raise ValueError(
            f"the data set has {len(dataset)} rows, and a generation batch takes {prompts} prompts of "
            f"{args.num_generations} answers each (generation_batch_size {args.generation_batch_size}, over all "
            "processes): no step would be made; lower per_device_train_batch_size or steps_per_generation"
        )


def rows_of(*datasets: Any) -> Iterator[Any]:
    """The rows of data sets, each of which may be missing or several by name."""
    for dataset in datasets:
        if isinstance(dataset, Mapping):
            yield from rows_of(*dataset.values())
        elif dataset is not None:
            yield from dataset


def reject_long(
    reader: VisualReader | None,
    rows: Iterable[tuple[str, Messages | str, int]],
    args: VideoOptions,
    *,
    limit: tuple[str, int],
) -> None:
    """Refuses rows that are too long at any budget, before anything would be truncated.

    Every file's size has to be looked up: processes share the rows, and all are told what was found.

    Args:
        reader: Knows the sizes of files.
        rows: ``problem_id``, prompt and number of further tokens of each.
        args: The options.
        limit: Name and value of the option that limits the tokens.

    Raises:
        ValueError: Naming the rows.
    """
    assert reader is not None
    state: Any = PartialState()  # its attributes have no types of their own
    own = islice(rows, state.process_index, None, state.num_processes)
    long: list[str] = []
    bad: list[str] = []
    budgets = args.budget_mix.all(reader.processor.compression)
    for name, prompt, more in tqdm(own, "lengths of prompts", delay=5, disable=not state.is_main_process):
        try:
            length = more + prompt_length(reader, prompt, budgets)
        except ValueError as error:
            bad.append(f"row with problem_id {name}: {error}")
            continue
        if length > limit[1]:
            long.append(f"{name} ({length} tokens)")
    long, bad = gather_object(long), gather_object(bad)
    if bad and args.bad_video == "stop":
        raise ValueError(first_few(bad))
    if long:
        raise ValueError(
            f"{len(long)} prompts are longer than {limit[0]}={limit[1]}: problem_id {first_few(long)}; "
            "raise the limit, lower the visual budget, or leave these rows out"
        )
