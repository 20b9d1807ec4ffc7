"""Train the embedded model from scratch: tower first, then the language model on features of the frozen tower.

The recipe is a YAML file (``configs/world_tiny.yaml``), read into `TrainSettings`. Everything random in a step follows
from the seed and the step's number, and a checkpoint holds the rest, so a run that was killed and resumed ends with
the same weights as one that was not.

    python training_script/train_world.py OUTPUT --config configs/world_tiny.yaml

What it took to learn this within an hour on a CPU: grids seen by heads on *every* merged token; questions packed
(`marc.world.packing`); kinds of questions drawn by their running loss, attributes before order and number; the event
layout before the full one, since four tokens teach the reading of questions at a third of the price; Muon instead of
AdamW for the matrices.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor, nn
from torch.nn import functional as F

from marc.model import MarcForConditionalGeneration, MarcProcessor
from marc.model.tiny import build_config, build_processor
from marc.world.bank import FeatureBank, VisualTokens, event_layout, full_layout
from marc.world.packing import ATTENTION, IGNORED, Packed, Packer, packed_hidden
from marc.world.questions import KINDS, WorldQuestion, draw_questions
from marc.world.scenes import Split, WorldVideo, sample_video
from marc.world.tower import pretrain_tower
from marc.world.vocabulary import build_world_tokenizer

STORIES = ("whole story", "scene list")
"""The kinds with long answers, asked in steps of their own."""

Log = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Phase:
    """A stretch of training with its own mixture.

    Attributes:
        steps: Number of steps.
        layouts: Probability of each layout: ``events``, ``full`` or ``pooled-K`` (runs of K grids averaged).
        styles: Probability of each prompt style of `marc.data.prompts`.
        max_events: Most events of a video.
        stories: Probability of a step that asks only one question of `STORIES` about each video.
        kinds: Kinds of questions; empty is all of them.
        choices: Probability of a step that asks multiple-choice questions.
        hints: Share of these steps in which the question says the answer, to practise finding its letter.
        rate: Factor on the learning rates.
        noise: Probability of a step with imperfect visual tokens, see `lay_out`.
    """

    steps: int
    layouts: dict[str, float]
    styles: dict[str, float]
    max_events: int = 4
    stories: float = 0.0
    kinds: tuple[str, ...] = ()
    choices: float = 0.3
    hints: float = 0.0
    rate: float = 1.0
    noise: float = 1.0

    def __post_init__(self) -> None:
        for name in ("layouts", "styles"):
            shares = getattr(self, name)
            if abs(sum(shares.values()) - 1) > 1e-6:
                raise ValueError(f"a phase's {name} must sum to 1, got {shares}")
        if unknown := set(self.kinds) - set(KINDS):
            raise ValueError(f"unknown kinds of questions {sorted(unknown)}; known are {', '.join(KINDS)}")


@dataclass(frozen=True)
class TrainSettings:
    """The recipe.

    Attributes:
        seed: Seed of everything.
        layers: Layers of the language model.
        rope_theta: Base of its rotary positions.
        tower_steps: Steps of the tower's pre-training.
        tower_batch: Grids of a step.
        tower_learning_rate: Its peak.
        variants: Clips of every label in the feature bank.
        phases: The language model's curriculum.
        videos: Videos of a step.
        questions: Questions packed for each video.
        muon_learning_rate: Peak, for matrices.
        adam_learning_rate: Peak, for embeddings and norms.
        warmup: Steps over which the rates rise.
        decay: Part of all steps, at the end, over which they fall to zero.
        checkpoint_every: Steps between checkpoints.
        evaluate_every: Steps between evaluations on the validation split.
        log_every: Steps between log lines.
    """

    seed: int = 0
    layers: int = 4
    rope_theta: float = 1_000_000.0
    tower_steps: int = 1500
    tower_batch: int = 256
    tower_learning_rate: float = 3e-3
    variants: int = 16
    phases: tuple[Phase, ...] = field(default_factory=tuple)
    videos: int = 32
    questions: int = 8
    muon_learning_rate: float = 0.02
    adam_learning_rate: float = 3e-3
    warmup: int = 50
    decay: float = 0.4
    checkpoint_every: int = 200
    evaluate_every: int = 500
    log_every: int = 50

    @property
    def steps(self) -> int:
        """Steps of all phases."""
        return sum(phase.steps for phase in self.phases)

    def phase(self, step: int) -> Phase:
        """The phase that a step belongs to."""
        for phase in self.phases:
            if step < phase.steps:
                return phase
            step -= phase.steps
        raise ValueError(f"the recipe has {self.steps} steps")

    def rate(self, step: int) -> float:
        """The learning rates' factor at a step: up, flat, down to zero, times that of the phase."""
        decay = max(1, int(self.steps * self.decay))
        return self.phase(step).rate * min(1.0, (step + 1) / max(1, self.warmup), (self.steps - step) / decay)


@dataclass
class KindLosses:
    """Running loss of each kind of question; harder kinds are drawn more often."""

    values: dict[str, float] = field(default_factory=lambda: dict.fromkeys(KINDS, 1.0))
    floor: float = 0.08

    def weights(self) -> dict[str, float]:
        """How often each kind should be drawn."""
        return {kind: min(value, 1.0) + self.floor for kind, value in self.values.items()}

    def update(self, losses: dict[str, float], momentum: float = 0.9) -> None:
        """Take in the mean losses of one step."""
        for kind, loss in losses.items():
            self.values[kind] = momentum * self.values[kind] + (1 - momentum) * loss


def build_world_model(settings: TrainSettings) -> tuple[MarcForConditionalGeneration, MarcProcessor]:
    """The tiny model with random weights and a tokenizer that knows the world's words."""
    tokenizer = build_world_tokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        config = build_config(tokenizer)
        config.text_config.rope_parameters["rope_theta"] = settings.rope_theta
        config.text_config.num_hidden_layers = settings.layers
        config.text_config.layer_types = ["full_attention"] * settings.layers
        model = MarcForConditionalGeneration(config)
        nn.init.normal_(model.model.language_model.embed_tokens.weight, std=0.1)
        for weight in model.model.visual.parameters():
            if weight.ndim > 1:
                nn.init.normal_(weight, std=weight[0].numel() ** -0.5)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model, build_processor(tokenizer)


def choose(rng: np.random.Generator, shares: dict[str, float]) -> str:
    """Draw a name by its share."""
    names = list(shares)
    return names[int(rng.choice(len(names), p=np.array(list(shares.values()))))]


def make_segments(video: WorldVideo, rng: np.random.Generator, count: int) -> list[int]:
    """Lengths of a video's segments: its events, the longest of them cut at random until there are `count`."""
    lengths = [event.grids for event in video.events]
    while len(lengths) < count:
        index = int(np.argmax(lengths))
        left = int(rng.integers(1, lengths[index]))
        lengths[index : index + 1] = [left, lengths[index] - left]
    return lengths


def lay_out(
    bank: FeatureBank, videos: list[WorldVideo], layout: str, rng: np.random.Generator, *, noisy: bool
) -> VisualTokens:
    """Features of the videos in a layout.

    Clean, the event layout has the true events, and a grid lasts a second. Noisy, some grids stand still, videos have
    different paces, and the events are as the memory gives them (now and then one too many) or as they come out
    without the memory: four segments of similar frames, at evenly spread times.
    """
    tokens = bank.videos(videos, rng, still_rate=0.1 if noisy and rng.random() < 0.3 else 0.0)
    varied = noisy & (rng.random(len(videos)) < 0.5)
    pace = torch.tensor(np.where(varied, rng.uniform(0.5, 2.0, len(videos)), 1.0))
    if layout == "events":
        blind = noisy and rng.random() < 0.4
        counts = [4 if blind else 2 * int(noisy and rng.random() < 0.1) for _ in videos]
        segments = [make_segments(video, rng, count) for video, count in zip(videos, counts, strict=True)]
        return event_layout(tokens, segments, pace, rng, budget=4, even=blind)
    return full_layout(tokens, pace, pool=1 if layout == "full" else int(layout.removeprefix("pooled-")))


@dataclass(frozen=True)
class Batch:
    """One step's questions, ready for the model."""

    packed: Packed
    kinds: list[list[str]]
    jump: bool


class World:
    """Makes batches: number `step` follows from the seed, the step and the kinds' weights alone."""

    def __init__(self, bank: FeatureBank, packer: Packer, settings: TrainSettings) -> None:
        self.bank, self.packer, self.settings = bank, packer, settings

    def batch(self, step: int, weights: dict[str, float]) -> Batch:
        """Draw the batch of a training step."""
        rng = np.random.default_rng((self.settings.seed, step))
        phase = self.settings.phase(step)
        layout, style = choose(rng, phase.layouts), choose(rng, phase.styles)
        asked = {kind: weights.get(kind, 1.0) for kind in phase.kinds or KINDS if kind not in STORIES}
        stories = rng.random() < phase.stories
        return self.draw(
            rng,
            step,
            layout,
            style,
            dict.fromkeys(STORIES, 1.0) if stories else asked,
            max_events=phase.max_events,
            choice_rate=float(rng.random() < phase.choices),
            noisy=bool(rng.random() < phase.noise),
            hints=bool(rng.random() < phase.hints),
        )

    def draw(
        self,
        rng: np.random.Generator,
        step: int,
        layout: str,
        style: str,
        weights: dict[str, float],
        *,
        split: Split = "train",
        max_events: int = 4,
        choice_rate: float = 0.0,
        noisy: bool = False,
        hints: bool = False,
    ) -> Batch:
        """Draw a batch in a given layout and style, with kinds of questions drawn by their weights."""
        size, count = self.settings.videos, self.settings.questions
        if style.startswith("video-r1"):
            count = max(1, count // 4)
        stories = set(weights) == set(STORIES)
        if stories:
            size, count = 3 * size, 1
        first = 3 * step * self.settings.videos
        videos = [
            sample_video("easy", split, self.settings.seed, first + i, max_events=max_events) for i in range(size)
        ]
        questions = [draw_questions(video, rng, count, weights=weights, choice_rate=choice_rate) for video in videos]
        if hints and choice_rate == 1:
            questions = [[with_hint(question) for question in row] for row in questions]
        visual = lay_out(self.bank, videos, layout, rng, noisy=noisy)
        packed = self.packer.pack(questions, visual, style)
        kinds = [[question.kind for question in row] for row in questions]
        return Batch(packed, kinds, jump=bool(rng.random() < 0.5))


def answer_losses(model: MarcForConditionalGeneration, batch: Batch) -> tuple[Tensor, Tensor]:
    """Cross-entropy and correctness of every completion token, ``[B, Q, M]``; zero and true elsewhere."""
    hidden = packed_hidden(model, batch.packed, jump=batch.jump)
    chosen = batch.packed.labels != IGNORED
    labels = batch.packed.labels[chosen]
    logits = model.lm_head(hidden[chosen]).float()
    losses = hidden.new_zeros(chosen.shape).masked_scatter(chosen, F.cross_entropy(logits, labels, reduction="none"))
    right = torch.ones_like(chosen).masked_scatter(chosen, logits.argmax(-1) == labels)
    return losses, right


def with_hint(question: WorldQuestion) -> WorldQuestion:
    """A multiple-choice question that says its answer; what is left is to find the letter."""
    words = dict(option.split(". ", 1) for option in question.options)
    return replace(question, text=f"{question.text} {words[question.answer]}") if words else question


def by_kind(kinds: list[list[str]], values_BQ: Tensor) -> dict[str, float]:
    """Mean of a value per question over each kind."""
    table: dict[str, list[float]] = {}
    for row, values in zip(kinds, values_BQ.tolist(), strict=True):
        for kind, value in zip(row, values, strict=True):
            table.setdefault(kind, []).append(value)
    return {kind: sum(values) / len(values) for kind, values in table.items()}


@torch.no_grad()
def evaluate(
    model: MarcForConditionalGeneration, world: World, *, layout: str, style: str, batches: int, seed: int
) -> dict[str, float]:
    """Accuracy by kind on videos of the validation split (all completion tokens right, under teacher forcing)."""
    model.eval()
    weights = {kind: 1.0 for kind in KINDS if kind not in STORIES}
    rows: dict[str, list[float]] = {}
    for index in range(batches):
        batch = world.draw(
            np.random.default_rng((seed, index)), index, layout, style, weights, split="validation", choice_rate=0.33
        )
        _, right = answer_losses(model, batch)
        flat = [kind for row in batch.kinds for kind in row]
        for kind, value in zip(flat, right.all(-1).flatten().tolist(), strict=True):
            rows.setdefault(kind, []).append(value)
    model.train()
    total = [value for values in rows.values() for value in values]
    return {
        "all": sum(total) / len(total),
        **{kind: sum(rows[kind]) / len(rows[kind]) for kind in KINDS if kind in rows},
    }


def make_optimizers(model: MarcForConditionalGeneration, settings: TrainSettings) -> list[torch.optim.Optimizer]:
    """Muon for the language model's matrices, AdamW for its embeddings and norms; the tower is frozen."""
    text = model.model.language_model
    matrices = [p for p in text.layers.parameters() if p.ndim == 2]
    others = [p for p in text.parameters() if all(p is not matrix for matrix in matrices)]
    return [
        torch.optim.Muon(matrices, lr=settings.muon_learning_rate, weight_decay=0.01, adjust_lr_fn="original"),
        torch.optim.AdamW(others, lr=settings.adam_learning_rate, weight_decay=0.0, betas=(0.9, 0.98)),
    ]


def train_language_model(
    model: MarcForConditionalGeneration,
    world: World,
    settings: TrainSettings,
    log: Log,
    checkpoint: Path | None = None,
) -> Iterator[int]:
    """Train in place, yielding the number of finished steps after each; resumes from `checkpoint` if it exists."""
    model.requires_grad_(False)
    model.model.language_model.requires_grad_(True)
    model.model.language_model.config._attn_implementation = ATTENTION
    model.train()
    optimizers = make_optimizers(model, settings)
    peaks = [optimizer.param_groups[0]["lr"] for optimizer in optimizers]
    losses, step, elapsed = KindLosses(), 0, 0.0
    if checkpoint is not None and checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        losses.values.update(state["losses"])
        step, elapsed = state["step"], state["seconds"]
    started = time.perf_counter() - elapsed
    while step < settings.steps:
        batch = world.batch(step, losses.weights())
        token_losses, right = answer_losses(model, batch)
        count = (batch.packed.labels != IGNORED).sum()
        loss = token_losses.sum() / count
        for optimizer, peak in zip(optimizers, peaks, strict=True):
            optimizer.param_groups[0]["lr"] = peak * settings.rate(step)
            optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.model.language_model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        losses.update(by_kind(batch.kinds, token_losses.detach().sum(-1)))
        step += 1
        if step % settings.log_every == 0 or step == settings.steps:
            accuracy = right.all(-1).float().mean().item()
            log(
                {
                    "step": step,
                    "seconds": time.perf_counter() - started,
                    "loss": loss.item(),
                    "accuracy": accuracy,
                    **losses.values,
                }
            )
        if checkpoint is not None and (step % settings.checkpoint_every == 0 or step == settings.steps):
            save_atomically(
                {
                    "model": model.state_dict(),
                    "optimizers": [optimizer.state_dict() for optimizer in optimizers],
                    "losses": losses.values,
                    "step": step,
                    "seconds": time.perf_counter() - started,
                },
                checkpoint,
            )
        yield step


def read_settings(path: Path) -> TrainSettings:
    """Read a recipe.

    Raises:
        ValueError: If a key is unknown or a value does not fit; the message names it.
    """
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    phases = tuple(Phase(**{**phase, "kinds": tuple(phase.get("kinds", ()))}) for phase in values.pop("phases"))
    known = [item.name for item in fields(TrainSettings)]
    if unknown := sorted(set(values) - set(known)):
        raise ValueError(f"{path}: unknown options {', '.join(unknown)}; known are {', '.join(known)}")
    return TrainSettings(**values, phases=phases)


def train_world_model(
    settings: TrainSettings, run: Path, log: Log
) -> tuple[MarcForConditionalGeneration, MarcProcessor]:
    """The whole recipe; what a killed run left in the folder `run` is taken up again.

    Args:
        settings: The recipe.
        run: Folder of the checkpoints: ``tower.pt``, ``bank.pt`` and ``language_model.pt``.
        log: Receives a row of numbers now and then.
    """
    run.mkdir(parents=True, exist_ok=True)
    model, processor = build_world_model(settings)
    tower_file, bank_file = run / "tower.pt", run / "bank.pt"
    tower = model.model.visual
    if not tower_file.exists():
        pretrain_tower(
            tower,
            steps=settings.tower_steps,
            batch=settings.tower_batch,
            learning_rate=settings.tower_learning_rate,
            seed=settings.seed,
            log=log,
        )
        save_atomically(tower.state_dict(), tower_file)
    tower.load_state_dict(torch.load(tower_file, weights_only=True))
    if not bank_file.exists():
        bank = FeatureBank.build(tower, variants=settings.variants, seed=settings.seed)
        save_atomically({"features": bank.features}, bank_file)
    bank = FeatureBank(torch.load(bank_file, weights_only=True)["features"])
    world = World(bank, Packer(processor), settings)
    for step in train_language_model(model, world, settings, log, run / "language_model.pt"):
        if step % settings.evaluate_every == 0 or step == settings.steps:
            for layout in ("events", "full"):
                row = evaluate(model, world, layout=layout, style="short", batches=4, seed=1)
                log({"step": step, **{f"{layout}/{name}": value for name, value in row.items()}})
    model.model.language_model.config._attn_implementation = "sdpa"
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
    model.save_pretrained(output)
    processor.save_pretrained(output)
    (output / "recipe.yaml").write_text(config.read_text(encoding="utf-8"), encoding="utf-8")


def save_atomically(state: dict[str, Any], path: Path) -> None:
    """Write a checkpoint so that a crash leaves the old one or the new one, never half of one."""
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
