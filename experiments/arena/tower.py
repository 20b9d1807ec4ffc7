"""The arena's vision tower: pre-training on crowded temporal grids, with heads that say what is in every cell.

As in `experiments.tiny_model.tower`, the heads are linear and thrown away; a cell tells its scene and light, which
fill the grid, and the one thing in it. Cells that something only touches are not asked what they hold. Then the tower
learns to say it in words (`CellWords`).

Shapes: N grids, S patches of a grid, X numbers of a patch, P cells of a grid, D features of a token.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from experiments.tiny_model.tower import Colours, through_a_codec
from experiments.tiny_model.train import save_atomically
from marc.world.arena.renderer import render_event
from marc.world.arena.scenes import (
    CELL,
    DIGITS,
    LETTERS,
    TINTS,
    ArenaEvent,
    ArenaLimits,
    ArenaVideo,
    Mark,
    MarkKind,
    sample_arena,
)
from marc.world.scenes import BACKGROUNDS, COLOURS, DIRECTIONS, SHAPES, MovingObject

THINGS = ("none", "actor", "sign", "star", "button", "plate")
LIGHTS = ("dark", "going on", "bright")
HEADS: Mapping[str, tuple[str, ...]] = {
    "tint": TINTS,
    "pattern": BACKGROUNDS,
    "light": LIGHTS,
    "thing": THINGS,
    "shape": SHAPES,
    "colour": COLOURS,
    "direction": DIRECTIONS,
    "letter": tuple(LETTERS),
    "digit": tuple(DIGITS),
}
"""What a cell is asked, and the answers."""
UNKNOWN = -1
CROWD: tuple[MarkKind, ...] = ("sign", "sign", "star", "button", "plate")
"""Marks of training grids, one as often as the other."""
PATCH, MERGE = 7, 2
TOUCHED = 5
"""Pixels around an actor's centre within which it covers something of a cell."""
SIZES = (((4, 4), 0.6), ((4, 8), 0.2), ((8, 16), 0.2))
"""Rows and columns of cells of training grids, and how often: small ones show more scenes for the same work."""


@dataclass(frozen=True)
class CellGrids:
    """N labelled temporal grids.

    Attributes:
        frames: Float in [0, 1], ``[N, 2, H, W, 3]``.
        labels: Index of the answer to each of `HEADS`, ``int64 [N, P, len(HEADS)]``; -1 where there is none.
    """

    frames: Tensor
    labels: Tensor


def crowded_grid(rng: np.random.Generator, rows: int, columns: int) -> ArenaVideo:
    """A video of one grid that holds as many things as there is room for."""
    like = sample_arena("train", 0, int(rng.integers(10**6)), ArenaLimits(2, 2, rows, columns)).events[0]
    cells = iter(rng.permutation(rows * columns).tolist())
    marks = []
    for _ in range(rows * columns // 4):
        kind = CROWD[rng.integers(len(CROWD))]
        colour = COLOURS[rng.integers(len(COLOURS))]
        code = LETTERS[rng.integers(len(LETTERS))] + DIGITS[rng.integers(len(DIGITS))]
        value = {"sign": code, "plate": ""}.get(kind, colour)
        row, column = divmod(next(cells), columns)
        marks.append(Mark(kind, value, row, column, 0, 1))
    actors = [
        MovingObject(
            COLOURS[rng.integers(len(COLOURS))],
            SHAPES[rng.integers(len(SHAPES))],
            DIRECTIONS[rng.integers(len(DIRECTIONS))],
            int(rng.integers(rows * CELL)),
            int(rng.integers(columns * CELL)),
        )
        for _ in range(rows * columns // 8)
    ]
    light = (None, 0, -1)[rng.integers(3)]
    event = replace(like, grids=1, actors=tuple(actors), marks=tuple(marks), switch=light)
    return ArenaVideo("crowded", (event,), (), rows, columns)


def cell_labels(video: ArenaVideo, index: int = 0) -> NDArray[np.int64]:
    """What the cells of an event's first grid show: ``[P, len(HEADS)]``."""
    event = video.events[index]
    light = 0 if event.switch is None else 1 if event.switch == 0 else 2
    labels = {name: np.full((video.rows, video.columns), UNKNOWN) for name in HEADS}
    for name, value in (
        ("tint", TINTS.index(event.tint)),
        ("pattern", BACKGROUNDS.index(event.pattern)),
        ("light", light),
        ("thing", 0),
    ):
        labels[name][:] = value
    for row, column in _touched(video, event):
        labels["thing"][row, column] = UNKNOWN
    for sighting in video.sightings(index):
        if sighting.grid == video.first_grid(index):
            for name, word in words_of(sighting.thing).items():
                labels[name][sighting.row, sighting.column] = HEADS[name].index(word)
    return np.stack([labels[name].reshape(-1) for name in HEADS], axis=-1)


def words_of(thing: Mark | MovingObject) -> dict[str, str]:
    """What a thing is, by the heads that ask for it."""
    if isinstance(thing, MovingObject):
        return {"thing": "actor", "colour": thing.colour, "shape": thing.shape, "direction": thing.direction}
    if thing.kind == "sign":
        return {"thing": "sign", "letter": thing.value[0], "digit": thing.value[1]}
    return {"thing": thing.kind} | ({"colour": thing.value} if thing.value else {})


def _touched(video: ArenaVideo, event: ArenaEvent) -> Iterator[tuple[int, int]]:
    """Cells of which actors cover something in the first grid."""
    height, width = video.size
    for actor in event.actors:
        for frame in (0, 1):
            row, column = event.centre(actor, frame, video.size)
            for down in (-TOUCHED, TOUCHED):
                for right in (-TOUCHED, TOUCHED):
                    yield (row + down) % height // CELL, (column + right) % width // CELL


def draw_grids(rng: np.random.Generator, cells: int) -> CellGrids:
    """About so many labelled cells in crowded grids of one size."""
    (rows, columns), _ = SIZES[rng.choice(len(SIZES), p=[share for _, share in SIZES])]
    videos = [crowded_grid(rng, rows, columns) for _ in range(max(1, cells // (rows * columns)))]
    frames = np.stack([render_event(video.events[0], video.size) for video in videos])
    labels = np.stack([cell_labels(video) for video in videos])
    generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
    return CellGrids(through_a_codec(torch.from_numpy(frames), generator), torch.from_numpy(labels))


def frames_to_patches(frames_N2HWC: Tensor, colours: Colours) -> Tensor:
    """Normalise and cut grids into patches in the order of Qwen's video processors: ``[N, S, X]``."""
    mean, std = (frames_N2HWC.new_tensor(values) for values in colours)
    count, _, height, width, _ = frames_N2HWC.shape
    rows, columns = height // CELL, width // CELL
    pixels = ((frames_N2HWC - mean) / std).reshape(count, 2, rows, MERGE, PATCH, columns, MERGE, PATCH, 3)
    return pixels.permute(0, 2, 5, 3, 6, 8, 1, 4, 7).reshape(count, rows * columns * MERGE**2, -1)


def encode(tower: PreTrainedModel, frames_N2HWC: Tensor, colours: Colours) -> Tensor:
    """Tokens of N grids of one size: ``[N, P, D]``."""
    count, _, height, width, _ = frames_N2HWC.shape
    grid_thw = torch.tensor([[count, height // PATCH, width // PATCH]])
    tokens = tower(frames_to_patches(frames_N2HWC, colours).flatten(0, 1), grid_thw=grid_thw).pooler_output
    return torch.as_tensor(tokens).unflatten(0, (count, -1))


class CellHeads(nn.Module):
    """Throwaway linear read-outs of a token: an answer to each of `HEADS`."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.linear = nn.Linear(features, sum(map(len, HEADS.values())))

    def forward(self, tokens_NPD: Tensor, labels: Tensor) -> tuple[Tensor, dict[str, float]]:
        """Mean cross-entropy over heads, each over the cells whose answer is known, and accuracies by head."""
        answers = self.linear(tokens_NPD).split([len(words) for words in HEADS.values()], -1)
        losses, accuracies = [], {}
        for name, logits, target in zip(HEADS, answers, labels.unbind(-1), strict=True):
            known = target != UNKNOWN
            losses.append(F.cross_entropy(logits[known], target[known]))
            accuracies[name] = (logits[known].argmax(-1) == target[known]).float().mean().item()
        return torch.stack(losses).mean(), accuracies


class CellWords(nn.Module):
    """What a token should be: the sum of a vector for each answer.

    Attributes:
        vectors: By head, ``[answers + 1, D]``; the last one is that of an unknown answer, nothing.

    Args:
        vectors: Of the answers to each of `HEADS`, ``[answers, D]``.
    """

    def __init__(self, vectors: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.vectors = [torch.cat((vectors[name], torch.zeros_like(vectors[name][:1]))) for name in HEADS]

    def targets(self, labels: Tensor) -> Tensor:
        """The sums, ``[N, P, D]``; nothing for what is unknown."""
        parts = [table[answers] for table, answers in zip(self.vectors, labels.unbind(-1), strict=True)]
        return torch.stack(parts).sum(0)

    def forward(self, tokens_NPD: Tensor, labels: Tensor) -> tuple[Tensor, dict[str, float]]:
        """The share of their variance that is unexplained, and by head how often the right answer is the nearest."""
        sure = sure_cells(labels)
        tokens, targets = tokens_NPD[sure], self.targets(labels)[sure]
        loss = (tokens - targets).square().mean() / targets.var(0).mean()
        accuracies = {}
        for name, table, answers in zip(HEADS, self.vectors, labels[sure].unbind(-1), strict=True):
            spoken = table.norm(dim=1) > 0
            known = spoken[answers]
            if not known.any():
                continue
            near = (tokens.detach()[known] @ F.normalize(table[spoken], dim=1).T).argmax(-1)
            accuracies[name] = (spoken.nonzero()[near, 0] == answers[known]).float().mean().item()
        return loss, accuracies


def sure_cells(labels: Tensor) -> Tensor:
    """The cells of which it is known what they hold, ``bool [N, P]``."""
    return labels[..., list(HEADS).index("thing")] != UNKNOWN


@dataclass(frozen=True)
class TowerStage:
    """A stretch of a tower's training.

    Attributes:
        steps: In all.
        cells: Of a step.
        rate: Factor on the learning rates.
        seed: Of everything.
    """

    steps: int
    cells: int
    rate: float = 1.0
    seed: int = 0


class TowerTraining:
    """Trains a tower in place by what is read of its tokens; goes on from its checkpoint.

    Args:
        tower: Of the model.
        colours: How its pixels are normalised.
        reader: `CellHeads` or `CellWords`.
        stage: How long.
        checkpoint: File of the checkpoint.
    """

    def __init__(
        self, tower: PreTrainedModel, colours: Colours, reader: nn.Module, stage: TowerStage, checkpoint: Path
    ) -> None:
        self._tower, self._colours, self._reader = tower, colours, reader
        self._stage, self._checkpoint, self._done = stage, checkpoint, 0
        self._parameters = [*tower.parameters(), *reader.parameters()]
        matrices = [parameter for parameter in tower.parameters() if parameter.ndim == 2]
        others = [parameter for parameter in self._parameters if all(parameter is not matrix for matrix in matrices)]
        self._optimizers = [
            torch.optim.Muon(matrices, lr=0.02 * stage.rate, weight_decay=0.01, adjust_lr_fn="original"),
            torch.optim.AdamW(others, lr=4e-3 * stage.rate, weight_decay=0.01, betas=(0.9, 0.98)),
        ]
        self._peaks = [optimizer.param_groups[0]["lr"] for optimizer in self._optimizers]
        if checkpoint.exists():
            self._resume(torch.load(checkpoint, weights_only=True))

    def run(self, log: Callable[[dict[str, Any]], None], *, every: int) -> None:
        """Trains to the end, with a checkpoint and a line of the log every so many steps."""
        while self._done < self._stage.steps:
            loss, accuracies = self._step()
            self._done += 1
            if self._done % every == 0 or self._done == self._stage.steps:
                log({"step": self._done, "tower/loss": loss, **{f"tower/{k}": v for k, v in accuracies.items()}})
                self._save()

    def _step(self) -> tuple[float, dict[str, float]]:
        grids = draw_grids(np.random.default_rng((self._stage.seed, self._done)), self._stage.cells)
        loss, accuracies = self._reader(encode(self._tower, grids.frames, self._colours), grids.labels)
        rate = min(1.0, (self._done + 1) / 50, 2 * (1 - self._done / self._stage.steps))
        for optimizer, peak in zip(self._optimizers, self._peaks, strict=True):
            optimizer.param_groups[0]["lr"] = peak * rate
            optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self._parameters, 1.0)
        for optimizer in self._optimizers:
            optimizer.step()
        return loss.item(), accuracies

    def _save(self) -> None:
        state = {
            "tower": self._tower.state_dict(),
            "reader": self._reader.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self._optimizers],
            "done": self._done,
        }
        save_atomically(state, self._checkpoint)

    def _resume(self, state: dict[str, Any]) -> None:
        self._tower.load_state_dict(state["tower"])
        self._reader.load_state_dict(state["reader"])
        for optimizer, saved in zip(self._optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self._done = state["done"]
