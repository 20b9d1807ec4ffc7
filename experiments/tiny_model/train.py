"""Train a tiny model of the micro-world: tower first, then the language model on features of the frozen tower.

The recipe is a YAML file, read into `TrainSettings`: ``configs/world_tiny.yaml`` is that of the embedded model, from
scratch; ``configs/world_qwen3_vl.yaml`` of another family, whose language model begins as the embedded one;
``configs/world_answers.yaml`` of a deeper one that goes on from it and learns to answer without thinking. Everything
random in a step follows from the seed and the step's number, and a checkpoint holds the rest, so a run that was killed
and resumed ends with the same weights as one that was not.

    python training_script/train_world.py OUTPUT --config configs/world_tiny.yaml

What it took to learn this within an hour on a CPU: grids seen by heads on *every* merged token; weights that can look
things up before they are trained (`initialisation`); a video read once for all questions about it
(`packed_questions`); kinds of questions drawn by their running loss; a curriculum over the number of events that moves
on when it is learnt (`recipe`); reasoning one step at a time (`marc.world.questions`); Muon instead of AdamW for the
matrices.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from experiments.tiny_model.bank import FeatureBank
from experiments.tiny_model.batches import STORIES, Mixture, World, loss_names
from experiments.tiny_model.initialisation import build_world_model, speak_in_words, take_over
from experiments.tiny_model.packed_questions import AskedVideos, PackedQuestions, pack_questions, target_logits
from experiments.tiny_model.recipe import TrainSettings, read_settings
from experiments.tiny_model.tower import colours_of, pretrain_tower
from marc.io import write_atomically, write_text
from marc.model import CompressedProcessor, CompressedVLM
from marc.model.loading import load_model
from marc.world.questions import KINDS

FEWEST_STEPS = 40
"""Steps of a phase before it may end early: running accuracies need so many to mean something."""
LOSS_FLOOR = 0.08
"""Added to a kind's running loss, so that nothing is ever asked too rarely to notice that it is forgotten."""
EVALUATED = (("events", "video-r1"), ("full", "video-r1"), ("events", "short"))
"""Layouts and prompt styles of the evaluations on the way."""
EVALUATION_BATCHES = 8
EVALUATION_SEED = 1

Log = Callable[[dict[str, Any]], None]


class Stage(Protocol):
    """A stretch of training, such as a `experiments.tiny_model.recipe.Phase`, as far as the loop knows it."""

    @property
    def steps(self) -> int:
        """Most steps of it."""

    @property
    def until(self) -> float | None:
        """The accuracy at which it ends early."""

    def rate_at(self, step: int) -> float:
        """The factor on the learning rates at a step of it."""


class Curriculum(Protocol):
    """What the loop reads of a recipe, such as `TrainSettings`."""

    @property
    def phases(self) -> Sequence[Any]:
        """Its stages."""

    @property
    def muon_learning_rate(self) -> float:
        """Peak, for matrices."""

    @property
    def adam_learning_rate(self) -> float:
        """Peak, for everything else."""

    @property
    def warmup(self) -> int:
        """Steps over which the rates rise."""

    @property
    def checkpoint_every(self) -> int:
        """Steps between checkpoints."""

    @property
    def log_every(self) -> int:
        """Steps between log lines."""


class Batches(Protocol):
    """What draws the batch of each step, such as `World`."""

    def batch(self, step: int, phase: Any, weights: dict[str, float]) -> AskedVideos:
        """Draw the batch of a training step; see `World.batch`."""


@dataclass
class Progress:
    """How far the training is, and how well each kind of question goes; all of it is in the checkpoint.

    Attributes:
        step: Finished steps.
        phase: Index of the current phase.
        phase_step: Finished steps of it.
        seconds: Time spent.
        losses: Running loss by name of kind (`batches.loss_name`); harder ones are drawn more often.
        accuracies: Running accuracy by name, of the current phase only.
    """

    step: int = 0
    phase: int = 0
    phase_step: int = 0
    seconds: float = 0.0
    losses: dict[str, float] = field(default_factory=dict)
    accuracies: dict[str, float] = field(default_factory=dict)

    def weights(self) -> dict[str, float]:
        """How often each kind should be drawn."""
        return {name: min(loss, 1.0) + LOSS_FLOOR for name, loss in self.losses.items()}

    def record(self, losses: dict[str, float], accuracies: dict[str, float]) -> None:
        """Take in the mean losses and accuracies of one finished step."""
        self.step, self.phase_step = self.step + 1, self.phase_step + 1
        for name, loss in losses.items():
            self.losses[name] = 0.9 * self.losses.get(name, 1.0) + 0.1 * loss
        for name, accuracy in accuracies.items():
            self.accuracies[name] = 0.95 * self.accuracies.get(name, 0.0) + 0.05 * accuracy

    def phase_is_over(self, phase: Stage) -> bool:
        """Whether the phase has had its steps, or has reached its accuracy."""
        learnt = self.phase_step >= FEWEST_STEPS and np.mean(list(self.accuracies.values())) >= (phase.until or np.inf)
        return self.phase_step >= phase.steps or bool(learnt)

    def next_phase(self) -> None:
        """Begin the next phase."""
        self.phase, self.phase_step, self.accuracies = self.phase + 1, 0, {}


@dataclass(frozen=True)
class Outcome:
    """How a batch went.

    Attributes:
        loss: Mean cross-entropy of all targets, connected to the weights.
        losses: Summed cross-entropy of each question's targets, by name of kind, on average.
        accuracies: Share of the questions all of whose targets are the likeliest tokens, likewise.
    """

    loss: Tensor
    losses: dict[str, float]
    accuracies: dict[str, float]

    @classmethod
    def of(cls, asked: AskedVideos, packed: PackedQuestions, logits_MV: Tensor) -> Outcome:
        """From what the model predicts."""
        names = loss_names(asked)
        losses_M = F.cross_entropy(logits_MV, packed.targets, reduction="none")
        return cls(
            losses_M.mean(),
            by_name(names, packed.per_question(losses_M.detach())),
            by_name(names, packed.right(logits_MV)),
        )


def by_name(names: Sequence[str], values: Tensor) -> dict[str, float]:
    """Mean of a value per question over each name."""
    table: dict[str, list[float]] = {}
    for name, value in zip(names, values.tolist(), strict=True):
        table.setdefault(name, []).append(value)
    return {name: sum(some) / len(some) for name, some in table.items()}


@torch.no_grad()
def evaluate(
    model: CompressedVLM, processor: CompressedProcessor, world: World, *, layout: str, style: str
) -> dict[str, float]:
    """Accuracy by kind on videos of the validation split (all completion tokens right, under teacher forcing)."""
    model.eval()
    mixture = Mixture(layout, style, {kind: 1.0 for kind in KINDS if kind not in STORIES}, choice_rate=0.33)
    names: list[str] = []
    right: list[Tensor] = []
    for index in range(EVALUATION_BATCHES):
        asked = world.draw(np.random.default_rng((EVALUATION_SEED, index)), index, mixture, "validation")
        packed = pack_questions(model, processor, asked)
        names += loss_names(asked)
        right.append(packed.right(target_logits(model, packed)))
    model.train()
    values = torch.cat(right)
    return {"all": values.mean().item(), **by_name(names, values)}


def make_optimizers(model: CompressedVLM, settings: Curriculum) -> list[torch.optim.Optimizer]:
    """Muon for the language model's matrices, AdamW for its embeddings, norms and biases; the tower is frozen."""
    text = model.model.language_model
    matrices = [p for p in text.layers.parameters() if p.ndim == 2]
    others = [p for p in text.parameters() if all(p is not matrix for matrix in matrices)]
    return [
        torch.optim.Muon(matrices, lr=settings.muon_learning_rate, weight_decay=0.01, adjust_lr_fn="original"),
        torch.optim.AdamW(others, lr=settings.adam_learning_rate, weight_decay=0.0, betas=(0.9, 0.98)),
    ]


class LanguageModelTraining:
    """Trains a model's language model in place; goes on from a checkpoint if there is one.

    Attributes:
        progress: How far it is.

    Args:
        model: Its tower is frozen.
        processor: Of the model.
        world: Draws the batches.
        settings: The recipe.
        checkpoint: File of the checkpoint; None: none is written.
    """

    def __init__(
        self,
        model: CompressedVLM,
        processor: CompressedProcessor,
        world: Batches,
        settings: Curriculum,
        checkpoint: Path | None = None,
    ) -> None:
        model.requires_grad_(False)
        model.model.language_model.requires_grad_(True)
        model.train()
        self.progress = Progress()
        self._model, self._processor, self._world = model, processor, world
        self._settings, self._checkpoint = settings, checkpoint
        self._optimizers = make_optimizers(model, settings)
        self._peaks = [optimizer.param_groups[0]["lr"] for optimizer in self._optimizers]
        if checkpoint is not None and checkpoint.exists():
            self._resume(torch.load(checkpoint, weights_only=True))

    def run(self, log: Log) -> Iterator[Any | None]:
        """Trains to the end; yields the phase that a step has ended, or None, before its checkpoint."""
        progress, settings = self.progress, self._settings
        started = time.perf_counter() - progress.seconds
        while progress.phase < len(settings.phases):
            phase = settings.phases[progress.phase]
            loss = self._step(phase)
            progress.seconds = time.perf_counter() - started
            over = progress.phase_is_over(phase)
            if progress.step % settings.log_every == 0 or over:
                place = {"step": progress.step, "phase": progress.phase, "seconds": progress.seconds}
                log({**place, "loss": loss, **progress.accuracies})
            if over:
                progress.next_phase()
            yield phase if over else None
            if progress.step % settings.checkpoint_every == 0 or over:
                self._save()

    def _step(self, phase: Stage) -> float:
        """One step of a phase; returns its loss."""
        progress = self.progress
        asked = self._world.batch(progress.step, phase, progress.weights())
        packed = pack_questions(self._model, self._processor, asked)
        outcome = Outcome.of(asked, packed, target_logits(self._model, packed))
        rate = phase.rate_at(progress.phase_step) * min(1.0, (progress.step + 1) / max(1, self._settings.warmup))
        for optimizer, peak in zip(self._optimizers, self._peaks, strict=True):
            optimizer.param_groups[0]["lr"] = peak * rate
            optimizer.zero_grad(set_to_none=True)
        outcome.loss.backward()
        nn.utils.clip_grad_norm_(self._model.model.language_model.parameters(), 1.0)
        for optimizer in self._optimizers:
            optimizer.step()
        progress.record(outcome.losses, outcome.accuracies)
        return outcome.loss.item()

    def _save(self) -> None:
        if self._checkpoint is not None:
            state = {
                "model": self._model.state_dict(),
                "optimizers": [optimizer.state_dict() for optimizer in self._optimizers],
                "progress": asdict(self.progress),
            }
            save_atomically(state, self._checkpoint)

    def _resume(self, state: dict[str, Any]) -> None:
        self._model.load_state_dict(state["model"])
        for optimizer, saved in zip(self._optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.progress = Progress(**state["progress"])


def train_world_model(settings: TrainSettings, run: Path, log: Log) -> tuple[CompressedVLM, CompressedProcessor]:
    """The whole recipe; what a killed run left in the folder `run` is taken up again.

    Args:
        settings: The recipe.
        run: Folder of the checkpoints: ``tower.pt``, ``bank.pt`` and ``language_model.pt``.
        log: Receives a row of numbers now and then.
    """
    run.mkdir(parents=True, exist_ok=True)
    model, processor = build_world_model(settings)
    known = None if settings.start_from is None else load_model(settings.start_from)
    if known is not None:
        take_over(model, processor, *known)
    tower_file, bank_file = run / "tower.pt", run / "bank.pt"
    tower, colours = model.model.visual, colours_of(processor)
    if known is not None and settings.tower_steps == 0:
        tower.load_state_dict(known[0].model.visual.state_dict())
        save_atomically(tower.state_dict(), tower_file)
    elif not tower_file.exists():
        pretrain_tower(
            tower, colours, steps=settings.tower_steps, batch=settings.tower_batch, seed=settings.seed, log=log
        )
        unexplained = speak_in_words(model, processor, seed=settings.seed, like=known)
        log({"step": 0, **{f"tower/unexplained {stream}": value for stream, value in enumerate(unexplained)}})
        save_atomically(tower.state_dict(), tower_file)
    tower.load_state_dict(torch.load(tower_file, weights_only=True))
    if not bank_file.exists():
        bank = FeatureBank.build(tower, colours, variants=settings.variants, seed=settings.seed)
        save_atomically({"features": bank.features}, bank_file)
    bank = FeatureBank(torch.load(bank_file, weights_only=True)["features"])
    world = World(bank, settings.seed, settings.videos, settings.questions)
    training = LanguageModelTraining(model, processor, world, settings, run / "language_model.pt")
    for ended in training.run(log):
        step = training.progress.step
        if ended is not None and ended.save is not None:
            save_model(model, processor, run / ended.save)
        if step % settings.evaluate_every == 0 or ended is not None:
            for layout, style in EVALUATED:
                row = evaluate(model, processor, world, layout=layout, style=style)
                log({"step": step, **{f"{layout}/{style}/{name}": value for name, value in row.items()}})
    return model.eval(), processor


def train_and_save(config: Path, output: Path, run: Path) -> None:
    """Run a recipe and write the model, its processor, the recipe and the log into `output`.

    Args:
        config: The recipe, a YAML file.
        output: Folder that `marc.load_model` reads.
        run: Folder of the checkpoints.
    """
    settings = read_settings(config)
    output.mkdir(parents=True, exist_ok=True)
    with (output / "log.jsonl").open("a", encoding="utf-8") as file:

        def log(row: dict[str, Any]) -> None:
            file.write(json.dumps({name: round(value, 4) for name, value in row.items()}) + "\n")
            file.flush()
            print(" ".join(f"{name} {value:.4g}" for name, value in row.items()), flush=True)

        model, processor = train_world_model(settings, run, log)
    save_model(model, processor, output)
    write_text(output / "recipe.yaml", config.read_text(encoding="utf-8"))


def save_model(model: CompressedVLM, processor: CompressedProcessor, folder: Path) -> None:
    """Write what `marc.load_model` reads."""
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def save_atomically(state: dict[str, Any], path: Path) -> None:
    """Write a checkpoint so that a crash leaves the old one or the new one, never half of one."""
    write_atomically(path, lambda file: torch.save(state, file))
