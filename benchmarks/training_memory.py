"""What training with adapters takes of a GPU's memory, counted: every tensor of a step, on shapes alone.

    python -m benchmarks.training_memory configs/grpo_3b_qlora.yaml configs/grpo_qwen3vl_4b_lora.yaml

The model that a recipe names is built in its true size without memory for its weights (torch's meta device), gets the
recipe's adapters, and makes what a C-GRPO step makes: the answers' cache, the video's features, the pass with
gradients, the optimizer's step. `LiveBytes` follows each tensor from the operation that makes it until nothing holds
it. Rows are as long as the recipe admits. Not counted: CUDA's context and kernels' workspaces (about a GiB), what the
allocator loses between blocks, and the head's tiles, which TRL bounds.
"""

from __future__ import annotations

import argparse
import weakref
from collections.abc import Iterable
from dataclasses import dataclass, fields
from math import ceil
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from benchmarks.architectures import Architecture, build_config, find_architecture
from benchmarks.counters import encode_shapes, on_meta
from marc.compression import CompressionConfig
from marc.model.tiny import build_tokenizer
from marc.training.run import recipe_parser

GIB = 2**30
NAMES = {
    "Qwen/Qwen2.5-VL-3B-Instruct": "3b",
    "Qwen/Qwen2.5-VL-7B-Instruct": "7b",
    "Qwen/Qwen3-VL-2B-Instruct": "qwen3-vl-2b",
    "Qwen/Qwen3-VL-4B-Instruct": "qwen3-vl-4b",
    "Qwen/Qwen3-VL-8B-Instruct": "qwen3-vl-8b",
}
"""Architectures of the models that recipes name."""
NF4_BLOCK = 64
"""Weights of a block, whose scale bitsandbytes keeps in 32 bits."""


class LiveBytes(TorchDispatchMode):
    """Bytes of the tensors that were made under it and are still held; views are their tensor's.

    Attributes:
        live: Now.
        peak: The most that there were.

    Args:
        known: Tensors that are not counted, such as weights.
    """

    def __init__(self, known: Iterable[Tensor] = ()) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._known: Any = WeakIdKeyDictionary()
        for tensor in known:
            self._known[tensor.untyped_storage()] = True

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            if isinstance(value, Tensor):
                self._add(value.untyped_storage())
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        if storage in self._known:
            return
        size = storage.nbytes()
        self._known[storage] = True
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._remove, size)

    def _remove(self, size: int) -> None:
        self.live -= size


@dataclass(frozen=True)
class Step:
    """The sizes of a step on one GPU.

    Attributes:
        prompt: Most tokens of a prompt.
        completion: Most tokens of an answer.
        answers: Rows that are generated together.
        rows: Rows of a pass with gradients.
        group: Answers to a prompt, which share it.
        frames: Of a video.
        checkpointing: Whether layers are computed again for their gradients.
    """

    prompt: int
    completion: int
    answers: int
    rows: int
    group: int
    frames: int
    checkpointing: bool = True

    @property
    def tokens(self) -> int:
        """Of the sequence that a pass with gradients reads: each prompt once, and all answers."""
        return ceil(self.rows / self.group) * self.prompt + self.rows * self.completion


@dataclass(frozen=True)
class TrainingMemory:
    """Bytes on one GPU.

    Attributes:
        weights: Of the model, in 16 and in 4 bits.
        adapters: LoRA's weights.
        optimizer: Their gradients and AdamW's moments.
        pass_with_gradients: The most beside these while gradients are computed.
        waiting: Gradients, in float32, for a prompt's keys and values, where batches hold fewer rows than it has
            answers.
        generation: The cache of keys and values of all answers.
        tower: The most that the frozen tower makes for a video, its tokens included.
    """

    weights: int
    adapters: int
    optimizer: int
    pass_with_gradients: int
    waiting: int
    generation: int
    tower: int

    @property
    def peak(self) -> int:
        """The most at one time: generation, tower and gradients follow each other."""
        gradients = self.pass_with_gradients + self.waiting
        return self.weights + self.adapters + self.optimizer + max(gradients, self.generation, self.tower)


def adapted(architecture: Architecture, rank: int, *, four_bits: bool) -> PeftModel:
    """The model of a true size with LoRA as `marc.training.run.lora` has it, on the meta device, training.

    Args:
        architecture: Sizes.
        rank: Of LoRA.
        four_bits: QLoRA, whose adapters are in bfloat16, as TRL has them; else they are in float32.
    """
    compression = CompressionConfig(layout="frames", duplicates=None)
    model = on_meta(architecture.our_model, build_config(architecture, build_tokenizer(), compression), torch.bfloat16)
    targets = architecture.family.language_linears
    peft: Any = get_peft_model(model, LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=targets))
    if four_bits:
        for weight in trained(peft):
            weight.data = weight.data.to(torch.bfloat16)
    return peft.train()


def trained(model: torch.nn.Module) -> list[Tensor]:
    """The weights that have gradients."""
    return [weight for weight in model.parameters() if weight.requires_grad]


def weight_bytes(model: PeftModel, *, four_bits: bool) -> int:
    """Of all weights that are not trained; in 4 bits those under adapters, with a scale for each block."""
    total = 0
    for name, weight in model.named_parameters():
        if not weight.requires_grad:
            small = four_bits and ".base_layer.weight" in name
            total += weight.numel() // 2 + weight.numel() // NF4_BLOCK * 4 if small else weight.nbytes
    return total


def pass_bytes(model: PeftModel, tokens: int, *, checkpointing: bool) -> int:
    """The most bytes that a pass of the language model with gradients holds, gradients of adapters left out.

    Args:
        model: From `adapted`, or one of the same kind with weights.
        tokens: Of its one row.
        checkpointing: Whether layers are computed again.
    """
    base: Any = model.get_base_model()
    if checkpointing:
        base.gradient_checkpointing_enable({"use_reentrant": False})
    weights = list(model.parameters())
    device, width = weights[0].device, base.config.text_config.hidden_size
    gradients = sum(weight.nbytes for weight in trained(model))
    with LiveBytes([*weights, *model.buffers()]) as live:
        embeddings = torch.zeros(1, tokens, width, dtype=base.dtype, device=device, requires_grad=True)
        positions = torch.zeros(3, 1, tokens, dtype=torch.long, device=device)
        states = base.model.language_model(inputs_embeds=embeddings, position_ids=positions, use_cache=False)
        states.last_hidden_state.sum().backward()
    model.zero_grad()
    return max(0, live.peak - gradients)


def cache_numbers(model: PeftModel, tokens: int) -> int:
    """Numbers in the keys and values of some tokens."""
    base: Any = model.get_base_model()
    text = base.config.text_config
    head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return 2 * int(text.num_hidden_layers * text.num_key_value_heads * head) * tokens


def cache_bytes(model: PeftModel, step: Step) -> int:
    """Keys and values of all prompts, each once, and all answers at their full length."""
    tokens = ceil(step.answers / step.group) * step.prompt + step.answers * step.completion
    return 2 * cache_numbers(model, tokens)


@torch.no_grad()
def tower_bytes(model: PeftModel, architecture: Architecture, frames: int) -> int:
    """The most bytes that encoding a video makes, its pixels and tokens included."""
    base: Any = model.get_base_model()
    vision = base.config.vision_config
    height, width = (side * vision.spatial_merge_size for side in architecture.cells)
    with LiveBytes([*model.parameters(), *model.buffers()]) as live:
        encode_shapes(base, (frames // vision.temporal_patch_size, height, width))
    return live.peak


def count(recipe: str) -> TrainingMemory:
    """What a recipe of C-GRPO with adapters takes on one GPU.

    Args:
        recipe: The file.

    Raises:
        ValueError: If it trains all weights, or names no model of a known size.
    """
    typed = ["--config", recipe, "--bf16", "false", "--output_dir", "unused"]
    options, config = recipe_parser("grpo", typed).parse_args_and_config(typed)
    if not options.lora_rank or not config.freeze_tower or config.max_prompt_length is None:
        raise ValueError(f"{recipe}: counted are recipes with lora_rank, freeze_tower and max_prompt_length")
    architecture = find_architecture(NAMES.get(options.loading.name, options.loading.name))
    step = Step(
        prompt=config.max_prompt_length,
        completion=config.max_completion_length,
        answers=config.per_device_train_batch_size * config.steps_per_generation,
        rows=config.per_device_train_batch_size,
        group=config.num_generations,
        frames=config.max_frames,
        checkpointing=config.gradient_checkpointing,
    )
    return count_step(architecture, options.lora_rank, step, four_bits=options.load_in_4bit)


def count_step(architecture: Architecture, rank: int, step: Step, *, four_bits: bool) -> TrainingMemory:
    """What a step takes; see `count`."""
    model = adapted(architecture, rank, four_bits=four_bits)
    adapters = sum(weight.nbytes for weight in trained(model))
    return TrainingMemory(
        weights=weight_bytes(model, four_bits=four_bits),
        adapters=adapters,
        optimizer=3 * adapters,
        pass_with_gradients=pass_bytes(model, step.tokens, checkpointing=step.checkpointing),
        waiting=4 * cache_numbers(model, step.prompt) if step.rows < step.group else 0,
        generation=cache_bytes(model, step),
        tower=tower_bytes(model, architecture, step.frames),
    )


def main() -> None:
    """Prints a row for each recipe, in GiB."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="+", help="files")
    parts = [field.name for field in fields(TrainingMemory)]
    names = [*parts, "peak"]
    print(f"| recipe | {' | '.join(name.replace('_', ' ') for name in names)} |")
    print(f"|{'---|' * (len(names) + 1)}")
    for recipe in parser.parse_args().recipes:
        counted = count(recipe)
        print(f"| {recipe} | {' | '.join(f'{getattr(counted, name) / GIB:.1f}' for name in names)} |", flush=True)


if __name__ == "__main__":
    main()
