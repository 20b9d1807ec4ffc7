"""Trains two steps on rows of different kinds; run by torchrun from the tests of several processes.

Arguments: the folder of the files, the output folder, and the options of `CGRPOConfig` as JSON.
"""

import json
import sys
from pathlib import Path

import torch

from marc.data.rows import TrainingRow
from marc.model.tiny import build_tiny
from marc.training import CGRPOConfig, CGRPOTrainer, to_dataset


def varied(completions, completion_ids, **columns) -> list[float]:
    return [sum(ids) % 11 / 10 for ids in completion_ids]


def main() -> None:
    files, output, options = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])
    config = CGRPOConfig(str(output), **options)
    rows = [
        TrainingRow("0", "What?", "free-form", "seven", "video", "0.mp4"),
        TrainingRow("1", "Why?", "free-form", "seven", "text"),
        TrainingRow("2", "Which?", "free-form", "seven", "image", "0.png"),
        TrainingRow("3", "Where?", "free-form", "seven", "text"),
    ]
    model, processor = build_tiny()
    trainer = CGRPOTrainer(model, [varied], config, to_dataset(rows, files), processing_class=processor)
    trainer.train()
    history = [row for row in trainer.state.log_history if "loss" in row]
    weight = trainer.accelerator.unwrap_model(trainer.model).model.visual.merger.mlp[0].weight
    state = {"losses": [row["loss"] for row in history], "grad_norms": [row["grad_norm"] for row in history]}
    if weight.numel():
        state["tower"] = weight.detach().double().sum().item()
    output.mkdir(parents=True, exist_ok=True)
    result = {"rank": config.process_index, **state}
    (output / f"rank-{config.process_index}.json").write_text(json.dumps(result))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
