"""Trains the tiny model by C-GRPO with vLLM's answers, and prints what each step logs and what was answered.

    python train_with_rollouts.py FOLDER '{"family": "qwen2_5_vl", "tied": true, ...}'

A case may leave out a part of what `VideoVLLM.sync_weights` does (``without``), which then must show.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import LoraConfig

from marc.data.rows import TrainingRow
from marc.model.family import vision_token_ids
from marc.model.tiny import build_tiny
from marc.training import CGRPOConfig, CGRPOTrainer, rollouts, to_dataset
from marc.video import write_video

OPTIONS: dict[str, Any] = {
    "use_vllm": True,
    "max_steps": 3,
    "learning_rate": 3e-3,
    "lr_scheduler_type": "constant",
    "logging_steps": 1,
    "save_strategy": "no",
    "report_to": "none",
    "use_cpu": True,
    "bf16": False,
    "gradient_checkpointing": False,
    "disable_tqdm": True,
    "dataloader_pin_memory": False,
    "max_frames": 8,
    "per_device_train_batch_size": 4,
    "num_generations": 2,
    "max_completion_length": 6,
    "alpha": 0.0,
    "budgets": {"events": 0.5, "full": 0.5},
    "vllm_max_model_length": 1024,
}


def varied(completions, completion_ids, **columns) -> list[float]:
    """A reward that differs within groups."""
    return [sum(ids) % 11 / 10 for ids in completion_ids]


def flat(completions, **columns) -> list[float]:
    """A reward from which nothing can be learned."""
    return [0.5] * len(completions)


def rows(folder: Path) -> list[TrainingRow]:
    for number in range(2):
        frames = np.random.default_rng(number).integers(0, 256, (16, 56, 56, 3), dtype=np.uint8)
        write_video(folder / f"{number}.mp4", frames, fps=4.0)
    return [
        TrainingRow(
            str(number), "What?", "free-form", "seven", data_type="video", path=f"{number}.mp4", cuts=(1.2, 2.1)
        )
        for number in range(2)
    ]


class StepByStep(rollouts.VideoVLLM):
    """Leaves a part of the synchronisation out where it is told to."""

    without: str | None = None
    times = 0

    def sync_weights(self) -> None:
        self.times += 1
        if self.times > 1 and self.without == "weights":
            return
        if self.times > 1 and self.without == "head":
            self._has_tied_head = False
        super().sync_weights()


def main(folder: Path, case: dict[str, Any]) -> dict[str, Any]:
    """Three steps."""
    rollouts.VideoVLLM, StepByStep.without = StepByStep, case.pop("without", None)
    adapters, tied = case.pop("lora", False), case.pop("tied", False)
    torch.manual_seed(0)
    model, processor = build_tiny(family=case.pop("family"))
    if tied:
        model.config.get_text_config(decoder=True).tie_word_embeddings = model.config.tie_word_embeddings = True
        model.lm_head.weight = model.model.language_model.embed_tokens.weight
    targets = model.family.language_linears
    trainer = CGRPOTrainer(
        model=model,
        reward_funcs=[flat if case.pop("flat", False) else varied],
        args=CGRPOConfig(str(folder / "run"), **{**OPTIONS, **case}),
        train_dataset=to_dataset(rows(folder), folder, style="plain"),
        processing_class=processor,
        **({"peft_config": LoraConfig(r=4, target_modules=targets, init_lora_weights="gaussian")} if adapters else {}),
    )
    answered: list[list[int]] = []
    generate = trainer.vllm_generation.generate

    def noted(*given: Any, **named: Any) -> Any:
        result = generate(*given, **named)
        answered.extend(result[1])
        return result

    trainer.vllm_generation.generate = noted
    trainer.train()
    vision = vision_token_ids(processor.tokenizer)
    return {
        "steps": [each for each in trainer.state.log_history if "loss" in each],
        "answers": answered,
        "vision_tokens": sum(token in vision for answer in answered for token in answer),
    }


if __name__ == "__main__":
    print("RESULT " + json.dumps(main(Path(sys.argv[1]), json.loads(sys.argv[2]))))
