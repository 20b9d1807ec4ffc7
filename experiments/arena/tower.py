"""The arena's vision tower: pre-training on crowded temporal grids, with heads that say what is in every cell.

As in `experiments.tiny_model.tower`, the heads are linear and thrown away; a cell tells its scene and light, which
fill the grid, and the one thing in it. Cells that something only touches are not asked what they hold.

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


class TowerTraining:
    """Trains a tower in place until every token tells what is in its cell; goes on from its checkpoint.

    Args:
        tower: Of the model.
        colours: How its pixels are normalised.
        steps: In all.
        cells: Of a step.
        seed: Of everything.
        checkpoint: File of the checkpoint.
    """

    def __init__(
        self, tower: PreTrainedModel, colours: Colours, *, steps: int, cells: int, seed: int, checkpoint: Path
    ) -> None:
        torch.manual_seed(seed)
        self._heads = nn.Linear(tower.config.out_hidden_size, sum(map(len, HEADS.values())))
        self._tower, self._colours, self._steps, self._cells = tower, colours, steps, cells
        self._seed, self._checkpoint, self._done = seed, checkpoint, 0
        parameters = [*tower.parameters(), *self._heads.parameters()]
        matrices = [parameter for parameter in tower.parameters() if parameter.ndim == 2]
        others = [parameter for parameter in parameters if all(parameter is not matrix for matrix in matrices)]
        self._optimizers = [
            torch.optim.Muon(matrices, lr=0.02, weight_decay=0.01, adjust_lr_fn="original"),
            torch.optim.AdamW(others, lr=4e-3, weight_decay=0.01, betas=(0.9, 0.98)),
        ]
        self._peaks = [optimizer.param_groups[0]["lr"] for optimizer in self._optimizers]
        if checkpoint.exists():
            self._resume(torch.load(checkpoint, weights_only=True))

    def run(self, log: Callable[[dict[str, Any]], None], *, every: int) -> None:
        """Trains to the end, with a checkpoint and a line of the log every so many steps."""
        while self._done < self._steps:
            loss, accuracies = self._step()
            self._done += 1
            if self._done % every == 0 or self._done == self._steps:
                log({"step": self._done, "tower/loss": loss, **accuracies})
                self._save()

    def _step(self) -> tuple[float, dict[str, float]]:
        grids = draw_grids(np.random.default_rng((self._seed, self._done)), self._cells)
        logits = self._heads(encode(self._tower, grids.frames, self._colours)).split(
            [len(words) for words in HEADS.values()], -1
        )
        losses, accuracies = [], {}
        for (name, _), values, target in zip(HEADS.items(), logits, grids.labels.unbind(-1), strict=True):
            known = target != UNKNOWN
            losses.append(F.cross_entropy(values[known], target[known]))
            accuracies[f"tower/{name}"] = (values[known].argmax(-1) == target[known]).float().mean().item()
        loss = torch.stack(losses).mean()
        rate = min(1.0, (self._done + 1) / 50, 2 * (1 - self._done / self._steps))
        for optimizer, peak in zip(self._optimizers, self._peaks, strict=True):
            optimizer.param_groups[0]["lr"] = peak * rate
            optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_([*self._tower.parameters(), *self._heads.parameters()], 1.0)
        for optimizer in self._optimizers:
            optimizer.step()
        return loss.item(), accuracies

    def _save(self) -> None:
        state = {
            "tower": self._tower.state_dict(),
            "heads": self._heads.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self._optimizers],
            "done": self._done,
        }
        save_atomically(state, self._checkpoint)

    def _resume(self, state: dict[str, Any]) -> None:
        self._tower.load_state_dict(state["tower"])
        self._heads.load_state_dict(state["heads"])
        for optimizer, saved in zip(self._optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self._done = state["done"]
