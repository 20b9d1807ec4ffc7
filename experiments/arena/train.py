"""Trains the arena's model: the tower on crowded grids, then the language model on every token of growing videos.

Everything random in a step follows from the seed and the step's number, and the checkpoints hold the rest, so that a
run that was killed goes on as if it had not been.

    python -m experiments.arena train FOLDER
    python -m experiments.arena deepen FOLDER --model experiments/arena/trained
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from experiments.arena.batches import ArenaBatches
from experiments.arena.model import build_arena_model, speak_in_words, speak_up, unsaid, words_of_cells
from experiments.arena.settings import ArenaPhase, ArenaSettings
from experiments.arena.tower import CellHeads, CellWords, TowerStage, TowerTraining
from experiments.kept_settings import keep_settings
from experiments.tiny_model.batches import loss_names
from experiments.tiny_model.packed_questions import pack_questions, target_logits
from experiments.tiny_model.tower import colours_of
from experiments.tiny_model.train import LanguageModelTraining, Log, by_name, save_atomically, save_model
from marc.model import CompressedProcessor, CompressedVLM
from marc.model.loading import load_model
from marc.world.arena.questions import ARENA_KINDS

VALIDATION_VIDEOS = 16
MULTIPLE_CHOICE = 0.33
SAID = 0.5
"""Of what a tower should say, the share of the variance that is missing where it speaks in other words."""


def train_arena(settings: ArenaSettings, folder: Path) -> None:
    """Trains to the end of the curriculum; what a killed run left in the folder is taken up again.

    Args:
        settings: The recipe.
        folder: Receives the checkpoints, ``log.jsonl`` and, after every evaluation, the model in ``model``.

    Raises:
        ValueError: If the folder holds a run of another seed, of other layers or another tower. A run may go on with
            another curriculum.
    """
    folder.mkdir(parents=True, exist_ok=True)
    keep_settings({name: getattr(settings, name) for name in ("seed", "layers", "tower_steps", "word_steps")}, folder)
    log = _log_in(folder)
    model, processor = build_arena_model(settings)
    _train_tower(model, processor, words_of_cells(model, processor), settings, folder, log)
    batches = ArenaBatches(model.model.visual, colours_of(processor), settings.seed)
    training = LanguageModelTraining(model, processor, batches, settings, folder / "language_model.pt")
    for ended in training.run(log):
        step = training.progress.step
        if step % settings.evaluate_every == 0 or ended is not None:
            phase = ended or settings.phases[training.progress.phase]
            row = evaluate(model, processor, batches, phase)
            log({"step": step, **{f"validation/{name}": value for name, value in row.items()}})
            save_model(model, processor, folder / "model")
    save_model(model.eval(), processor, folder / "model")


def deepen(source: Path, settings: ArenaSettings, folder: Path) -> None:
    """Puts another vision tower before a trained language model: one that learns to say the same words.

    Args:
        source: Folder of the trained model.
        settings: What the tower is trained by.
        folder: Receives the checkpoints, ``log.jsonl`` and the model in ``model``; a killed run goes on from there.

    Raises:
        ValueError: If the model does not know the words that the tower will say, as one of another seed does not, or
            the folder holds another tower.
    """
    trained, known = load_model(str(source), device="cpu", dtype="float32")
    language_model = trained.model.language_model
    settings = replace(settings, layers=language_model.config.num_hidden_layers)
    words = words_of_cells(*build_arena_model(replace(settings, tower_blocks=ArenaSettings.tower_blocks)))
    if unsaid(trained, known, words) > SAID:
        raise ValueError(
            f"{source}: its tower does not say the words of the level arena as seed {settings.seed} has them"
        )
    model, processor = build_arena_model(settings)
    folder.mkdir(parents=True, exist_ok=True)
    own = ("seed", "layers", "tower_blocks", "tower_steps", "word_steps")
    keep_settings({name: getattr(settings, name) for name in own} | {"source": str(source)}, folder)
    _train_tower(model, processor, words, settings, folder, _log_in(folder))
    model.model.language_model.load_state_dict(language_model.state_dict())
    save_model(model.eval(), processor, folder / "model")


def _log_in(folder: Path) -> Log:
    """Writes lines of ``log.jsonl``, and shows them."""

    def log(row: dict[str, Any]) -> None:
        with (folder / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({name: round(value, 4) for name, value in row.items()}) + "\n")
        print(" ".join(f"{name} {value:.4g}" for name, value in row.items()), flush=True)

    return log


def _train_tower(
    model: CompressedVLM,
    processor: CompressedProcessor,
    words: CellWords,
    settings: ArenaSettings,
    folder: Path,
    log: Log,
) -> None:
    """Trains the tower, or loads it: first to tell all that there is, then to say it in words."""
    tower, colours, done = model.model.visual, colours_of(processor), folder / "tower.pt"
    if not done.exists():
        torch.manual_seed(settings.seed)
        telling = TowerStage(settings.tower_steps, settings.tower_cells, seed=settings.seed)
        heads = CellHeads(tower.config.out_hidden_size)
        training = TowerTraining(tower, colours, heads, telling, folder / "tower_telling.pt")
        training.run(log, every=settings.checkpoint_every)
        saying = folder / "tower_saying.pt"
        if not saying.exists():
            unexplained = speak_in_words(model, processor, words, seed=settings.seed)
            log({"step": 0, "tower/unexplained": unexplained})
        stage = replace(telling, steps=settings.word_steps, rate=0.5)
        TowerTraining(tower, colours, words, stage, saying).run(log, every=settings.checkpoint_every)
        speak_up(model)
        save_atomically(tower.state_dict(), done)
    tower.load_state_dict(torch.load(done, weights_only=True))


@torch.no_grad()
def evaluate(
    model: CompressedVLM, processor: CompressedProcessor, batches: ArenaBatches, phase: ArenaPhase
) -> dict[str, float]:
    """Accuracy by kind on videos of the validation split (all completion tokens right, under teacher forcing)."""
    model.eval()
    shares = dict.fromkeys(ARENA_KINDS, 1.0)
    names: list[str] = []
    right: list[torch.Tensor] = []
    for number in range(VALIDATION_VIDEOS):
        rng = np.random.default_rng((1, number))
        asked = batches.draw(
            rng, range(number, number + 1), phase, shares, choices=MULTIPLE_CHOICE, split="validation"
        )
        asked = replace(asked, jump=False)
        packed = pack_questions(model, processor, asked)
        names += loss_names(asked)
        right.append(packed.right(target_logits(model, packed)))
    model.train()
    values = torch.cat(right)
    return {"all": values.mean().item(), **by_name(names, values)}
