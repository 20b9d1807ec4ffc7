"""One stage of an arm: a shipped trainer of `marc.training`, stopped when its processor time is spent.

- ``sft``: `VideoSFTTrainer`, questions about a video packed behind its tokens.
- ``c-grpo``: `CGRPOTrainer` with the accuracy and retention rewards, the teacher's accuracy in the column ``a_full``.
- ``distill``: `CGRPOTrainer` with ``reward_coef: 0``: on-policy distillation from the teacher that sees every token.

Nothing of the trainers is replaced. What they are given:

- Videos of the micro-world as ``frames``, with a frozen tower: all are read and encoded before the clock starts.
- Adam, and a learning rate that follows the share of the time that is spent (`learning_rate`).
- A callback that measures the student on its way, for which the clock stands still, and ends training (`TimeLimit`).

An arm's time is the processor time of the trainer's steps, of all that it does in them. Steps of the three methods
have the same number of questions, in an order that follows from the seed and the trainer.

Learning rates, group size, temperature and questions of a step are those of the ablation's first runs, which had
losses of their own. What differs from them, because the trainers have it so:

- A supervised step asks fixed sets of questions about a few videos, a step of the others mixes questions about any.
- Distillation samples two answers to each question, not one: TRL wants groups.
- The teacher's accuracy is the reward's, which gives partial credit, not exact match.
- Rows carry cuts, at which the published merge's windows begin anew, too; and a video's tokens that do not divide by
  its events are not spent on random ones.
- Frames of a whole video are those that are read of a file, from its first to its last.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR
from transformers import PrinterCallback, TrainerCallback, TrainerControl

from experiments.ablation.evaluation import STYLE, longest_answer, source
from experiments.ablation.settings import BUDGETS, Method, MethodOptions
from marc.data.rows import TrainingRow
from marc.inference.encoding import encode_once
from marc.inference.hf import HFBackend
from marc.inference.video_input import inputs_at
from marc.model import CompressedVLM
from marc.rewards import accuracy_reward, format_reward
from marc.training import CGRPOConfig, CGRPOTrainer, VideoSFTConfig, VideoSFTTrainer, to_dataset, to_supervised
from marc.training.video_trainer import VideoTrainer
from marc.world.frames import WorldFrames

Weights = dict[str, Tensor]
TOWER = "model.visual."
"""What the names of the weights that stay as they are begin with."""
NO_END = 1_000_000
"""More steps than any stage has time for."""


@dataclass(frozen=True)
class StageOptions:
    """What a stage is.

    Attributes:
        method: How it trains.
        budgets: Probability of each budget in a step.
        seconds: Processor seconds of all steps together.
        seed: Of the order of questions and of samples.
        teacher: Folder or hub name of the full-frame teacher.
        folder: What the trainer calls its output folder, in which nothing is kept.
        batch: Sizes of batches, learning rates, points of the curve.
    """

    method: Method
    budgets: Mapping[str, float]
    seconds: float
    seed: int
    teacher: str
    folder: Path
    batch: MethodOptions

    @property
    def own_budget(self) -> str:
        """The model's own one, which the trainer uses unless it draws others."""
        return next(iter(self.budgets))

    @property
    def questions(self) -> int:
        """Of a step."""
        return self.batch.videos * self.batch.questions

    @property
    def answers(self) -> int:
        """That are sampled for each question."""
        return {"sft": 0, "c-grpo": self.batch.generations, "distill": self.batch.samples}[self.method]


@dataclass
class StageLog:
    """What a stage did.

    Attributes:
        seconds: Processor time in steps; measuring is not counted.
        steps: Updates.
        questions: Questions seen.
        completions: Answers drawn.
        curve: Processor seconds and what was measured then.
        stats: Mean of each of the trainer's numbers over the stage.
    """

    seconds: float = 0.0
    steps: int = 0
    questions: int = 0
    completions: int = 0
    curve: list[tuple[float, dict[str, float]]] = field(default_factory=list)
    stats: dict[str, float] = field(default_factory=dict)


class Allowance:
    """Processor time that may be spent; its clock runs between `start` and `stop`.

    Args:
        seconds: How much.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._before = 0.0
        self._since: float | None = None

    def start(self) -> None:
        """The clock runs."""
        self._since = time.process_time()

    def stop(self) -> None:
        """The clock stands still."""
        self._before, self._since = self.spent, None

    @property
    def spent(self) -> float:
        """Seconds so far."""
        return self._before + (0.0 if self._since is None else time.process_time() - self._since)

    @property
    def share(self) -> float:
        """The part of it that is spent; more than 1 once a last step has overrun it."""
        return self.spent / self.seconds


def learning_rate(progress: float) -> float:
    """Part of its peak: up from a tenth over the first part of a stage, then linearly down to 0."""
    return max(0.0, min(0.1 + 20 * progress, 1 - progress))


class TimeLimit(TrainerCallback):
    """Ends training once an allowance is spent, and measures the model at the start, on the way and at the end.

    Attributes:
        curve: Processor seconds and what was measured then.

    Args:
        allowance: Runs while steps are made.
        points: How often to measure after the start.
        measure: Gives accuracies.
    """

    def __init__(self, allowance: Allowance, points: int, measure: Callable[[], dict[str, float]]) -> None:
        self.curve: list[tuple[float, dict[str, float]]] = []
        self._allowance, self._points, self._measure = allowance, points, measure

    def on_train_begin(self, args: Any, state: Any, control: TrainerControl, **kwargs: Any) -> None:
        """Measures, then starts the clock."""
        self._add_point(kwargs["model"])
        self._allowance.start()

    def on_step_end(self, args: Any, state: Any, control: TrainerControl, **kwargs: Any) -> None:
        """Measures if it is time to; ends training if there is none left."""
        self._allowance.stop()
        if self._allowance.share >= len(self.curve) / self._points:
            self._add_point(kwargs["model"])
        if self._allowance.share >= 1:
            control.should_training_stop = True
        else:
            self._allowance.start()

    def _add_point(self, model: torch.nn.Module) -> None:
        model.eval()
        with torch.random.fork_rng(devices=[]):
            self.curve.append((self._allowance.spent, self._measure()))
        model.train()


def train_stage(
    student: HFBackend, rows: Sequence[TrainingRow], stage: StageOptions, measure: Callable[[], dict[str, float]]
) -> StageLog:
    """Trains a student in place until the processor time is spent.

    Args:
        student: Not trained before: trainers change how a model calls itself.
        rows: What it is trained on, with the teacher's accuracies.
        stage: How, and for how long.
        measure: Accuracies of the student for the curve.
    """
    allowance = Allowance(stage.seconds)
    limit = TimeLimit(allowance, stage.batch.curve_points, measure)
    trainer = make_trainer(student, rows, stage, allowance)
    trainer.add_callback(limit)
    trainer.train()
    steps = trainer.state.global_step
    questions = steps * stage.questions
    return StageLog(
        allowance.spent, steps, questions, questions * stage.answers, limit.curve, means(trainer.state.log_history)
    )


def make_trainer(
    student: HFBackend, rows: Sequence[TrainingRow], stage: StageOptions, allowance: Allowance
) -> CGRPOTrainer | VideoSFTTrainer:
    """The trainer of a stage, which has seen all videos; see `train_stage`."""
    student.compression = BUDGETS[stage.own_budget]
    student.model.model.visual.requires_grad_(False)
    weights = [weight for weight in student.model.parameters() if weight.requires_grad]
    optimizer = torch.optim.Adam(weights, lr=stage.batch.learning_rates[stage.method], betas=(0.9, 0.98))
    schedule = LambdaLR(optimizer, lambda _: learning_rate(allowance.share))
    given: dict[str, Any] = {
        "model": student.model,
        "processing_class": student.processor,
        "frames": WorldFrames(),
        "optimizers": (optimizer, schedule),
    }
    options = trainer_options(rows, stage)
    trainer: CGRPOTrainer | VideoSFTTrainer
    if stage.method == "sft":
        items = to_supervised(rows, "", style=STYLE, questions_per_video=stage.batch.questions)
        trainer = VideoSFTTrainer(args=VideoSFTConfig(**options), train_dataset=items, **given)
    else:
        options["max_completion_length"] = longest_answer(student.processor, rows)
        rewards = [accuracy_reward if stage.method == "c-grpo" else format_reward]
        trainer = CGRPOTrainer(
            reward_funcs=rewards,
            args=CGRPOConfig(**options),
            train_dataset=to_dataset(rows, "", style=STYLE),
            **given,
        )
    trainer.remove_callback(PrinterCallback)
    see_videos(trainer, rows, stage.budgets)
    return trainer


def quiet_options(rows: Sequence[TrainingRow], folder: Path, seed: int) -> dict[str, Any]:
    """Fields of a trainer's configuration that all arms have: no end but the clock's, nothing saved or reported."""
    return {
        "output_dir": str(folder),
        "seed": seed,
        "max_steps": NO_END,
        "freeze_tower": True,
        "keep_visuals": len({row.path for row in rows}),
        "max_grad_norm": 1.0,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "use_cpu": True,
        "disable_tqdm": True,
        "gradient_checkpointing": False,
        "bf16": False,
        "dataloader_pin_memory": False,
    }


def trainer_options(rows: Sequence[TrainingRow], stage: StageOptions) -> dict[str, Any]:
    """Fields of the trainer's configuration, but the length of completions."""
    common = {
        **quiet_options(rows, stage.folder, stage.seed),
        "budgets": dict(stage.budgets) if len(stage.budgets) > 1 else None,
    }
    if stage.method == "sft":
        return {
            **common,
            "per_device_train_batch_size": stage.batch.videos,
            "dataloader_drop_last": True,
            "pack_questions": True,
        }
    common |= {
        "per_device_train_batch_size": stage.questions * stage.answers,
        "num_generations": stage.answers,
        "temperature": 1.0,
        "beta": 0.0,
        "loss_type": "dapo",
    }
    if stage.method == "c-grpo":
        return {**common, "scale_rewards": "group", **asdict(stage.batch.retention)}
    return {**common, "reward_coef": 0.0, "distill_coef": 1.0, "teacher_model": stage.teacher}


def see_videos(trainer: VideoTrainer, rows: Sequence[TrainingRow], budgets: Iterable[str]) -> None:
    """Has a trainer read and encode every video, which it else does when one first comes up."""
    reader = trainer._reader
    assert reader is not None
    for each in dict.fromkeys(map(source, rows)):
        patches = reader.read(each)
        shown = (inputs_at([[patches]], reader.processor, BUDGETS[name]) for name in budgets)
        encode_once(trainer.model, [video for ((video,),) in shown])


def means(history: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Mean of each number that a trainer logged with its steps; it logs None for a column that no row had."""
    steps = [{name: value for name, value in entry.items() if value is not None} for entry in history]
    steps = [entry for entry in steps if "loss" in entry]
    names = dict.fromkeys(name for entry in steps for name in entry)
    return {name: float(np.mean([entry[name] for entry in steps if name in entry])) for name in names}


def weights_of(model: CompressedVLM) -> Weights:
    """A copy of what is trained: all but the tower."""
    state = model.state_dict()
    return {name: value.detach().clone() for name, value in state.items() if not name.startswith(TOWER)}


def load_weights(model: CompressedVLM, weights: Weights) -> None:
    """Gives a model the weights that `weights_of` another one are."""
    missing, unexpected = model.load_state_dict(weights, strict=False)
    assert not unexpected and all(name.startswith(TOWER) for name in missing), (missing, unexpected)
