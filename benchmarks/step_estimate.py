"""An estimate of a C-GRPO step on one GPU, with transformers' generation and with vLLM's: counted, not timed.

    python -m benchmarks.step_estimate configs/grpo_3b_full.yaml --answer-tokens 256

Operations and bytes are counted on the shapes of the model in its true size (`benchmarks.counters`) and divided by
what a GPU is assumed to reach. A decoding step of transformers takes as long as its Python calls, if that is longer
than the GPU's work: this is measured here, with layers that are narrow; vLLM's is replayed as a graph and takes the
GPU's time alone. Left out: reading files, rewards, exchange between GPUs, the optimizer's step, and waiting for each
other.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.architectures import build_config, build_processor, find_architecture
from benchmarks.counters import Ceilings, Work, count_language, count_vision, on_meta
from benchmarks.training_memory import NAMES
from marc.compression import CompressionConfig
from marc.training.run import recipe_parser
from marc.types import VISION_MARKS

TEXT_TOKENS = 120
"""Of a prompt beside its video."""
BACKWARD = 2
"""Times the operations of a forward pass."""
ASSUMED = Ceilings(flops=400e12, bandwidth=2e12)
"""Of an H100: 40 % of its operations in bfloat16, 60 % of its bytes a second."""


@dataclass(frozen=True)
class Step:
    """What one GPU does in a step.

    Attributes:
        rows: Answers.
        prompts: Distinct prompts, each with a video of its own.
        trains_tower: Whether the tower has gradients, once for each video; else their encodings are the answers' own.
        computed_again: Whether layers are computed again for their gradients.
        has_reference: Whether a reference model reads the answers, too.
        answer_tokens: Of an answer.
        is_spread: Whether batches hold fewer rows than a prompt has answers: then it is read once more, without
            gradients.
    """

    rows: int
    prompts: int
    trains_tower: bool
    computed_again: bool
    has_reference: bool
    answer_tokens: int
    is_spread: bool

    @property
    def with_gradients(self) -> int:
        """Forward passes whose work a pass with gradients takes."""
        return 1 + self.computed_again + BACKWARD


@dataclass(frozen=True)
class Costs:
    """Of one model.

    Attributes:
        tower: Of one video.
        prefill: Of one prompt.
        decode: Of one token.
        sequence: Of a prompt with its answer, as one forward pass.
        host: Seconds of Python for one decoding step of transformers.
    """

    tower: Work
    prefill: Work
    decode: Work
    sequence: Work
    host: float


def parts(step: Step, costs: Costs, ceilings: Ceilings) -> dict[str, tuple[float, float]]:
    """Seconds of the parts of a step, with transformers' generation and with vLLM's."""
    tower = costs.tower.seconds(ceilings)
    begin = step.prompts * (tower + costs.prefill.seconds(ceilings))
    token = max(step.rows * costs.decode.flops / ceilings.flops, costs.decode.bytes / ceilings.bandwidth)
    decode = [begin + step.answer_tokens * max(token, host) for host in (costs.host, 0.0)]
    prompt = costs.prefill.seconds(ceilings)
    prompts = step.prompts * prompt
    reading = prompts + step.rows * (costs.sequence.seconds(ceilings) - prompt)
    towers = step.prompts * step.with_gradients * tower if step.trains_tower else 0.0
    return {
        "answers": (decode[0], decode[1]),
        "log-probabilities of the reference": (reading * step.has_reference,) * 2,
        "language model with gradients": (reading * step.with_gradients + prompts * step.is_spread,) * 2,
        "vision tower with gradients": (towers, towers),
    }


def costs_of(name: str, compression: CompressionConfig, frames: int, answer_tokens: int) -> Costs:
    """Counts a model in its true size.

    Args:
        name: Of its architecture.
        compression: The student's.
        frames: Of a video.
        answer_tokens: Of an answer.
    """
    architecture = find_architecture(name)
    tokenizer = architecture.build_tokenizer()
    model = on_meta(architecture.our_model, build_config(architecture, tokenizer, compression), torch.bfloat16)
    grid = (frames // model.config.vision_config.temporal_patch_size, *architecture.patches)
    processor: Any = build_processor(architecture, tokenizer, compression)
    seconds = [2.0 * number for number in range(grid[0])]
    prompt = processor.prompt_tokens(processor.plan(grid), seconds) - VISION_MARKS + TEXT_TOKENS
    prefill, decode = count_language(model, prompt)
    sequence, _ = count_language(model, prompt + answer_tokens)
    return Costs(count_vision(model, grid)[0], prefill, decode, sequence, host_seconds(model))


@torch.no_grad()
def host_seconds(model: Any, steps: int = 20) -> float:
    """Seconds of Python for one decoding step, the median of some: of as many layers, but narrow ones."""
    text = model.model.language_model
    narrow = copy.deepcopy(text.config)
    head = getattr(narrow, "head_dim", None) or narrow.hidden_size // narrow.num_attention_heads
    narrow.update({"hidden_size": head, "intermediate_size": head, "vocab_size": 16, "pad_token_id": None})
    narrow.update({"num_attention_heads": 1, "num_key_value_heads": 1, "_attn_implementation": "sdpa"})
    layers = type(text)(narrow).eval()
    cache, taken = None, []
    for length in (8, *[1] * steps):
        embeddings, positions = torch.zeros(1, length, head), torch.zeros(3, 1, length, dtype=torch.long)
        begun = time.perf_counter()
        output = layers(inputs_embeds=embeddings, position_ids=positions, past_key_values=cache, use_cache=True)
        taken.append(time.perf_counter() - begun)
        cache = output.past_key_values
    return statistics.median(taken[1:])


def step_of(recipe: str, answer_tokens: int) -> tuple[Step, str, CompressionConfig, int]:
    """A recipe's step, the name of its architecture, its compression and its frames."""
    typed = ["--config", recipe, "--bf16", "false", "--output_dir", "unused"]
    options, config = recipe_parser("grpo", typed).parse_args_and_config(typed)
    rows = config.per_device_train_batch_size * config.steps_per_generation
    step = Step(
        rows=rows,
        prompts=max(1, rows // config.num_generations),
        trains_tower=not (config.freeze_tower or options.lora_rank),
        computed_again=config.gradient_checkpointing,
        has_reference=config.beta > 0,
        answer_tokens=answer_tokens,
        is_spread=config.per_device_train_batch_size < config.num_generations,
    )
    compression = CompressionConfig.from_dict({**options.compression, "duplicates": None})
    return step, NAMES.get(options.loading.name, options.loading.name), compression, config.max_frames


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", help="file of a C-GRPO recipe")
    parser.add_argument("--answer-tokens", type=int, default=256, help="of an answer (default %(default)s)")
    parser.add_argument("--tflops", type=float, default=ASSUMED.flops / 1e12, help="reached (default %(default)g)")
    parser.add_argument(
        "--gigabytes", type=float, default=ASSUMED.bandwidth / 1e9, help="a second (default %(default)g)"
    )
    asked = parser.parse_args(arguments)
    step, name, compression, frames = step_of(asked.recipe, asked.answer_tokens)
    costs = costs_of(name, compression, frames, asked.answer_tokens)
    rows = parts(step, costs, Ceilings(asked.tflops * 1e12, asked.gigabytes * 1e9))
    print(
        f"{name}: {step.rows} answers of {step.answer_tokens} tokens to {step.prompts} prompts on each GPU, ", end=""
    )
    print(f"{1000 * costs.host:.0f} ms of Python a decoding step")
    print("| seconds of a step, estimated | transformers | vLLM |\n|---|---|---|")
    sums = [sum(column) for column in zip(*rows.values(), strict=True)]
    for title, (one, other) in {**rows, "all of these": (sums[0], sums[1])}.items():
        print(f"| {title} | {one:.1f} ({one / sums[0]:.0%}) | {other:.1f} ({other / sums[1]:.0%}) |")


if __name__ == "__main__":
    main()
