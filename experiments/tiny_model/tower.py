"""The vision tower of the embedded model: its pre-training on labelled temporal grids.

The tower attends only inside one temporal grid, so the features of a whole video are those of its grids side by side.
Two things follow. The tower can be trained on single grids, with throwaway linear heads that read the background, the
colour, the shape, the direction and the place of the object from *every* merged token (so averaging tokens keeps them
readable). And once it is frozen, its features can be computed once for every kind of event and put together to any
number of new videos (`bank`): the language model's training then never runs the tower.

Shapes: N grids, S patches of a grid, X numbers of a patch, P merged tokens of a grid, D features of a stream, W
those of all streams of a token (`marc.model.streams`).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from math import isqrt

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from marc.model import CompressedProcessor
from marc.model.streams import side_by_side
from marc.world.renderer import FrameBatch, render
from marc.world.scenes import BACKGROUNDS, COLOURS, DIRECTIONS, SHAPES, SIZE, STEPS

KINDS = (len(BACKGROUNDS), len(COLOURS), len(SHAPES), len(DIRECTIONS))
"""Number of backgrounds, colours, shapes and directions: the label of an easy event."""
Colours = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and deviation of red, green and blue, by which pixels are normalised."""


@dataclass(frozen=True)
class Grids:
    """N labelled temporal grids of one moving object each.

    Attributes:
        frames: Float in [0, 1], ``[N, 2, H, W, 3]``.
        labels: Background, colour, shape, direction and quadrant of the object, ``[N, 5]``; -1 is unknown.
    """

    frames: Tensor
    labels: Tensor


def colours_of(processor: CompressedProcessor) -> Colours:
    """How a processor normalises pixels."""
    return tuple(processor.video_processor.image_mean), tuple(processor.video_processor.image_std)


def grids_to_patches(frames_N2HWC: Tensor, colours: Colours, *, patch: int = 7, merge: int = 2) -> Tensor:
    """Normalise and cut grids into patches in the order of Qwen's video processors: ``[N, S, X]``."""
    mean, std = (frames_N2HWC.new_tensor(values) for values in colours)
    pixels = (frames_N2HWC - mean) / std
    side = SIZE // (patch * merge)
    pixels = pixels.reshape(-1, 2, side, merge, patch, side, merge, patch, 3)
    return pixels.permute(0, 2, 5, 3, 6, 8, 1, 4, 7).reshape(len(frames_N2HWC), side**2 * merge**2, -1)


def encode_grids(tower: PreTrainedModel, patches_NSX: Tensor) -> Tensor:
    """The tower on N grids of one size, as on a video that shows one after the other: merged tokens ``[N, P, W]``."""
    count, length, _ = patches_NSX.shape
    side = isqrt(length)
    grid_thw = torch.tensor([[count, side, side]], device=patches_NSX.device)
    output = tower(patches_NSX.flatten(0, 1), grid_thw=grid_thw)
    tokens = side_by_side(output.pooler_output, getattr(output, "deepstack_features", None))
    return tokens.unflatten(0, (count, -1))


def mergers(tower: PreTrainedModel) -> list[nn.Module]:
    """What makes the streams of a token, in the order in which they stand side by side."""
    return [tower.merger, *getattr(tower, "deepstack_merger_list", ())]


def random_grids(count: int, generator: torch.Generator) -> Grids:
    """Draw labelled grids at random, seen through random lenses (`through_a_codec`)."""
    device = generator.device

    def integers(high: int, *shape: int) -> Tensor:
        return torch.randint(high, shape, generator=generator, device=device)

    labels = torch.stack([integers(kinds, count) for kinds in KINDS], dim=1)
    step = torch.tensor([1, 2, 2, 2, 2, 2, 3, 0], device=device)[integers(8, count)]
    frames, quadrant = draw_pairs(labels, integers(SIZE, count, 2), step, generator)
    labels[:, 3] = torch.where(step > 0, labels[:, 3], -1)
    return Grids(through_a_codec(frames, generator), torch.cat((labels, quadrant[:, None]), dim=1))


def draw_pairs(labels: Tensor, start: Tensor, step: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Two frames of each labelled event ``[N, 4]``, from centre `start` ``[N, 2]``, moving by `step` pixels ``[N]``.

    Returns:
        Frames ``[N, 2, H, W, 3]`` in [0, 1] and the quadrant of the object between the two ``[N]``.
    """
    count, device = len(labels), labels.device

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(count, *shape, generator=generator, device=device)

    tint = uniform(0.75, 1.0, 3)
    dark, light = uniform(0.08, 0.22, 1) * tint, uniform(0.40, 0.55, 1) * tint
    phase = torch.randint(SIZE, (count, 2), generator=generator, device=device)
    move = torch.tensor([STEPS[name] for name in DIRECTIONS], device=device)[labels[:, 3]] * step[:, None]
    centre = torch.stack((start, start + move), dim=1)
    frames = render(
        FrameBatch(
            background=labels[:, 0].repeat_interleave(2),
            dark=dark.repeat_interleave(2, dim=0),
            light=light.repeat_interleave(2, dim=0),
            phase=phase.repeat_interleave(2, dim=0),
            colour=labels[:, 1:2].repeat_interleave(2, dim=0),
            shape=labels[:, 2:3].repeat_interleave(2, dim=0),
            centre=centre.flatten(0, 1)[:, None],
        )
    )
    middle = (start + move // 2) % SIZE >= SIZE // 2
    return frames.view(count, 2, SIZE, SIZE, 3), middle[:, 0] * 2 + middle[:, 1]


def through_a_codec(frames_N2HWC: Tensor, generator: torch.Generator) -> Tensor:
    """A cheap imitation of encoding, decoding and resizing: a random blur or sharpening, gain, offset and noise."""
    count = len(frames_N2HWC)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        draw = torch.rand(count, *shape, generator=generator, device=frames_N2HWC.device)
        return (low + (high - low) * draw)[:, None, None, None]

    side = uniform(-0.08, 0.12, 1)
    out = frames_N2HWC
    for dim in (2, 3):
        out = out * (1 - 2 * side) + side * (out.roll(1, dim) + out.roll(-1, dim))
    out = out * uniform(0.95, 1.05, 1) + uniform(-0.02, 0.02, 3)
    noise = torch.randn(out.shape, generator=generator, device=out.device)
    return (out + uniform(0, 0.02, 1) * noise).clamp(0, 1)


class GridHeads(nn.Module):
    """Throwaway linear read-outs of one merged token: background, colour, shape, direction, quadrant."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.sizes = (*KINDS, 4)
        self.linear = nn.Linear(features, sum(self.sizes))

    def forward(self, tokens_NPD: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Mean cross-entropy over heads and tokens, and the accuracy of each head on the grid's mean token ``[5]``."""
        tokens = torch.cat((tokens_NPD, tokens_NPD.mean(1, keepdim=True)), dim=1)
        losses, accuracies = [], []
        for head, logits in enumerate(self.linear(tokens).split(self.sizes, dim=-1)):
            target = labels[:, head, None].expand(-1, tokens.shape[1])
            losses.append(F.cross_entropy(logits.flatten(0, 1), target.flatten(), ignore_index=-1))
            known = labels[:, head] >= 0
            accuracies.append((logits[:, -1].argmax(-1) == labels[:, head])[known].float().mean())
        return torch.stack(losses).mean(), torch.stack(accuracies)


def pretrain_tower(
    tower: PreTrainedModel,
    colours: Colours,
    *,
    steps: int,
    batch: int,
    seed: int,
    log: Callable[[dict[str, float]], None],
    log_every: int = 50,
) -> None:
    """Train the tower in place until every stream of every token tells what its grid shows; the heads are thrown away.

    Muon for the matrices, AdamW for the rest: with AdamW alone the shape is told as well only after four times the
    steps. The rates rise over 50 steps and fall to zero over the second half.
    """
    generator = torch.Generator(device=tower.device).manual_seed(seed)
    torch.manual_seed(seed)
    width = tower.config.out_hidden_size
    heads = nn.ModuleList([GridHeads(width) for _ in mergers(tower)]).to(tower.device)
    parameters = [*tower.parameters(), *heads.parameters()]
    matrices = [parameter for parameter in tower.parameters() if parameter.ndim == 2]
    others = [parameter for parameter in parameters if all(parameter is not matrix for matrix in matrices)]
    optimizers = [
        torch.optim.Muon(matrices, lr=0.02, weight_decay=0.01, adjust_lr_fn="original"),
        torch.optim.AdamW(others, lr=4e-3, weight_decay=0.01, betas=(0.9, 0.98)),
    ]
    schedules = [
        torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1, (step + 1) / 50, 2 * (1 - step / steps)))
        for optimizer in optimizers
    ]
    started = time.perf_counter()
    for step in range(1, steps + 1):
        grids = random_grids(batch, generator)
        streams = encode_grids(tower, grids_to_patches(grids.frames, colours)).split(width, -1)
        read = [head(stream, grids.labels) for head, stream in zip(heads, streams, strict=True)]
        loss, accuracy = torch.stack([loss for loss, _ in read]).mean(), read[0][1]
        tower.zero_grad(set_to_none=True)
        heads.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        for optimizer, schedule in zip(optimizers, schedules, strict=True):
            optimizer.step()
            schedule.step()
        if step % log_every == 0 or step == steps:
            names = ("background", "colour", "shape", "direction", "quadrant")
            row = {f"tower/{name}": value for name, value in zip(names, accuracy.tolist(), strict=True)}
            log({"step": step, "seconds": time.perf_counter() - started, "tower/loss": loss.item(), **row})
