"""The supervised run of a recipe: what ``training_script/sft_video.py`` and ``marc train sft`` do.

python training_script/sft_video.py --config configs/sft_world.yaml [--any_option value] [--dry_run true]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from marc.training.config import VideoSFTConfig
from marc.training.dataset import to_supervised
from marc.training.run import RunOptions, load_policy, lora, read_data, read_options, run
from marc.training.sft import VideoSFTTrainer


@dataclass
class SFTRunOptions(RunOptions):
    """`RunOptions` and what becomes of rows in supervised training.

    Attributes:
        reasoning: Whether the model is to say a row's reasoning (``process``) before its answer.
        questions_per_video: Most questions about a video in one item; they share its encoding.
    """

    reasoning: bool = field(default=True, metadata={"help": "Train on the rows' reasoning too."})
    questions_per_video: int = field(default=1, metadata={"help": "Most questions about a video in one item."})


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs a recipe."""
    resolved = read_options(SFTRunOptions, VideoSFTConfig, arguments)
    if resolved is None:
        return
    options, config = resolved
    model, processor = load_policy(options, config)
    rows, root, frames = read_data(options, config)
    dataset = to_supervised(
        rows,
        root,
        style=options.style,
        reasoning=options.reasoning,
        questions_per_video=options.questions_per_video,
    )
    trainer = VideoSFTTrainer(
        model=model,
        args=config,
        train_dataset=dataset,
        processing_class=processor,
        frames=frames,
        peft_config=lora(options.lora_rank),
    )
    run(trainer, resume=options.resume)
