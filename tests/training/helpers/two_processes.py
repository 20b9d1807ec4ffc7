"""Trains on rows of different kinds in each process; run by torchrun from the tests of several processes.

Arguments: the folder of the files and the models, the output folder, and a JSON object of cases: names and the options
of the trainer for each, with eight more: ``family`` (of the model), ``sft`` or ``tower`` (trained instead of by
C-GRPO), ``lora`` (on the language model), ``four_bits`` (its weights, as recipes load them), ``broken`` (the last row
names a video that cannot be read), ``often`` (each batch encodes its videos with gradients) and ``resume`` (train
again from the checkpoint of this step).
"""

import gc
import json
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch
from deepspeed import zero
from peft import LoraConfig
from torch.distributed.elastic.multiprocessing.errors import record
from transformers import Trainer, TrainerState

from marc.data.rows import TrainingRow
from marc.model.tiny import EMBEDDED_FAMILY
from marc.rewards import accuracy_reward
from marc.training import (
    CGRPOConfig,
    CGRPOTrainer,
    TowerConfig,
    TowerTrainer,
    VideoSFTConfig,
    VideoSFTTrainer,
    evaluating,
    teacher,
    to_dataset,
    to_supervised,
    to_videos,
)
from marc.training.encoded_once import StepEncodings
from marc.training.run import RunOptions, load_policy

KINDS = [
    ("video", "0.mp4"),
    ("text", None),
    ("text", None),
    ("image", "0.png"),
    ("video", "1.mp4"),
    ("image", "1.png"),
]
"""Without shuffling the first process gets the first row of each pair, the second the other."""


def varied(completions, completion_ids, **columns) -> list[float]:
    return [sum(ids) % 11 / 10 for ids in completion_ids]


def graded(completions, *columns) -> list[float]:
    """An accuracy of the teacher that depends on every letter it says."""
    return [(1 + sum(map(ord, text)) % 9) / 10 for text in completions]


def weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    """Copies of the trainable weights, also of those that are shared out."""
    trainable = {n: p for n, p in trainer.model.named_parameters() if p.requires_grad}
    with zero.GatheredParameters(list(trainable.values())):
        return {name: parameter.detach().clone() for name, parameter in trainable.items()}


def build(
    files: Path,
    output: Path,
    options: dict,
    *,
    family: str = EMBEDDED_FAMILY,
    sft: bool = False,
    tower: bool = False,
    lora: bool = False,
    four_bits: bool = False,
    broken: bool = False,
    often: bool = False,
) -> Trainer:
    config_class = TowerConfig if tower else VideoSFTConfig if sft else CGRPOConfig
    known = {name: value for name, value in options.items() if name in config_class.__dataclass_fields__}
    config = config_class(str(output), **known)
    assert config.world_size == 2
    teachers = {"video": 0.5} if not (sft or tower) and config.curriculum else {}
    rows = [
        TrainingRow(str(index), f"What is {index}?", "free-form", "seven", kind, path, a_full=teachers.get(kind))
        for index, (kind, path) in enumerate([*KINDS[:-1], ("video", "broken.mp4")] if broken else KINDS)
    ]
    loading = RunOptions(model=str(files / family), load_in_4bit=four_bits, lora_rank=4 * lora)
    model, processor = load_policy(loading, config)
    if tower:
        shown = to_videos([replace(row, cuts=(1.2, 2.1)) for row in rows if row.data_type == "video"], files)
        return TowerTrainer(model=model, args=config, processing_class=processor, train_dataset=shown)
    given = {
        "model": model,
        "args": config,
        "processing_class": processor,
        "peft_config": LoraConfig(r=4, target_modules=r".*language_model.*\.(q_proj|v_proj)") if lora else None,
        # An odd number of rows, so that one process asks more than the other.
        "eval_dataset": to_dataset(rows[:5], files) if config.eval_budgets else None,
    }
    if sft:
        return VideoSFTTrainer(train_dataset=to_supervised(rows, files, reasoning=False), **given)
    functions = [varied, accuracy_reward] if config.teacher == "online" or config.curriculum else [varied]
    trainer = CGRPOTrainer(reward_funcs=functions, train_dataset=to_dataset(rows, files), **given)
    if often:
        trainer.remove_callback(StepEncodings)
    return trainer


def history(trainer: Trainer) -> list[dict]:
    keys = (
        "loss",
        "grad_norm",
        "reward",
        "completions/mean_length",
        "bad_videos",
        "curriculum/seen",
        "selection/reward",
    )
    return [{key: row[key] for key in keys if key in row} for row in trainer.state.log_history if "loss" in row]


def counted_videos(model: torch.nn.Module) -> list[int]:
    """Videos that go through a model's tower with gradients, dummies of one grid left out: a number for each call."""
    counts: list[int] = []

    def count(tower: torch.nn.Module, args: tuple, kwargs: dict, output: object) -> None:
        if output.pooler_output.requires_grad:
            counts.append(int((kwargs["grid_thw"][:, 0] > 1).sum()))

    (tower,) = (module for name, module in model.named_modules() if name.endswith("visual"))
    tower.register_forward_hook(count, with_kwargs=True)
    return counts


def run(files: Path, output: Path, *, resume: int | None, built: dict, options: dict) -> dict:
    trainer = build(files, output, options, **built)
    before, videos = weights(trainer), counted_videos(trainer.model)
    trainer.train()
    after = weights(trainer)
    trainer.save_model(str(output / "saved"))
    result = {
        "steps": history(trainer),
        "still": [name for name, weight in after.items() if torch.equal(weight, before[name])],
        "moved": [name for name, weight in after.items() if not torch.equal(weight, before[name])],
        "evaluations": [
            {key: value for key, value in row.items() if key.startswith("eval_accuracy/")}
            for row in trainer.state.log_history
            if "eval_accuracy/full" in row
        ],
        "videos": int(trainer.accelerator.reduce(torch.tensor(sum(videos)))),
        "sums": {name: weight.double().sum().item() for name, weight in after.items()},
    }
    result["learned beside"] = {name: kept.state() for name, kept in trainer._learns_beside().items()}
    grader = getattr(trainer, "_grader", None)
    result["asked"] = [] if grader is None else list(grader.cache.results.values())
    if resume is not None:
        del trainer
        gc.collect()
        again = build(files, output, options, **built)
        again.train(resume_from_checkpoint=str(output / f"checkpoint-{resume}"))
        result["resumed"] = history(again)
    return result


def saving_late() -> list[int]:
    """Has the second process be late wherever a checkpoint is saved.

    Returns:
        How many processes had saved their random numbers when each state was written that says a checkpoint is whole.
    """
    save_state, save_numbers, seen = TrainerState.save_to_json, Trainer._save_rng_state, []

    def save_to_json(self: TrainerState, path: str) -> None:
        seen.append(len(list(Path(path).parent.glob("rng_state_*.pth"))))
        save_state(self, path)

    def save_rng_state(self: Trainer, folder: str) -> None:
        time.sleep(0.3 * self.args.process_index)
        save_numbers(self, folder)

    TrainerState.save_to_json, Trainer._save_rng_state = save_to_json, save_rng_state
    return seen


@record
def main() -> None:
    saved = saving_late()
    teacher.accuracy_reward = evaluating.accuracy_reward = graded
    files, output, cases = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])
    for name, options in cases.items():
        built = {
            key: options.pop(key)
            for key in ("family", "sft", "tower", "lora", "four_bits", "broken", "often")
            if key in options
        }
        saved.clear()
        result = run(files, output / name, resume=options.pop("resume", None), built=built, options=options)
        result["saved without the other"] = sum(processes != 2 for processes in saved)
        rank = torch.distributed.get_rank()
        (output / name / f"rank-{rank}.json").write_text(json.dumps(result))
        print(f"rank {rank}: {name} is done", file=sys.stderr)
        gc.collect()
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
