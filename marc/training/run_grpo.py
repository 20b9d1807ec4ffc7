"""The C-GRPO run of a recipe: what ``training_script/grpo.py`` and ``marc train grpo`` do.

python training_script/grpo.py --config configs/grpo_world.yaml [--any_option value] [--dry_run true]
"""

from __future__ import annotations

from collections.abc import Sequence

from marc.training.config import CGRPOConfig
from marc.training.dataset import to_dataset
from marc.training.grpo import CGRPOTrainer
from marc.training.run import RunOptions, load_policy, lora, read_data, read_options, run


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs a recipe."""
    resolved = read_options(RunOptions, CGRPOConfig, arguments)
    if resolved is None:
        return
    options, config = resolved
    model, processor = load_policy(options, config)
    rows, root, frames = read_data(options, config)
    trainer = CGRPOTrainer(
        model=model,
        args=config,
        train_dataset=to_dataset(rows, root, style=options.style),
        processing_class=processor,
        frames=frames,
        peft_config=lora(options.lora_rank),
    )
    run(trainer, resume=options.resume)
